# SPDX-License-Identifier: MIT
"""A session with a running daemon that covers every command; each reply and event is checked
against the schema that the daemon tells."""
import json
import os
import socket
import subprocess

import pytest

from qmp import Daemon, FdClient, Schema
from tools_common import formats, needs, platter

pytestmark = needs('qcow2')
PLATTER = os.environ['PLATTER_BIN']
MIB = 1 << 20


class Checked:
    """A client whose replies are checked, and who remembers what was asked for."""
    asked = set()

    def __init__(self, client, schema):
        self.client = client
        self.schema = schema

    def call(self, name, /, **arguments):
        value = self.client.call(name, **arguments)
        self.schema.check_reply(name, value)
        Checked.asked.add(name)
        return value

    def fails(self, name, text, klass='GenericError', /, **arguments):
        self.client.fails(name, text, klass, **arguments)
        Checked.asked.add(name)

    def export_del(self, name):
        self.client.export_del(name)
        Checked.asked.add('block-export-del')

    def event(self, name, /, **data):
        event = self.client.event(name, **data)
        self.schema.check_event(event)
        return event


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, [PLATTER, 'daemon'], '--image-refs', 'follow') as d:
        yield d


@pytest.fixture
def qmp(daemon):
    with daemon.client() as client:
        schema = Schema(client.call('query-qmp-schema'))
        Checked.asked.add('query-qmp-schema')
        yield Checked(client, schema)


def create(qmp, job, **options):
    qmp.call('blockdev-create', job_id=job, options=options)
    qmp.event('JOB_STATUS_CHANGE', id=job, status='concluded')
    info = [j for j in qmp.call('query-jobs') if j['id'] == job][0]
    assert 'error' not in info, info
    qmp.call('job-dismiss', id=job)


def qcow2(qmp, name, size=16 * MIB, **options):
    """A node NAME over a file NAME.qcow2."""
    create(qmp, 'make-file', driver='file', filename=name + '.qcow2', size=0)
    qmp.call('blockdev-add', driver='file', node_name=name + '-file', filename=name + '.qcow2')
    create(qmp, 'make-image', driver='qcow2', file=name + '-file', size=size, **options)
    qmp.call('blockdev-add', driver='qcow2', node_name=name, file=name + '-file')


def node(qmp, name):
    return [n for n in qmp.call('query-named-block-nodes') if n['node-name'] == name][0]


def test_the_daemon_itself(qmp):
    assert qmp.call('query-version')['package'].startswith('Platter')
    assert {'name': 'quit'} in qmp.call('query-commands')
    assert qmp.call('query-chardev')[0]['frontend-open'] is True
    assert qmp.call('query-status') == {'running': True, 'status': 'running'}
    qmp.call('stop')
    qmp.event('STOP')
    assert qmp.call('query-status') == {'running': False, 'status': 'paused'}
    qmp.call('cont')
    qmp.event('RESUME')
    qmp.fails('qmp_capabilities', 'already complete', 'CommandNotFound')


def test_nodes(qmp, tmp_path):
    qcow2(qmp, 'disk')
    assert node(qmp, 'disk')['image']['virtual-size'] == 16 * MIB
    qmp.call('block_resize', node_name='disk', size=32 * MIB)
    assert node(qmp, 'disk')['image']['virtual-size'] == 32 * MIB
    qmp.call('x-blockdev-amend', job_id='amend', node_name='disk',
             options={'driver': 'qcow2', 'lazy-refcounts': True})
    qmp.event('JOB_STATUS_CHANGE', id='amend', status='concluded')
    qmp.call('job-dismiss', id='amend')
    assert node(qmp, 'disk')['image']['format-specific']['data']['lazy-refcounts'] is True
    qmp.fails('blockdev-del', 'in use', node_name='disk-file')
    qmp.call('blockdev-del', node_name='disk')
    qmp.call('blockdev-del', node_name='disk-file')
    qmp.fails('blockdev-del', "node-name='disk'", node_name='disk')
    assert platter('check', '-f', 'qcow2', 'disk.qcow2', cwd=tmp_path).returncode == 0


