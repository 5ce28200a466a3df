# SPDX-License-Identifier: MIT
"""The same requests to platter daemon, by the reference's name, and to the installed
qemu-storage-daemon: the replies must be the same bytes, but for what is the machine's and what is
listed as different on purpose; there the shape must be the same (members, types, classes of
errors)."""
import json
import os
import re
import shutil

import pytest

from qmp import Daemon
from tools_common import needs

pytestmark = [needs('qcow2'), pytest.mark.skipif(not shutil.which('qemu-storage-daemon'),
                                                 reason='qemu-storage-daemon is not installed')]
MIB = 1 << 20



def shape(value):
    """Members and types. Of a list the first stands for all."""
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(v) for v in value[:1]]
    return type(value).__name__


def masked(line):
    """A reply without what is the machine's or the build's."""
    line = re.sub(r'#block\d+', '#block', line)
    line = re.sub(r'("actual-size": )\d+', r'\1N', line)
    line = re.sub(r'("(?:micro|minor|major)": )\d+', r'\1N', line)
    return re.sub(r'("package": )"[^"]*"', r'\1TEXT', line)


def cmd(name, /, **arguments):
    return {'execute': name, 'arguments': arguments}


def sock(path):
    return {'type': 'unix', 'data': {'path': path}}


NODE = [cmd('blockdev-add', driver='null-co', **{'node-name': 'n0'}, size=MIB)]
RAW = NODE + [cmd('blockdev-add', driver='raw', **{'node-name': 'r0'}, file='n0')]
FILE = [cmd('blockdev-create', **{'job-id': 'j'}, options={'driver': 'file', 'filename': 'a', 'size': 0}),
        'concluded', cmd('query-jobs'), cmd('job-dismiss', id='j'), cmd('query-jobs'),
        cmd('blockdev-add', driver='file', **{'node-name': 'f0'}, filename='a')]
IMAGE = FILE + [
    cmd('blockdev-create', **{'job-id': 'k'}, options={'driver': 'qcow2', 'file': 'f0', 'size': MIB}),
    'concluded', cmd('query-jobs'), cmd('job-dismiss', id='k'),
    cmd('blockdev-add', driver='qcow2', **{'node-name': 'q0'}, file='f0')]
OWN = {'driver': 'file', 'filename': 'a', 'node-name': 'f0'}
OWN_FILE = IMAGE + [cmd('blockdev-del', **{'node-name': 'q0'}), cmd('blockdev-del', **{'node-name': 'f0'}),
                    cmd('blockdev-add', driver='qcow2', **{'node-name': 'q0'}, file=OWN)]
SERVER = [cmd('nbd-server-start', addr=sock('n.sock'))]
EXPORT = RAW + SERVER + [cmd('block-export-add', type='nbd', id='e', **{'node-name': 'n0'})]

IOTHREAD = ('poll-max-ns', 'poll-grow', 'poll-shrink', 'aio-max-batch', 'thread-pool-min', 'thread-pool-max')

