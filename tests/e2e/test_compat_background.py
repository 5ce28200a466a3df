# SPDX-License-Identifier: MIT
"""Servers by the names of the installed tools: where they stand once they serve, and who may connect to their sockets."""
import os
import shutil
import signal
import stat
import subprocess
from contextlib import contextmanager

import pytest

from qmp import Client
from tools_common import TIMEOUT, called, needs, run

PROGRAMS = ('qemu-nbd', 'qemu-storage-daemon')
pytestmark = [needs('qcow2'), pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason='the reference is not installed')]


@pytest.fixture(name='links', scope='module')
def links_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {program: called(folder, program) for program in PROGRAMS}


@pytest.fixture(name='work')
def work_fixture(tmp_path):
    folder = tmp_path / 'work'
    folder.mkdir()
    for line in (['create', '-q', '-f', 'qcow2', 'base', '1M'], ['create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'qcow2', 'top'],
                 ['create', '-q', '-f', 'raw', 'plain', '1M']):
        assert run(['qemu-img', *line], cwd=folder).returncode == 0
    return folder


@contextmanager
def background(work, umask, *line):
    """The server that the command leaves behind when it ends; its number. It is ended, and waited for."""
    done = subprocess.run([str(word) for word in line], cwd=work, umask=umask, check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TIMEOUT)
    assert done.returncode == 0
    pid = int((work / 'pid').read_text(encoding='ascii'))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGTERM)
        assert run(['tail', '-s', '0.05', f'--pid={pid}', '-f', '/dev/null']).returncode == 0


def modes(work):
    return {p.name: oct(p.stat().st_mode) for p in work.iterdir() if stat.S_ISSOCK(p.stat().st_mode)}


@pytest.mark.parametrize('umask', [0o022, 0o077, 0])
def test_of_qemu_nbd(umask, links, work):
    answers = []
    for program in (links['qemu-nbd'], 'qemu-nbd'):
        with background(work, umask, program, '-t', '--fork', '--pid-file=pid', '-k', work / 'socket', '-f', 'qcow2', 'top') as pid:
            read = run(['qemu-io', '-f', 'raw', '-r', '-c', 'read -P 0 0 1M', f'nbd+unix:///?socket={work}/socket'])
            answers.append((os.readlink(f'/proc/{pid}/cwd'), modes(work), read.returncode))
        (work / 'pid').unlink()
    assert answers[0] == answers[1]


@pytest.mark.parametrize('umask', [0o022, 0o077, 0])
def test_of_qemu_storage_daemon(umask, links, work):
    answers = []
    for program in (links['qemu-storage-daemon'], 'qemu-storage-daemon'):
        with background(work, umask, program, '--blockdev', 'file,filename=plain,node-name=a', '--nbd-server',
                        'addr.type=unix,addr.path=nbd', '--chardev', 'socket,id=q,path=qmp,server=on,wait=off', '--monitor', 'q',
                        '--pidfile=pid', '--daemonize') as pid, Client(str(work / 'qmp')) as qmp:
            answer = [os.readlink(f'/proc/{pid}/cwd'), modes(work)]
            answer.append(qmp.ask({'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'filename': 'plain', 'node-name': 'b'}}))
            answer.append(qmp.ask({'execute': 'blockdev-add', 'arguments': {
                'driver': 'qcow2', 'file': {'driver': 'file', 'filename': f'{work}/top'}, 'node-name': 'c'}}))
            answers.append(answer)
        assert not (work / 'pid').exists()
        for name in ('nbd', 'qmp'):
            (work / name).unlink(missing_ok=True)
    assert answers[0] == answers[1]


def test_by_our_own_name(work):
    """Only its owner may connect, and it stays where it is."""
    with background(work, 0, os.environ['PLATTER_BIN'], 'nbd', '-t', '--fork', '--pid-file=pid', '-k', work / 'socket', '-f', 'raw',
                    'plain') as pid:
        assert os.readlink(f'/proc/{pid}/cwd') == str(work)
        assert modes(work) == {'socket': oct(stat.S_IFSOCK | 0o600)}