def test_nodes_that_change_in_use(qmp, tmp_path):
    qcow2(qmp, 'disk')
    qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd.sock')}})
    qmp.call('block-export-add', type='nbd', id='e', node_name='disk', writable=True)
    uri = f'nbd+unix:///disk?socket={tmp_path}/nbd.sock'
    qmp.call('blockdev-reopen', options=[
        {'driver': 'qcow2', 'node-name': 'disk', 'file': 'disk-file', 'lazy-refcounts': False, 'l2-cache-size': 65536}])
    qmp.fails('blockdev-reopen', '', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'nosuch'}])
    qmp.fails('blockdev-reopen', 'node-name not specified', options=[{'driver': 'null-co'}])
    qmp.call('object-add', qom_type='throttle-group', id='tg', limits={'iops-total': 100000})
    filter_ = {'driver': 'throttle', 'node-name': 'limit', 'throttle-group': 'tg'}
    qmp.call('blockdev-insert-filter', node_name='disk-file', options=filter_)
    qmp.fails('object-del', 'in use', id='tg')
    qmp.fails('blockdev-insert-filter', "'nosuch'", node_name='nosuch', options=filter_)
    qmp.fails('blockdev-insert-filter', 'node-name', node_name='disk', options={'driver': 'throttle'})
    qmp.call('block-set-write-threshold', node_name='disk', write_threshold=MIB)
    assert node(qmp, 'disk')['write_threshold'] == MIB
    done = platter('io', '-f', 'raw', uri, '-c', 'write -P 5 0 64k', '-c', 'write -P 6 1M 64k', '-c', 'read -P 5 0 64k')
    assert done.returncode == 0, done
    event = qmp.event('BLOCK_WRITE_THRESHOLD', **{'node-name': 'disk'})
    assert event['data']['write-threshold'] == MIB and node(qmp, 'disk')['write_threshold'] == 0
    qmp.call('blockdev-remove-filter', node_name='limit')
    qmp.fails('blockdev-remove-filter', "'limit'", node_name='limit')
    fault = {'driver': 'blkdebug', 'node-name': 'fault',
             'inject-error': [{'event': 'none', 'errno': 5, 'iotype': 'read', 'sector': 2048}]}
    qmp.fails('blockdev-insert-filter', "another 'image'", node_name='disk', options={**fault, 'image': 'disk-file'})
    qmp.call('blockdev-insert-filter', node_name='disk', options=fault)
    failed = platter('io', '-f', 'raw', uri, '-c', 'read 1M 64k')
    assert failed.returncode == 1 and 'Input/output error' in failed.stdout + failed.stderr, failed
    qmp.call('blockdev-remove-filter', node_name='fault')
    done = platter('io', '-f', 'raw', uri, '-c', 'read -P 6 1M 64k')
    assert done.returncode == 0, done


def test_a_job_that_fails(qmp):
    qmp.call('blockdev-create', job_id='j', options={'driver': 'file', 'filename': '/no/such/file', 'size': 0})
    qmp.event('JOB_STATUS_CHANGE', id='j', status='concluded')
    info = qmp.call('query-jobs')[0]
    assert '/no/such/file' in info['error'] and info['type'] == 'create'
    assert qmp.call('query-block-jobs')[0]['status'] == 'concluded'
    for verb in ('pause', 'resume', 'cancel', 'complete', 'finalize'):
        qmp.fails('job-' + verb, '', id='j')
        member = {'id': 'j'} if verb == 'finalize' else {'device': 'j'}
        qmp.fails('block-job-' + verb, '', **member)
    qmp.fails('block-job-set-speed', '', device='j', speed=-1)
    qmp.fails('block-job-dismiss', 'not found', 'DeviceNotActive', id='other')
    qmp.call('job-dismiss', id='j')
    assert qmp.call('query-jobs') == []