SESSIONS = {
    'nothing': [cmd('query-block'), cmd('query-blockstats'), cmd('query-named-block-nodes'),
                cmd('query-jobs'), cmd('query-block-jobs'), cmd('query-block-exports'),
                cmd('query-chardev'), cmd('query-version')],
    'bad arguments': [
        cmd('block_resize', **{'node-name': 'x'}), cmd('block_resize', **{'node-name': 1}, size=1),
        cmd('block_resize', **{'node-name': 'x'}, size='1'), cmd('block_resize', size=1.5),
        cmd('block_resize', size=1, zz=1), cmd('block_resize', size=1), cmd('nosuch'),
        cmd('nbd-server-start', addr={'type': 'unix'}), cmd('nbd-server-start', addr=[]),
        cmd('nbd-server-start', addr={'type': 'foo', 'data': {}}),
        cmd('nbd-server-start', addr=sock(1)), cmd('nbd-server-start', addr=sock('x'), zz=1),
        cmd('nbd-server-start', addr=sock('x'), **{'max-connections': -1}),
        cmd('query-blockstats', **{'query-nodes': 'on'}), cmd('query-jobs', a=1),
        cmd('transaction', actions=[{'type': 'nope', 'data': {}}]),
        cmd('object-add', **{'qom-type': 'nope'}, id='x')],
    'bad requests': [{'execute': 1}, {}, {'execute': 'query-jobs', 'foo': 1}, {'exec-oob': 'query-jobs'},
                     {'execute': 'query-jobs', 'arguments': []}, {'execute': 'query-jobs', 'id': [1]},
                     {'execute': 'qmp_capabilities'}],
    'blockdev-add': [
        cmd('blockdev-add'), cmd('blockdev-add', driver='zz'), cmd('blockdev-add', driver='null-co'),
        cmd('blockdev-add', driver='null-co', **{'node-name': 'n'}, size='1M'),
        cmd('blockdev-add', driver='raw', **{'node-name': 'r1'}, file='nx'),
        cmd('blockdev-add', driver='raw', **{'node-name': 'r2'}, file=1),
        cmd('blockdev-add', driver='raw', **{'node-name': 'r3'}),
        cmd('blockdev-add', driver='null-co', **{'node-name': '#bad'}),
        cmd('blockdev-add', driver='null-co', **{'node-name': 'n'}, zz=1)] + NODE + NODE,
    'nodes': RAW + [cmd('query-named-block-nodes'), cmd('query-named-block-nodes', flat=True),
                    cmd('query-blockstats', **{'query-nodes': True}),
                    cmd('blockdev-del', **{'node-name': 'n0'}), cmd('blockdev-del', **{'node-name': 'nx'}),
                    cmd('block_resize', **{'node-name': 'n0'}, size=1),
                    cmd('blockdev-del', **{'node-name': 'r0'}), cmd('blockdev-del', **{'node-name': 'n0'})],
    'images': IMAGE + [cmd('query-named-block-nodes'), cmd('block_resize', **{'node-name': 'q0'}, size=2 * MIB),
                       cmd('blockdev-create', **{'job-id': 'j'}, options={'driver': 'qcow2', 'file': 'zz', 'size': 1}),
                       cmd('blockdev-create', **{'job-id': '#'}, options={'driver': 'file', 'filename': 'b', 'size': 0}),
                       cmd('blockdev-snapshot-internal-sync', device='zz', name='s'),
                       cmd('blockdev-snapshot-delete-internal-sync', device='q0', name='s')],
    'jobs': [cmd('blockdev-create', **{'job-id': 'j'}, options={'driver': 'file', 'filename': '/no/such', 'size': 0}),
             'concluded', cmd('query-jobs')] +
            [cmd('job-' + v, id='j') for v in ('pause', 'resume', 'cancel', 'complete', 'finalize')] +
            [cmd('job-dismiss', id='j'), cmd('job-dismiss', id='j'), cmd('block-job-cancel', device='zz'),
             cmd('block-job-set-speed', device='zz', speed=1)],
    'exports': [cmd('block-export-add', type='nbd', id='e', **{'node-name': 'n0'}), cmd('nbd-server-stop')] +
               EXPORT + SERVER + [
        cmd('block-export-add', type='nbd', id='e', **{'node-name': 'r0'}),
        cmd('block-export-add', type='nbd', id='f', **{'node-name': 'n0'}),
        cmd('block-export-add', type='nbd', id='g', **{'node-name': 'nx'}),
        cmd('query-block-exports'), cmd('blockdev-del', **{'node-name': 'n0'}),
        cmd('block-export-del', id='zz'), cmd('block-export-del', id='e'),
        cmd('nbd-server-add', device='n0'), cmd('nbd-server-remove', name='n0'),
        cmd('nbd-server-remove', name='zz'), cmd('nbd-server-stop')],
    'export that ends with the server': EXPORT + [cmd('nbd-server-stop'), cmd('query-block-exports')],
    'objects': [
        cmd('object-add', **{'qom-type': 'throttle-group'}, id='tg', limits={'iops-total': 100}),
        cmd('object-add', **{'qom-type': 'throttle-group'}, id='tg'),
        cmd('object-add', **{'qom-type': 'throttle-group'}, id='tz', limits={'iops-total': 1, 'iops-read': 1}),
        cmd('object-add', **{'qom-type': 'iothread'}, id='io0'),
        cmd('object-add', **{'qom-type': 'secret'}, id='s0', data='x'),
        cmd('object-add', **{'qom-type': 'secret'}, id='s1', data='x', file='y'),
        cmd('qom-get', path='/objects/tg', property='limits'), cmd('qom-get', path='tg', property='limits'),
        cmd('qom-get', path='/objects/zz', property='limits'), cmd('qom-get', path='tg', property='zz'),
        cmd('qom-set', path='tg', property='limits', value={'iops-total': 5}),
        cmd('qom-set', path='tg', property='limits', value={'iops-read': 5}),
        cmd('qom-list', path='/objects'), cmd('qom-list', path='/zz'), cmd('qom-list-types'),
        cmd('object-del', id='zz'), cmd('object-del', id='tg'), cmd('object-del', id='io0')],
    'credentials': [
        cmd('object-add', **{'qom-type': 'tls-creds-x509'}, id='t', endpoint='server'),
        cmd('object-add', **{'qom-type': 'tls-creds-x509'}, id='t', dir='/nonexist'),
        cmd('object-add', **{'qom-type': 'tls-creds-psk'}, id='t', dir='/nonexist', username='alice'),
        cmd('object-add', **{'qom-type': 'tls-creds-anon'}, id='t', endpoint='bogus'),
        cmd('object-add', **{'qom-type': 'tls-creds-anon'}, id='t', endpoint='server'),
        cmd('object-add', **{'qom-type': 'tls-creds-anon'}, id='t', endpoint='server'),
        cmd('object-add', **{'qom-type': 'tls-creds-anon'}, id='c'),
        cmd('qom-get', path='/objects/t', property='endpoint'), cmd('qom-get', path='c', property='endpoint'),
        cmd('qom-get', path='t', property='verify-peer'), cmd('qom-get', path='t', property='zz'),
        cmd('nbd-server-start', addr=sock('n.sock'), **{'tls-creds': 'zz'}),
        cmd('nbd-server-start', addr=sock('n.sock'), **{'tls-creds': 'c'}),
        cmd('nbd-server-start', addr=sock('n.sock'), **{'tls-creds': 't'}), cmd('nbd-server-stop'),
        cmd('object-del', id='t'), cmd('object-del', id='t'),
        cmd('blockdev-add', driver='nbd', **{'node-name': 'n', 'tls-creds': 'zz'},
            server={'type': 'unix', 'path': '/nonexist'})],
    'rules of who may come': [
        cmd('object-add', **{'qom-type': 'authz-simple'}, id='a'),
        cmd('object-add', **{'qom-type': 'authz-simple'}, id='a', identity='x'),
        cmd('object-add', **{'qom-type': 'authz-list'}, id='l', policy='bogus'),
        cmd('object-add', **{'qom-type': 'authz-list'}, id='l', rules=[{'match': 'x'}]),
        cmd('object-add', **{'qom-type': 'authz-list'}, id='l', rules=[{'match': 'x', 'policy': 'deny', 'format': 're'}]),
        cmd('object-add', **{'qom-type': 'authz-list'}, id='l', rules=[{'match': 'x', 'policy': 'deny'}]),
        cmd('object-add', **{'qom-type': 'authz-list'}, id='m', policy='allow'),
        cmd('qom-get', path='a', property='identity'), cmd('qom-get', path='l', property='policy'),
        cmd('qom-get', path='m', property='policy'), cmd('qom-get', path='l', property='zz'),
        cmd('qom-list', path='/objects/l'), cmd('qom-list', path='/objects/a'),
        cmd('qom-list-properties', typename='authz-list'),
        cmd('nbd-server-start', addr=sock('n.sock'), **{'tls-creds': 'a'}), cmd('object-del', id='a')],
    'iothreads': [
        cmd('object-add', **{'qom-type': 'iothread', 'poll-max-ns': 100, 'poll-grow': 3, 'aio-max-batch': 7}, id='io')] +
        [cmd('qom-get', path='/objects/io', property=name) for name in IOTHREAD + ('type', 'zz')] +
        [cmd('qom-set', path='/objects/io', property=name, value=value)
         for name in IOTHREAD for value in (7, -1, '5', 1.5, None)] +
        [cmd('qom-get', path='/objects/io', property=name) for name in IOTHREAD] +
        [cmd('qom-set', path='/objects/io', property='poll-max-ns', value=2**63 - 1),
         cmd('qom-get', path='/objects/io', property='poll-max-ns'),
         cmd('qom-set', path='/objects/io', property='thread-pool-max', value=64),
         cmd('qom-set', path='/objects/io', property='thread-pool-max', value=0)] +
        [cmd('object-add', **{'qom-type': 'iothread', name: value}, id='x-' + name)
         for name in IOTHREAD for value in (-1, 2**40)] +
        [cmd('qom-list', path='/objects/io'), cmd('qom-list-properties', typename='iothread')],
    'bitmaps': NODE + [
        cmd('block-dirty-bitmap-add', node='n0', name='a'), cmd('block-dirty-bitmap-add', node='n0', name='a'),
        cmd('block-dirty-bitmap-add', node='n0', name='b', granularity=3),
        cmd('block-dirty-bitmap-add', node='n0', name='b', persistent=True),
        cmd('block-dirty-bitmap-add', node='n0', name=''), cmd('block-dirty-bitmap-add', node='nx', name='b'),
        cmd('block-dirty-bitmap-add', node='n0', name='b', disabled=True), cmd('query-named-block-nodes'),
        cmd('block-dirty-bitmap-enable', node='n0', name='b'), cmd('block-dirty-bitmap-disable', node='n0', name='b'),
        cmd('block-dirty-bitmap-clear', node='n0', name='zz'), cmd('block-dirty-bitmap-clear', node='n0', name='a'),
        cmd('block-dirty-bitmap-merge', node='n0', target='a', bitmaps=['b', 'zz']),
        cmd('block-dirty-bitmap-merge', node='n0', target='a', bitmaps=['b']),
        cmd('block-dirty-bitmap-merge', node='n0', target='a', bitmaps=[1]),
        cmd('block-dirty-bitmap-remove', node='n0', name='a'), cmd('block-dirty-bitmap-remove', node='n0', name='a')],
    'transactions': NODE + [
        cmd('transaction', actions=[]), cmd('transaction', actions=[{'type': 'abort', 'data': {}}]),
        cmd('transaction', actions=[{'type': 'block-dirty-bitmap-add', 'data': {'node': 'n0', 'name': 'b'}},
                                    {'type': 'abort', 'data': {}}]),
        cmd('transaction', actions=[{'type': 'block-dirty-bitmap-add', 'data': {'node': 'n0', 'name': 'b'}},
                                    {'type': 'block-dirty-bitmap-disable', 'data': {'node': 'n0', 'name': 'b'}}]),
        cmd('query-named-block-nodes')],
    'snapshots': IMAGE + [
        cmd('blockdev-snapshot-sync', **{'node-name': 'q0', 'snapshot-file': 'over', 'snapshot-node-name': 'q1'}),
        cmd('blockdev-snapshot-sync', **{'node-name': 'zz', 'snapshot-file': 'x', 'snapshot-node-name': 'q2'}),
        cmd('blockdev-snapshot', node='q0', overlay='zz'), cmd('blockdev-snapshot', node='zz', overlay='q0')],
    # what is below an overlay becomes read-only, with the files that its own options opened
    'snapshots of files of their own': OWN_FILE + [
        cmd('blockdev-snapshot-sync', **{'node-name': 'q0', 'snapshot-file': 'over', 'snapshot-node-name': 'q1'}),
        cmd('query-named-block-nodes', flat=True)] + SERVER + [
        cmd('block-export-add', type='nbd', id='e', **{'node-name': 'q0'}, writable=True),
        cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'q0', 'read-only': False, 'file': 'f0'}]),
        cmd('query-named-block-nodes', flat=True)],
    'chains': IMAGE + [
        cmd('blockdev-snapshot-sync', **{'node-name': 'q0', 'snapshot-file': 'over'}),
        cmd('blockdev-snapshot-sync', **{'node-name': 'q0', 'snapshot-file': 'over', 'snapshot-node-name': 'q0'}),
        cmd('blockdev-snapshot-sync', **{'node-name': 'q0', 'snapshot-file': 'over', 'snapshot-node-name': 'q1'}),
        cmd('blockdev-del', **{'node-name': 'q0'}), cmd('blockdev-del', **{'node-name': 'f0'}),
        cmd('blockdev-snapshot-internal-sync', device='q0', name='s'),
        cmd('blockdev-snapshot-delete-internal-sync', device='q0', name='s'),
        cmd('block-dirty-bitmap-add', node='q1', name='b')] + SERVER + [
        cmd('block-export-add', type='nbd', id='e', **{'node-name': 'q1'}, writable=True, bitmaps=['b']),
        cmd('block-export-add', type='nbd', id='f', **{'node-name': 'q1'}, bitmaps=['b']),
        cmd('block-dirty-bitmap-remove', node='q1', name='b'), cmd('block-dirty-bitmap-clear', node='q1', name='b'),
        cmd('block-dirty-bitmap-disable', node='q1', name='b'), cmd('query-block-exports'),
        cmd('block-export-del', id='e'), cmd('block-export-del', id='e', mode='hard'), cmd('blockdev-del', **{'node-name': 'q1'})],
    # ... also one that is named again
    'children that inherit': OWN_FILE + [
        step for options in ({'read-only': True}, {'read-only': False}, {'read-only': True, 'file': {**OWN, 'read-only': False}})
        for step in (cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'q0', 'file': 'f0', **options}]),
                     cmd('query-named-block-nodes', flat=True))],
    'permissions': IMAGE + SERVER + [
        cmd('blockdev-add', driver='qcow2', **{'node-name': 'q1'}, file='f0'),
        cmd('blockdev-add', driver='raw', **{'node-name': 'r0'}, file='f0'),
        cmd('block-export-add', type='nbd', id='r', **{'node-name': 'r0'}, writable=True),
        cmd('block-export-add', type='nbd', id='f', **{'node-name': 'f0'}, writable=True),
        cmd('block_resize', **{'node-name': 'f0'}, size=MIB)],
    # the size that clients were told stays
    'resize of what is exported': IMAGE + SERVER + [
        step for writable in (True, False)
        for step in (cmd('block-export-add', type='nbd', id='e', **{'node-name': 'q0'}, writable=writable),
                     *(cmd('block_resize', **{'node-name': 'q0'}, size=size) for size in (2 * MIB, MIB, 512, -1)),
                     cmd('block_resize', device='q0', size=2 * MIB), cmd('block_resize', device='e', size=2 * MIB),
                     cmd('block-export-del', id='e'), cmd('block_resize', **{'node-name': 'q0'}, size=2 * MIB),
                     cmd('query-named-block-nodes', flat=True))] + [
        cmd('object-add', **{'qom-type': 'throttle-group', 'id': 't'}),
        cmd('blockdev-add', driver='throttle', **{'node-name': 't0', 'throttle-group': 't'}, file='q0'),
        cmd('block-export-add', type='nbd', id='e', **{'node-name': 't0'}), cmd('block_resize', **{'node-name': 'q0'}, size=MIB),
        cmd('block_resize', **{'node-name': 't0'}, size=MIB), cmd('block_resize', **{'node-name': 'f0'}, size=MIB)],
    'filters': IMAGE + [
        cmd('object-add', **{'qom-type': 'throttle-group', 'id': 't'}),
        cmd('blockdev-add', driver='throttle', **{'node-name': 't0', 'throttle-group': 't'}, file='q0'),
        cmd('blockdev-add', driver='copy-on-read', **{'node-name': 'c0'}, file='t0'),
        cmd('query-named-block-nodes'), cmd('query-named-block-nodes', flat=True)],
    'statistics of files': FILE + [
        cmd('blockdev-add', driver='raw', **{'node-name': 'r0'}, file='f0'),
        cmd('query-blockstats', **{'query-nodes': True})],
}


