# SPDX-License-Identifier: MIT
"""The link named qemu-storage-daemon beside the installed one: command lines that end at once, by
what they print and the exit code; and what the name means for images that name others."""
import os
import shlex
import shutil
import subprocess

import pytest

from daemon_lines import DIFFERS, LINES, spelled, make
from qmp import Daemon
from tools_common import TIMEOUT, called, needs, platter

pytestmark = [needs('qcow2'), pytest.mark.skipif(not shutil.which('qemu-storage-daemon'),
                                                 reason='qemu-storage-daemon is not installed')]
NAME = 'qemu-storage-daemon'

GO_ON = {'--', '-- foo'}  # all that these do is to serve nothing


@pytest.fixture(name='link')
def link_fixture(tmp_path):
    return str(called(tmp_path, NAME))


@pytest.fixture(name='files', scope='module')
def files_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')
    make(folder)
    return folder


def outcome(program, line, files, folder):
    """Exit code, output, and the files that there are now. A daemon that goes on is ended. All run in a folder of
    the same name, which is in some messages."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(files, folder)
    with subprocess.Popen([program, *shlex.split(line)], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, err = process.communicate(timeout=2 if line in GO_ON else TIMEOUT)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, err = process.communicate(timeout=TIMEOUT)
            assert line in GO_ON, (program, line, err)
            err += 'went on'
        # Ours removes the sockets that it made.
        there = sorted(set(os.listdir(folder)) - {'nbd', 'sock'})
        return process.returncode, out, err, there


@pytest.mark.parametrize('about', LINES)
def test_like_the_reference(about, link, files, tmp_path, monkeypatch):
    folder = tmp_path / 'work'
    monkeypatch.setenv('PATH', os.path.dirname(link) + ':' + os.environ['PATH'])
    theirs = shutil.which(NAME, path=os.environ['PATH'].split(':', 1)[1])
    faults = []
    for line in map(spelled, filter(None, LINES[about].splitlines())):
        ours = outcome(link, line, files, folder)
        other = outcome(theirs, line, files, folder)
        # getopt names the program as it was called, with its folder.
        other = (*other[:2], other[2].replace(theirs + ':', NAME + ':'), other[3])
        if ours != other:
            faults.append((line, ours, other))
    assert not faults


@pytest.mark.parametrize('line', DIFFERS)
def test_on_purpose(line, link, files, tmp_path):
    """What is listed as different is so: a difference that is gone leaves the list."""
    folder = tmp_path / 'work'
    ours = outcome(link, spelled(line), files, folder)
    assert ours != outcome(NAME, spelled(line), files, folder)


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
