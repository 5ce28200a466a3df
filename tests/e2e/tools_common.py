# SPDX-License-Identifier: MIT
"""Running platter and the installed reference programs."""
import functools
import json
import os
import shutil
import signal
import subprocess
from contextlib import contextmanager

import pytest

TIMEOUT = 60


def run(command, cwd=None, stdin=None):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False,
                          cwd=cwd, input=stdin or '', timeout=TIMEOUT)


# Commands that read, serve or change a disk, and so want to be told its format.
WANT_FORMAT = {'amend', 'bench', 'bitmap', 'checksum', 'commit', 'compact', 'compare', 'convert', 'dd', 'io', 'map',
               'measure', 'nbd', 'rebase', 'resize', 'serve', 'snapshot', 'check'}


def guessing(*arguments):
    """The command line, with formats guessed that it does not tell: most tests are not about that."""
    words = [str(word) for word in arguments]
    if not words or words[0] not in WANT_FORMAT or '--image-opts' in words:
        return words
    more = []
    if not any(w.startswith(('-f', '--format')) for w in words):
        more += ['-f', 'auto']
    if words[0] == 'compare' and '-F' not in words:
        more += ['-F', 'auto']
    return [words[0], *more, *words[1:]]


def platter(*arguments, cwd=None, stdin=None):
    return run([os.environ['PLATTER_BIN'], *guessing(*arguments)], cwd, stdin)


@functools.cache
def sanitizers():
    """What the build under test is instrumented with: 'address,undefined', 'none', ..."""
    with open(os.path.join(os.environ['PLATTER_BUILD'], 'meson-info/intro-buildoptions.json'),
              encoding='utf-8') as options:
        return next((o['value'] for o in json.load(options) if o['name'] == 'b_sanitize'), 'none')


def bounded(limit_bytes, *arguments):
    """(command, environment) of platter with a limit of memory, above which it fails. A sanitizer
    reserves terabytes of addresses: where there is one, memory that is really used is limited, and
    is allowed the sanitizer's own part of it."""
    command = [os.environ['PLATTER_BIN'], *map(str, arguments)]
    if sanitizers() == 'none':
        return ['prlimit', f'--as={limit_bytes}', '--', *command], dict(os.environ)
    options = os.environ.get('ASAN_OPTIONS', '')
    limit_mb = (3 * limit_bytes) >> 20
    return command, dict(os.environ, ASAN_OPTIONS=':'.join(filter(None, [
        options, f'hard_rss_limit_mb={limit_mb}', 'quarantine_size_mb=16'])))


def qemu(program, *arguments, cwd=None, stdin=None):
    if not shutil.which(program):
        pytest.skip(f'{program} is not installed')
    return run([program, *arguments], cwd, stdin)


def called(folder, program):
    """The program under test, called by another name: a link in folder."""
    if not shutil.which(program):
        pytest.skip(f'{program} is not installed')
    (folder / program).symlink_to(os.path.abspath(os.environ['PLATTER_BIN']))
    return folder / program


@contextmanager
def serving(*arguments, end=signal.SIGTERM):
    """platter serve, which gives (process, URI); ended by a signal, which must end it well."""
    with subprocess.Popen([os.environ['PLATTER_BIN'], *guessing('serve', *arguments)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            uri = process.stdout.readline().strip()
            assert uri, process.stderr.read()
            yield process, uri
            process.send_signal(end)
            assert process.wait(TIMEOUT) == 0
        finally:
            if process.poll() is None:
                process.kill()


@functools.cache
def formats():
    """The formats that the program under test was built with."""
    return platter('create', '-f', '?', 'nowhere', '1M').stderr.split('This build has:')[-1].replace(',', ' ').split()


def needs(fmt):
    return pytest.mark.skipif(fmt not in formats(), reason=f'this build has no {fmt}')


def same_json(ours, theirs, name_key=None):
    """Two answers of one command; ours may have further members."""
    mine, other = json.loads(ours.stdout), json.loads(theirs.stdout)
    if name_key:
        mine.pop(name_key, None)
        other.pop(name_key, None)
    return other == {k: mine.get(k) for k in other}