def test_exports(qmp, tmp_path):
    qcow2(qmp, 'disk')
    qmp.call('object-add', qom_type='iothread', id='io0')
    assert qmp.call('query-iothreads')[0]['thread-id'] > 0
    qmp.fails('block-export-add', 'not running', type='nbd', id='e', node_name='disk')
    path = str(tmp_path / 'nbd.sock')
    qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    qmp.call('block-export-add', type='nbd', id='e', node_name='disk', writable=True, iothread='io0',
             allocation_depth=True, description='a disk')
    qmp.fails('object-del', 'in use', id='io0')
    uri = f'nbd+unix:///disk?socket={path}'
    out = subprocess.run(['nbdinfo', '--json', uri], capture_output=True, check=True).stdout
    assert json.loads(out)['exports'][0]['description'] == 'a disk'
    done = platter('io', '-f', 'raw', uri, '-c', 'write -P 7 1M 64k', '-c', 'read -P 7 1M 64k')
    assert done.returncode == 0, done
    assert qmp.call('query-block-exports') == [
        {'id': 'e', 'type': 'nbd', 'node-name': 'disk', 'shutting-down': False}]
    stats = qmp.call('query-block-export-stats')
    assert [s['id'] for s in stats] == ['e']
    assert stats[0]['stats']['wr_bytes'] == 65536 and stats[0]['stats']['rd_operations'] >= 1
    qmp.export_del('e')
    qmp.event('BLOCK_EXPORT_DELETED', id='e')
    qmp.call('nbd-server-add', device='disk', name='other')
    qmp.call('nbd-server-remove', name='other', mode='hard')
    qmp.event('BLOCK_EXPORT_DELETED', id='other')
    qmp.call('nbd-server-stop')
    qmp.call('object-del', id='io0')


def test_exported_backend_keeps_its_size(qmp, tmp_path):
    """As a node does; until the last of its exports is gone."""
    qcow2(qmp, 'disk')
    qmp.call('blockdev-backend-add', name='drive', node_name='disk')
    qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd.sock')}})
    for name in ('one', 'two'):
        qmp.call('block-export-add', type='nbd', id=name, name=name, node_name='drive')
    qmp.fails('block_resize', "unshared by block device 'drive'", device='drive', size=32 * MIB)
    qmp.call('block-export-del', id='one')
    qmp.fails('block_resize', "unshared by block device 'drive'", node_name='disk', size=32 * MIB)
    qmp.call('block-export-del', id='two')
    qmp.call('block_resize', device='drive', size=32 * MIB)


def test_figures_of_exports(qmp, tmp_path):
    """Two exports of one backend: each has its own figures, the backend those of both."""
    path = str(tmp_path / 'nbd.sock')
    qcow2(qmp, 'disk')
    qmp.call('blockdev-backend-add', name='drive', node_name='disk')
    qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    for name in ('one', 'two'):
        qmp.call('block-export-add', type='nbd', id=name, name=name, node_name='drive', writable=True)
        qmp.call('block-latency-histogram-set', id=name, boundaries=[1, 10**12])
    qmp.call('block-set-accounting', id='two', intervals=[60])
    for name, writes in (('one', 1), ('two', 3)):
        commands = [word for i in range(writes) for word in ('-c', f'write {i}M 4k')]
        assert platter('io', '-f', 'raw', f'nbd+unix:///{name}?socket={path}', *commands).returncode == 0
    stats = {s['id']: s['stats'] for s in qmp.call('query-block-export-stats')}
    assert {name: s['wr_operations'] for name, s in stats.items()} == {'one': 1, 'two': 3}
    assert {name: s['wr_bytes'] for name, s in stats.items()} == {'one': 4096, 'two': 3 * 4096}
    assert stats['two']['wr_latency_histogram'] == {'boundaries': [1, 10**12], 'bins': [0, 3, 0]}
    assert [t['interval_length'] for t in stats['two']['timed_stats']] == [60]
    assert stats['one']['timed_stats'] == []
    drive = qmp.call('query-blockstats')[0]['stats']
    assert (drive['wr_operations'], drive['wr_bytes']) == (4, 4 * 4096)
    assert 'wr_latency_histogram' not in drive
    latency = {s['id']: s['latency'] for s in qmp.call('query-block-export-stats')}
    latency.update((b['device'], b['latency']) for b in qmp.call('query-block-latency'))
    for name, stats in (('one', stats['one']), ('two', stats['two']), ('drive', drive)):
        times = latency[name]['write']
        assert times['count'] == stats['wr_operations'] == sum(b['count'] for b in times['bins'])
        assert times['total-ns'] == stats['wr_total_time_ns']
        bounds = [b['below-ns'] for b in times['bins']]
        assert bounds == sorted(bounds) and {times['p50-ns'], times['p99-ns']} <= set(bounds)
        assert latency[name]['unmap'] == {'count': 0, 'total-ns': 0, 'p50-ns': 0, 'p99-ns': 0, 'bins': []}
    qmp.fails('block-latency-histogram-set', 'not found', 'DeviceNotFound', id='three', boundaries=[1])
    qmp.call('nbd-server-stop')
    qmp.fails('block-latency-histogram-set', 'not found', 'DeviceNotFound', id='one', boundaries=[1])