# What differs on purpose, and why: the session, and a part of the request as JSON.
DIFFERS = {
    ('objects', '"qom-list-types"'): 'a class is what can be made here',
    ('objects', '"qom-list"'): 'ours are in the order in which they were made',
    ('bitmaps', '"bitmaps": [1]'): "an element is named by its place, not as 'null'",
    ('jobs', '"query-jobs"'): 'a job that failed has not done its work: its progress stays',
}


def differs(name, request):
    return any(name == where and part in json.dumps(request) for where, part in DIFFERS)


def session(program, folder, name):
    """(request, reply) of each: text where the bytes count."""
    folder.mkdir()
    with Daemon(folder, program) as daemon, daemon.client() as client:
        out = []
        for request in SESSIONS[name]:
            if request == 'concluded':
                client.event('JOB_STATUS_CHANGE', status='concluded')
                continue
            reply = client.ask(request)
            if not differs(name, request):
                out.append((request, masked(client.line.decode())))
            elif 'error' in reply:
                out.append((request, 'error', reply['error']['class'], 'id' in reply))
            else:
                out.append((request, shape(reply)))
        return out


@pytest.mark.parametrize('name', SESSIONS)
def test_same_replies(name, tmp_path):
    link = tmp_path / 'qemu-storage-daemon'
    link.symlink_to(os.environ['PLATTER_BIN'])
    # The name of the folder is in some replies: both run where the other did.
    ours = session([str(link)], tmp_path / 'work', name)
    shutil.rmtree(tmp_path / 'work')
    theirs = session(['qemu-storage-daemon'], tmp_path / 'work', name)
    for our, their in zip(ours, theirs):
        assert our == their
    assert len(ours) == len(theirs)
