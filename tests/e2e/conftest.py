# SPDX-License-Identifier: MIT
"""Where the programs under test are: PLATTER_BUILD (a build folder), or PLATTER_BIN in one."""
import os
import signal

import pytest

PROGRAMS = {'PLATTER_BIN': 'src/tools/platter', 'PLATTER_NBD_SERVE': 'tests/e2e/nbd_serve'}


def pytest_configure(config):
    build = os.environ.get('PLATTER_BUILD')
    program = os.environ.get('PLATTER_BIN')
    if not build and program:
        build = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(program))))
    if not build:
        pytest.exit('which build? set PLATTER_BUILD to its folder', returncode=4)
    os.environ['PLATTER_BUILD'] = os.path.abspath(build)
    for variable, path in PROGRAMS.items():
        full = os.environ.setdefault(variable, os.path.join(os.path.abspath(build), path))
        if not os.access(full, os.X_OK):
            pytest.exit(f'{full} is not there: build it with ninja -C {build}', returncode=4)

# A shell that starts us in the background makes us ignore SIGINT, nohup SIGHUP, and so would every
# program that we start: tests that end one with it need the default back.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_assertrepr_compare(op, left, right):
    """Where bytes differ, not a diff of megabytes, which takes for ever."""
    if op != '==' or not (isinstance(left, bytes) and isinstance(right, bytes)):
        return None
    at = next((i for i, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))
    return [f'{len(left)} and {len(right)} bytes, different from {at:#x}:',
            f'  {left[at:at + 32].hex(" ")}', f'  {right[at:at + 32].hex(" ")}']