def test_bitmaps_of_exports(qmp, tmp_path):
    qcow2(qmp, 'disk')
    for name in ('a', 'b'):
        qmp.call('block-dirty-bitmap-add', node='disk', name=name)
    path = str(tmp_path / 'nbd.sock')
    qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    wrong = {'type': 'nbd', 'id': 'e', 'node_name': 'disk', 'writable': True}
    qmp.fails('block-export-add', "Bitmap 'x' is not found", bitmaps=['x'], **wrong)
    qmp.fails('block-export-add', 'nowhere', bitmaps=[{'node': 'nowhere', 'name': 'a'}], **wrong)
    qmp.fails('block-export-add', 'at most 60', bitmaps=['a'] * 61, **wrong)
    qmp.fails('block-export-add', "Enabled bitmap 'a' incompatible with readonly export",
              bitmaps=['a'], type='nbd', id='e', node_name='disk')
    qmp.call('block-export-add', type='nbd', id='e', node_name='disk', writable=True,
             bitmaps=['a', {'node': 'disk', 'name': 'b'}])
    qmp.fails('block-dirty-bitmap-remove', 'in use', node='disk', name='a')
    uri = f'nbd+unix:///disk?socket={path}'
    assert platter('io', '-f', 'raw', uri, '-c', 'write 64k 64k').returncode == 0
    for name in ('a', 'b'):
        out = subprocess.run(['nbdinfo', f'--map=qemu:dirty-bitmap:{name}', uri],
                             capture_output=True, check=True, text=True).stdout
        assert [line.split()[:3] for line in out.splitlines()][:2] == [
            ['0', '65536', '0'], ['65536', '65536', '1']]
    qmp.export_del('e')
    qmp.call('block-dirty-bitmap-remove', node='disk', name='b')
    qmp.call('nbd-server-add', device='disk', name='other', writable=True, bitmap='a')
    qmp.fails('block-dirty-bitmap-remove', 'in use', node='disk', name='a')
    qmp.call('nbd-server-stop')
    qmp.call('block-dirty-bitmap-remove', node='disk', name='a')


def test_no_descriptor_came(qmp):
    qmp.fails('getfd', 'No file descriptor', fdname='x')
    qmp.fails('closefd', "'x' not found", fdname='x')
    qmp.fails('add-fd', 'No file descriptor')
    qmp.fails('remove-fd', 'not found', fdset_id=3)
    assert qmp.call('query-fdsets') == []


def test_descriptors_that_come(tmp_path):
    (tmp_path / 'disk.img').write_bytes(b'platter!' * 512)
    with Daemon(tmp_path, [PLATTER, 'daemon']) as d:
        qmp = FdClient(d.sockets[0])
        fd = os.open(tmp_path / 'disk.img', os.O_RDWR)
        assert qmp.send_fd(fd, 'add-fd', fdset_id=7, opaque='rw')['return']['fdset-id'] == 7
        os.close(fd)
        os.rename(tmp_path / 'disk.img', tmp_path / 'moved.img')
        sets = qmp.call('query-fdsets')
        assert sets[0]['fds'][0]['opaque'] == 'rw'
        qmp.call('blockdev-add', driver='file', node_name='n', filename='/dev/fdset/7')
        qmp.call('remove-fd', fdset_id=7, fd=sets[0]['fds'][0]['fd'])
        assert qmp.call('query-fdsets') == []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / 'given.sock'))
        listener.listen()
        assert 'return' in qmp.send_fd(listener.fileno(), 'getfd', fdname='listener')
        listener.close()
        qmp.call('nbd-server-start', addr={'type': 'fd', 'data': {'str': 'listener'}})
        qmp.call('block-export-add', type='nbd', id='e', node_name='n')
        out = platter('io', '-r', '-f', 'raw', f'nbd+unix:///n?socket={tmp_path}/given.sock',
                      '-c', 'read -v 0 8').stdout
        assert '70 6c 61 74 74 65 72 21' in out
        fd = os.open(tmp_path / 'moved.img', os.O_RDONLY)
        assert 'return' in qmp.send_fd(fd, 'getfd', fdname='unused')
        os.close(fd)
        qmp.call('closefd', fdname='unused')
        qmp.close()


