# SPDX-License-Identifier: MIT
"""Media that come and go under load: clients in four iothreads read and write a backend whose tray
opens and closes, whose medium changes, whose queue is throttled. Each request gets its one answer,
nothing hangs, and what was written and acknowledged is on the medium it was written to."""
import errno
import os
import threading

import nbd
import pytest

from qmp import Daemon

PLATTER = os.environ['PLATTER_BIN']
CHANGES = int(os.environ.get('PLATTER_MEDIA_CHANGES', '150'))
MIB = 1 << 20
THREADS = 4
# What a request may meet while there is no medium.
GONE = {'EIO', 'ENOMEDIUM', 'EINVAL', 'ESHUTDOWN'}


class Load(threading.Thread):
    """A client that keeps requests in flight until it is told to stop. It writes its own number
    into blocks of its own, and reads them."""

    def __init__(self, uri, number, depth=8):
        super().__init__()
        self.uri, self.number, self.depth = uri, number, depth
        self.stop = False
        self.connected = threading.Event()
        self.asked = self.answered = self.failed = 0
        self.wrong = []

    def done(self, kind, buf, error):
        self.answered += 1
        if error.value:
            name = errno.errorcode.get(error.value, str(error.value))
            self.failed += 1
            if name not in GONE:
                self.wrong.append(f'{kind}: {name}')
        return 1

    def run(self):
        h = nbd.NBD()
        h.connect_uri(self.uri)
        self.connected.set()
        data = bytes([self.number + 1]) * 4096
        turn = 0
        try:
            while not self.stop or self.asked > self.answered:
                while not self.stop and self.asked - self.answered < self.depth:
                    turn += 1
                    offset = ((turn % 16) * THREADS + self.number) * 4096
                    buf = nbd.Buffer(4096) if turn % 2 else nbd.Buffer.from_bytearray(bytearray(data))
                    kind = 'read' if turn % 2 else 'write'
                    call = h.aio_pread if turn % 2 else h.aio_pwrite
                    call(buf, offset, lambda e, k=kind, b=buf: self.done(k, b, e))
                    self.asked += 1
                h.poll(1000)
        except nbd.Error as e:
            self.wrong.append(f'connection: {e}')
        finally:
            if not self.wrong:
                h.shutdown()


@pytest.fixture
def setup(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).write_bytes(bytes(MIB))
    options = []
    for i in range(THREADS):
        options += ['--object', f'iothread,id=io{i}']
    options += ['--backend', 'cd', '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock']
    for name in ('one', 'two'):
        options += ['--blockdev', f'file,filename={tmp_path}/{name},node-name={name}']
    with Daemon(tmp_path, [PLATTER, 'daemon'], *options) as daemon, daemon.client() as qmp:
        qmp.call('blockdev-open-tray', id='cd')
        qmp.call('blockdev-insert-medium', id='cd', node_name='one')
        qmp.call('blockdev-close-tray', id='cd')
        for i in range(THREADS):
            qmp.call('block-export-add', type='nbd', id=f'e{i}', name=f'e{i}', node_name='cd',
                     writable=True, iothread=f'io{i}')
        loads = [Load(f'nbd+unix:///e{i}?socket={tmp_path}/nbd.sock', i) for i in range(THREADS)]
        for load in loads:
            load.start()
        for load in loads:
            assert load.connected.wait(60)
        try:
            yield qmp, loads
        finally:
            for load in loads:
                load.stop = True
            for load in loads:
                load.join(120)
        for load in loads:
            assert not load.is_alive() and load.asked == load.answered and not load.wrong, \
                (load.asked, load.answered, load.wrong[:3])
            assert load.answered > load.failed, 'nothing worked'


def settle(qmp, loads, more):
    """Until every client has had that many more answers."""
    wanted = [load.answered + more for load in loads]
    while any(load.answered < w and load.is_alive() for load, w in zip(loads, wanted)):
        qmp.call('query-status')


def test_changes_under_load(setup, tmp_path):
    qmp, loads = setup
    for i in range(CHANGES):
        medium = ('two', 'one')[i % 2]
        qmp.call('blockdev-open-tray', id='cd', force=bool(i % 3))
        qmp.call('blockdev-remove-medium', id='cd')
        qmp.call('blockdev-insert-medium', id='cd', node_name=medium)
        qmp.call('blockdev-close-tray', id='cd')
        if i % 10 == 0:
            settle(qmp, loads, 16)
    settle(qmp, loads, 64)
    for load in loads:
        load.stop = True
    for load in loads:
        load.join(120)
    # the last medium holds what the clients wrote to it, in each block of theirs
    last = (tmp_path / ('one' if CHANGES % 2 == 0 else 'two')).read_bytes()
    for load in loads:
        block = last[load.number * 4096:][:4096]
        assert set(block) <= {0, load.number + 1}


def test_changes_of_a_throttled_medium(setup):
    qmp, loads = setup
    limits = {'bps': 0, 'bps__rd': 0, 'bps__wr': 0, 'iops__rd': 0, 'iops__wr': 0}
    for i in range(10):
        qmp.call('block_set_io_throttle', id='cd', iops=50 + i, **limits)
        settle(qmp, loads, 1)
        qmp.call('eject', id='cd', force=True)
        qmp.call('blockdev-insert-medium', id='cd', node_name=('two', 'one')[i % 2])
        qmp.call('blockdev-close-tray', id='cd')
    qmp.call('block_set_io_throttle', id='cd', iops=0, **limits)
    settle(qmp, loads, 64)


def test_a_node_that_is_created_meanwhile(setup, tmp_path):
    """A job creates the next medium while the tray is worked on."""
    qmp, loads = setup
    for i in range(4):
        qmp.call('blockdev-create', job_id=f'j{i}',
                 options={'driver': 'file', 'filename': f'made{i}', 'size': MIB, 'preallocation': 'full'})
        qmp.call('blockdev-open-tray', id='cd')
        qmp.call('blockdev-remove-medium', id='cd')
        qmp.event('JOB_STATUS_CHANGE', id=f'j{i}', status='concluded')
        qmp.call('job-dismiss', id=f'j{i}')
        qmp.call('blockdev-add', driver='file', node_name=f'made{i}', filename=f'made{i}')
        qmp.call('blockdev-insert-medium', id='cd', node_name=f'made{i}')
        qmp.call('blockdev-close-tray', id='cd')
        settle(qmp, loads, 16)
