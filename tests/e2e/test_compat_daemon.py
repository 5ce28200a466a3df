# SPDX-License-Identifier: MIT
"""The link named qemu-storage-daemon beside the installed one: command lines that end at once, by
what they print and the exit code; and what the name means for images that name others."""
import os
import shutil

import pytest

from qmp import Daemon
from tools_common import called, needs, platter, run

pytestmark = [needs('qcow2'), pytest.mark.skipif(not shutil.which('qemu-storage-daemon'),
                                                 reason='qemu-storage-daemon is not installed')]
NAME = 'qemu-storage-daemon'

LINES = [
    '--nosuch',
    'operand',
    '--pidfile',
    '--blockdev driver=null-co',
    '--blockdev foo,node-name=n',
    '--monitor x',
    '--object iothread',
    '--object nosuch,id=x',
    '--export nbd,id=x',
    '--nbd-server addr.type=unix',
    '--daemonize --blockdev driver=null-co',
]
# What differs on purpose: the list of drivers behind an unknown one.
DIFFERS = {'--blockdev foo,node-name=n'}


@pytest.fixture(name='link')
def link_fixture(tmp_path):
    return str(called(tmp_path, NAME))


@pytest.mark.parametrize('line', LINES)
def test_like_the_reference(link, line):
    ours, theirs = run([link, *line.split()]), run([NAME, *line.split()])
    assert ours.returncode == theirs.returncode
    if line not in DIFFERS:
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)


def test_images_that_name_others(link, tmp_path):
    """As under the reference's name they are followed; the native daemon asks first."""
    platter('create', '-f', 'raw', 'base.raw', '1M', cwd=tmp_path)
    platter('create', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'over.qcow2', cwd=tmp_path)
    for program, follows in (([link], True), ([os.environ['PLATTER_BIN'], 'daemon'], False)):
        folder = tmp_path / str(follows)
        folder.mkdir()
        with Daemon(folder, program) as daemon, daemon.client() as qmp:
            reply = qmp.ask({'execute': 'blockdev-add', 'arguments': {
                'driver': 'qcow2', 'node-name': 'n',
                'file': {'driver': 'file', 'filename': str(tmp_path / 'over.qcow2')}}})
            assert ('return' in reply) == follows, reply