def test_bitmaps_and_transactions(qmp):
    qcow2(qmp, 'disk')
    for name in ('a', 'b'):
        qmp.call('block-dirty-bitmap-add', node='disk', name=name, granularity=65536)
    qmp.call('block-dirty-bitmap-disable', node='disk', name='a')
    qmp.call('block-dirty-bitmap-enable', node='disk', name='a')
    qmp.call('block-dirty-bitmap-merge', node='disk', target='a', bitmaps=['b', {'node': 'disk', 'name': 'b'}])
    qmp.call('block-dirty-bitmap-clear', node='disk', name='a')
    actions = [
        {'type': 'block-dirty-bitmap-add', 'data': {'node': 'disk', 'name': 'c'}},
        {'type': 'block-dirty-bitmap-disable', 'data': {'node': 'disk', 'name': 'a'}},
        {'type': 'block-dirty-bitmap-remove', 'data': {'node': 'disk', 'name': 'b'}},
    ]
    before = node(qmp, 'disk')['dirty-bitmaps']
    qmp.fails('transaction', 'Abort action', actions=actions + [{'type': 'abort', 'data': {}}])
    assert node(qmp, 'disk')['dirty-bitmaps'] == before
    qmp.call('transaction', actions=actions)
    after = {b['name']: b['recording'] for b in node(qmp, 'disk')['dirty-bitmaps']}
    assert after == {'a': False, 'c': True}
    qmp.call('block-dirty-bitmap-remove', node='disk', name='c')


def test_snapshots(qmp, tmp_path):
    qcow2(qmp, 'disk')
    qmp.call('blockdev-backend-add', name='drive', node_name='disk')
    create(qmp, 'j', driver='file', filename='top.qcow2', size=0)
    qmp.call('blockdev-add', driver='file', node_name='top-file', filename='top.qcow2')
    create(qmp, 'j', driver='qcow2', file='top-file', size=16 * MIB)
    qmp.call('blockdev-add', driver='qcow2', node_name='top', file='top-file', backing=None)
    qmp.call('blockdev-snapshot', node='disk', overlay='top')
    assert qmp.call('query-block')[0]['inserted']['node-name'] == 'top'
    qmp.call('blockdev-snapshot-sync', node_name='top', snapshot_file='third.qcow2',
             snapshot_node_name='third')
    inserted = qmp.call('query-block')[0]['inserted']
    assert inserted['node-name'] == 'third' and inserted['backing_file_depth'] == 2
    qmp.call('blockdev-snapshot-internal-sync', device='drive', name='snap')
    assert qmp.call('blockdev-snapshot-delete-internal-sync', device='drive', name='snap')['name'] == 'snap'
    qmp.fails('blockdev-snapshot-delete-internal-sync', 'does not exist', device='drive', name='snap')
    # one that fails takes the others back
    qmp.fails('transaction', 'Abort action', actions=[
        {'type': 'blockdev-snapshot-internal-sync', 'data': {'device': 'drive', 'name': 'gone'}},
        {'type': 'blockdev-snapshot-sync', 'data': {'device': 'drive', 'snapshot-file': 'fourth.qcow2'}},
        {'type': 'abort', 'data': {}}])
    inserted = qmp.call('query-block')[0]['inserted']
    assert inserted['node-name'] == 'third' and 'snapshots' not in inserted['image']
    assert not (tmp_path / 'fourth.qcow2').exists()


