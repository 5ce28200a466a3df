# SPDX-License-Identifier: MIT
"""Error policies as a real client meets them: a backend over a disk whose server fails on demand, an
NBD export of it, and what the client gets, which events come, and in which order."""
import os
import shutil
import subprocess
import threading
import time

import nbd
import pytest

from qmp import Daemon

pytestmark = pytest.mark.skipif(not shutil.which('nbdkit'), reason='nbdkit is not installed')
PLATTER = os.environ['PLATTER_BIN']
MIB = 1 << 20
ERRORS = ('EIO', 'ENOSPC', 'ENOMEM')


class Disk:
    """A disk in memory that fails while the file `broken` is there."""

    def __init__(self, folder, error):
        self.broken = folder / 'broken'
        self.path = folder / 'disk.sock'
        self.process = subprocess.Popen(
            ['nbdkit', '-f', '-U', str(self.path), '--filter=error', 'memory', '1M', f'error={error}',
             'error-rate=100%', f'error-file={self.broken}'], stderr=subprocess.PIPE)
        while not self.path.exists():
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.01)

    def end(self):
        self.process.terminate()
        self.process.communicate()


class Request(threading.Thread):
    """One request of a client of its own; error: None, or the errno it ended with."""

    def __init__(self, uri, is_read):
        super().__init__()
        self.uri, self.is_read, self.error = uri, is_read, None
        self.start()

    def run(self):
        h = nbd.NBD()
        h.connect_uri(self.uri)
        try:
            if self.is_read:
                self.data = bytes(h.pread(4096, 0))
            else:
                h.pwrite(b'\5' * 4096, 0)
        except nbd.Error as e:
            self.error = e.errno
        h.shutdown()

    def answer(self):
        self.join(60)
        assert not self.is_alive(), 'no answer'
        return self.error


@pytest.fixture(params=ERRORS)
def disk(request, tmp_path):
    d = Disk(tmp_path, request.param)
    d.error = request.param
    yield d
    d.end()


def begin(folder, policy):
    return Daemon(folder, [PLATTER, 'daemon'],
                  '--blockdev', f'nbd,node-name=n,server.type=unix,server.path={folder}/disk.sock',
                  '--backend', f'drive,node-name=n,rerror={policy[0]},werror={policy[1]}',
                  '--nbd-server', f'addr.type=unix,addr.path={folder}/nbd.sock',
                  '--export', 'nbd,id=e,name=e,node-name=drive,writable=on')


def same(event, error, is_read, action):
    """Whether a BLOCK_IO_ERROR says this."""
    data = event['data']
    return (data['device'], data['operation'], data['action']) == \
        ('drive', 'read' if is_read else 'write', action) and data['node-name'] == 'n' and \
        data.get('nospace', error == 'ENOSPC') == (error == 'ENOSPC')


@pytest.mark.parametrize('is_read', (True, False), ids=('read', 'write'))
@pytest.mark.parametrize('policy', ('report', 'ignore', 'enospc', 'stop'))
def test_policy(disk, tmp_path, policy, is_read):
    if is_read and policy == 'enospc':
        policies = ('report', 'enospc')  # reads have no such policy: what the other one says
    else:
        policies = (policy, 'report') if is_read else ('report', policy)
    stops = (policies[0] if is_read else policies[1]) == 'stop' or \
        (not is_read and policy == 'enospc' and disk.error == 'ENOSPC')
    ignores = (policies[0] if is_read else policies[1]) == 'ignore'
    uri = f'nbd+unix:///e?socket={tmp_path}/nbd.sock'
    with begin(tmp_path, policies) as daemon, daemon.client() as qmp:
        disk.broken.touch()
        request = Request(uri, is_read)
        first = qmp.read()
        assert first['event'] == 'BLOCK_IO_ERROR', first
        assert same(first, disk.error, is_read, 'stop' if stops else 'ignore' if ignores else 'report'), first
        if not stops:
            assert request.answer() == (None if ignores else disk.error)
            if ignores and is_read:
                assert request.data == bytes(4096)
            assert qmp.call('query-status')['status'] == 'running'
            return
        assert qmp.read()['event'] == 'STOP'
        assert qmp.call('query-status')['status'] == 'io-error'
        info = qmp.call('query-block')[0]
        assert info['io-status'] == ('nospace' if disk.error == 'ENOSPC' else 'failed')
        assert request.is_alive(), 'a held request was answered'
        # it fails again, and is held again
        qmp.call('cont')
        qmp.event('RESUME')
        qmp.event('BLOCK_IO_ERROR', action='stop')
        qmp.event('STOP')
        assert request.is_alive()
        disk.broken.unlink()
        qmp.call('cont')
        qmp.event('RESUME')
        assert request.answer() is None


@pytest.mark.parametrize('how', ('eject', 'nbd-server-stop', 'block-export-del', 'quit', 'client'))
def test_a_held_request_ends(tmp_path, how):
    """Whatever takes away what a held request waits for."""
    disk = Disk(tmp_path, 'EIO')
    try:
        with begin(tmp_path, ('stop', 'stop')) as daemon, daemon.client() as qmp:
            disk.broken.touch()
            request = Request(f'nbd+unix:///e?socket={tmp_path}/nbd.sock', False)
            qmp.event('BLOCK_IO_ERROR')
            qmp.event('STOP')
            if how == 'eject':
                qmp.call('eject', id='drive')
            elif how == 'block-export-del':
                qmp.call('block-export-del', id='e', mode='hard')
            elif how == 'nbd-server-stop':
                qmp.call('nbd-server-stop')
            elif how == 'quit':
                disk.broken.unlink()
                qmp.call('quit')
                qmp.event('SHUTDOWN')
                with pytest.raises(EOFError):   # and no RESUME: nothing goes on
                    qmp.event('RESUME')
            else:
                disk.broken.unlink()
                qmp.call('cont')
            error = request.answer()
            assert (error is None) == (how == 'client'), error
    finally:
        disk.end()
