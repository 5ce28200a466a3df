# SPDX-License-Identifier: MIT
"""Requests that wait for a limit do not hold up the end of what they came through: they go on at once, each has
its one reply or its connection ends, and the daemon answers."""
import os
import signal
import subprocess

import pytest

from qmp import WAIT_S, Daemon
from tools_common import needs

pytestmark = needs('raw')
READER = """
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
buf = nbd.Buffer(131072)
cookie = h.aio_pread(buf, 0)
print('sent', flush=True)
try:
    while not h.aio_command_completed(cookie):
        h.poll(-1)
    print('read')
except nbd.Error as e:
    print('failed')
"""
LIMITS = dict(bps=1024, bps__rd=0, bps__wr=0, iops=0, iops__rd=0, iops__wr=0)


class Held:
    """A daemon with an export in an iothread whose readers wait for a limit."""

    def __init__(self, folder, limit, clients=3):
        (folder / 'disk').write_bytes(b'x' * (1 << 20))
        words = ['--object', 'iothread,id=io0', '--nbd-server', f'addr.type=unix,addr.path={folder}/nbd.sock',
                 '--blockdev', f'file,node-name=disk,filename={folder}/disk', '--backend', 'name=cd']
        if limit == 'filter':
            words += ['--object', 'throttle-group,id=g,limits.bps-total=1024',
                      '--blockdev', 'throttle,node-name=slow,file=disk,throttle-group=g']
        self.daemon = Daemon(folder, [os.environ['PLATTER_BIN'], 'daemon'], *words, monitors=2)
        self.client = self.daemon.client()
        node = 'slow' if limit == 'filter' else 'disk'
        if limit == 'backend':
            self.client.call('blockdev-open-tray', id='cd')
            self.client.call('blockdev-insert-medium', id='cd', node_name=node)
            self.client.call('blockdev-close-tray', id='cd')
            self.client.call('block_set_io_throttle', id='cd', **LIMITS)
            node = 'cd'
        self.client.call('block-export-add', id='e', type='nbd', node_name=node, name='e', iothread='io0',
                         writable=True)
        uri = f'nbd+unix:///e?socket={folder}/nbd.sock'
        self.readers = [subprocess.Popen(['/usr/bin/python3', '-c', READER, uri], stdout=subprocess.PIPE, text=True)
                        for _ in range(clients)]
        for reader in self.readers:
            assert reader.stdout.readline() == 'sent\n'

    def results(self):
        for reader in self.readers:
            assert reader.wait(WAIT_S) == 0
        return [reader.stdout.read().strip() for reader in self.readers]

    def end(self):
        for reader in self.readers:
            if reader.poll() is None:
                reader.kill()
                reader.wait()
            reader.stdout.close()
        if self.daemon.process.poll() is None:
            self.daemon.process.kill()
        self.daemon.process.communicate()


def soft(held):
    held.client.call('nbd-server-stop')


def hard(held):
    held.client.call('block-export-del', id='e', mode='hard')


def quits(held):
    held.client.call('quit')
    assert held.daemon.process.wait(WAIT_S) == 0


def term(held):
    held.daemon.process.send_signal(signal.SIGTERM)
    assert held.daemon.process.wait(WAIT_S) == 0


@pytest.mark.parametrize('limit', ['backend', 'filter'])
@pytest.mark.parametrize('end', [soft, hard, quits, term], ids=lambda f: f.__name__)
def test_limit_does_not_hold_up_the_end(tmp_path, limit, end):
    held = Held(tmp_path, limit)
    try:
        end(held)
        assert set(held.results()) <= {'read', 'failed'}
        if held.daemon.process.poll() is None:
            with held.daemon.client(1) as other:
                assert other.call('query-version')
            held.client.close()
            assert held.daemon.end()[0] == 0
    finally:
        held.end()