def test_below_an_overlay(qmp, tmp_path):
    """Nobody writes there, so others may read it; what is taken back is as it was, and who reopens it may write."""
    def read_only():
        looks = [platter('info', '-f', 'qcow2', tmp_path / f'{name}.qcow2').returncode == 0 for name in ('disk', 'top')]
        nodes = qmp.call('query-named-block-nodes', flat=True)
        assert looks == [next(n['ro'] for n in nodes if n['file'] == f'{name}.qcow2' and n['drv'] == 'file')
                         for name in ('disk', 'top')]
        return [node(qmp, name)['ro'] for name in ('disk', 'top')] + looks

    for name in ('disk', 'top'):
        assert platter('create', '-f', 'qcow2', tmp_path / f'{name}.qcow2', '16M').returncode == 0
        qmp.call('blockdev-add', driver='qcow2', node_name=name, file={'driver': 'file', 'filename': f'{name}.qcow2'})
    qmp.call('blockdev-backend-add', name='drive', node_name='disk')
    snapshot = {'type': 'blockdev-snapshot', 'data': {'node': 'disk', 'overlay': 'top'}}
    qmp.fails('transaction', 'Abort action', actions=[snapshot, {'type': 'abort', 'data': {}}])
    assert read_only() == [False] * 4
    qmp.call('transaction', actions=[snapshot])
    assert read_only() == [True, False] * 2
    qmp.call('blockdev-snapshot-sync', node_name='top', snapshot_file='third.qcow2', snapshot_node_name='third')
    assert read_only() == [True] * 4
    qmp.call('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'read-only': False,
                                          'file': {'driver': 'file', 'filename': 'disk.qcow2'}}])
    assert read_only() == [False, True] * 2


def test_media(qmp):
    for name in ('one', 'two'):
        qmp.call('blockdev-add', driver='null-co', node_name=name, size=MIB)
    qmp.call('blockdev-backend-add', name='cd', node_name='one', locked=True, eject_answer='ignore')
    qmp.fails('blockdev-insert-medium', 'not open', id='cd', node_name='two')
    qmp.fails('blockdev-open-tray', 'locked', id='cd')
    qmp.fails('eject', 'locked', id='cd')
    qmp.call('blockdev-open-tray', id='cd', force=True)
    qmp.event('DEVICE_TRAY_MOVED', device='cd')
    qmp.fails('blockdev-insert-medium', 'already is a medium', id='cd', node_name='two')
    qmp.call('blockdev-remove-medium', id='cd')
    qmp.call('blockdev-insert-medium', id='cd', node_name='two')
    qmp.call('blockdev-close-tray', id='cd')
    info = qmp.call('query-block')[0]
    assert info['tray_open'] is False and info['inserted']['node-name'] == 'two'
    qmp.call('eject', id='cd', force=True)
    assert 'inserted' not in qmp.call('query-block')[0]
    create(qmp, 'j', driver='file', filename='medium.img', size=MIB)
    qmp.call('blockdev-change-medium', id='cd', filename='medium.img', format='raw',
             read_only_mode='read-only')
    assert qmp.call('query-block')[0]['inserted']['ro'] is True
    qmp.fails('eject', 'not found', 'DeviceNotFound', id='nosuch')
    qmp.call('blockdev-backend-del', id='cd')


def test_limits_objects_and_figures(qmp):
    qmp.call('blockdev-add', driver='null-co', node_name='n', size=MIB)
    qmp.call('blockdev-backend-add', name='drive', node_name='n')
    qmp.call('block_set_io_throttle', id='drive', bps=MIB, bps__rd=0, bps__wr=0, iops=100, iops__rd=0,
             iops__wr=0, iops__max=200, group='shared')
    inserted = qmp.call('query-block')[0]['inserted']
    assert (inserted['bps'], inserted['iops_max'], inserted['group']) == (MIB, 200, 'shared')
    qmp.call('object-add', qom_type='throttle-group', id='tg', limits={'iops-total': 100})
    qmp.call('qom-set', path='/objects/tg', property='limits', value={'iops-total': 50})
    assert qmp.call('qom-get', path='tg', property='limits')['iops-total'] == 50
    assert {'name': 'tg', 'type': 'child<throttle-group>'} in qmp.call('qom-list', path='/objects')
    assert {'name': 'throttle-group', 'parent': 'object'} in qmp.call('qom-list-types')
    assert qmp.call('qom-list-properties', typename='iothread')[0]['name'] == 'type'
    qmp.call('object-add', qom_type='secret', id='s', data='aGVsbG8=', format='base64')
    qmp.fails('object-add', 'Base64', qom_type='secret', id='t', data='%%%', format='base64')
    qmp.call('object-del', id='s')
    qmp.call('block-latency-histogram-set', id='drive', boundaries=[1000, 1000000])
    qmp.call('block-set-accounting', id='drive', account_invalid=False, intervals=[1, 60])
    stats = qmp.call('query-blockstats')[0]['stats']
    assert stats['rd_latency_histogram'] == {'boundaries': [1000, 1000000], 'bins': [0, 0, 0]}
    assert sorted(t['interval_length'] for t in stats['timed_stats']) == [1, 60]
    assert stats['account_invalid'] is False
    assert qmp.call('query-blockstats', query_nodes=True)[0]['node-name'] == 'n'
    qmp.call('block-set-io-error-policy', device='drive', rerror='stop', werror='stop')


def test_trace_points(tmp_path):
    with Daemon(tmp_path, [PLATTER, 'daemon'], '--trace', 'medium_*,file=log') as d:
        with d.client() as client:
            qmp = Checked(client, Schema(client.call('query-qmp-schema')))
            points = {p['name']: p['state'] for p in qmp.call('trace-event-get-state', name='*')}
            assert points['medium_insert'] == 'enabled' and points['qmp_command'] == 'disabled'
            qmp.fails('trace-event-get-state', 'unknown event', name='nosuch*')
            qmp.fails('trace-event-set-state', 'unknown event', name='nosuch', enable=True)
            qmp.call('trace-event-set-state', name='nosuch', enable=True, ignore_unavailable=True)
            qmp.call('blockdev-add', driver='null-co', node_name='n')
            qmp.call('blockdev-backend-add', name='drive', node_name='n')
            qmp.call('trace-event-set-state', name='qmp_*', enable=True)
            qmp.call('query-block')
            qmp.call('trace-event-set-state', name='*', enable=False)
            qmp.call('query-jobs')
    lines = (tmp_path / 'log').read_text().splitlines()
    assert any(line.endswith('medium_insert: backend drive node n') for line in lines)
    assert any('qmp_command: session' in line and line.endswith('command query-block') for line in lines)
    assert not any('query-jobs' in line or 'node_open' in line for line in lines)
    bad = platter('daemon', '--trace', 'nosuch')
    assert bad.returncode == 2 and "'nosuch'" in bad.stderr


def test_quit(tmp_path):
    with Daemon(tmp_path, [PLATTER, 'daemon'], monitors=2) as d:
        with d.client(0) as first, d.client(1) as second:
            first.call('quit')
            Checked.asked.add('quit')
            second.event('SHUTDOWN', reason='host-qmp-quit')
            assert d.process.wait(60) == 0


def test_every_driver_is_in_the_schema(qmp):
    """A driver without a row in schema/ could be opened by everybody but a QMP client."""
    known = [m['name'] for m in qmp.schema.types['BlockdevDriver']['members']]
    assert sorted(known) == sorted(formats())


def test_faults_by_rule(qmp):
    qmp.call('blockdev-add', driver='null-co', node_name='n', size=MIB)
    reply = qmp.client.ask({'execute': 'blockdev-add', 'arguments': {
        'driver': 'blkdebug', 'node-name': 'f', 'image': 'n', 'take-child-perms': ['write'],
        'inject-error': [{'event': 'none', 'iotype': 'read', 'errno': 5, 'once': True}],
        'set-state': [{'event': 'pwritev', 'state': 1, 'new_state': 2}]}})
    assert reply == {'return': {}}
    assert node(qmp, 'f')['drv'] == 'blkdebug'


def test_every_command_was_asked_for(qmp):
    """Runs last: what a session of this file has not covered."""
    Checked.asked |= {'qmp_capabilities', 'add-fd', 'remove-fd', 'getfd', 'closefd'}
    assert sorted(set(qmp.schema.commands) - Checked.asked) == []
