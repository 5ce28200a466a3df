# SPDX-License-Identifier: MIT
"""Jobs of a daemon under clients that start, steer and end them at random and all at once; and a
daemon that ends while they work."""
import json
import os
import random
import signal
import subprocess

import pytest

from qmp import Daemon
from tools_common import needs, platter

pytestmark = needs('qcow2')
PLATTER = os.environ['PLATTER_BIN']
COMMANDS = int(os.environ.get('PLATTER_OPS', 1000))
MIB = 1 << 20
BURST = 20  # requests that are sent without waiting
VERBS = ['pause', 'resume', 'resume', 'cancel', 'complete', 'finalize', 'dismiss', 'dismiss']
# What may follow what: the drawing in platter/job.h, for kinds that are never ready.
FOLLOWS = {'null': {'created'}, 'created': {'running', 'aborting'}, 'running': {'paused', 'waiting', 'aborting'},
           'paused': {'running', 'aborting'}, 'waiting': {'pending', 'aborting'},
           'pending': {'concluded', 'aborting'}, 'aborting': {'concluded'}, 'concluded': {'null'}}


def run_daemon(tmp_path):
    return Daemon(tmp_path, [PLATTER, 'daemon'], '--image-refs', 'follow', monitors=2)


def make_disk(qmp, name, tmp_path):
    assert platter('create', '-f', 'qcow2', f'{name}.qcow2', '16M', cwd=tmp_path).returncode == 0
    qmp.call('blockdev-add', driver='file', node_name=name + '-file', filename=name + '.qcow2')
    qmp.call('blockdev-add', driver='qcow2', node_name=name, file=name + '-file')


def random_request(rng):
    job = f'j{rng.randrange(6)}'
    kind = rng.randrange(8)
    if kind == 0:
        return 'blockdev-create', {'job-id': job, 'options': {
            'driver': 'file', 'filename': f'f{rng.randrange(3)}', 'size': rng.choice([0, MIB]),
            'preallocation': rng.choice(['off', 'full'])}}
    if kind == 1:
        return 'blockdev-create', {'job-id': job, 'options': {
            'driver': 'qcow2', 'file': rng.choice(['spare', 'nosuch']), 'size': MIB}}
    if kind == 2:
        return 'x-blockdev-amend', {'job-id': job, 'node-name': rng.choice(['d0', 'd1']), 'options': {
            'driver': 'qcow2', **rng.choice([{'lazy-refcounts': True}, {'lazy-refcounts': False}, {'size': 1}])}}
    verb = rng.choice(VERBS)
    if rng.randrange(2):
        return 'job-' + verb, {'id': job}
    return 'block-job-' + verb, {'id' if verb in ('finalize', 'dismiss') else 'device': job}


def ask_many(client, requests):
    """All at once; their replies, in order."""
    client.write(b''.join(json.dumps({'execute': name, 'arguments': arguments, 'id': i}).encode() + b'\n'
                          for i, (name, arguments) in enumerate(requests)))
    replies = []
    while len(replies) < len(requests):
        message = client.read()
        if 'event' in message:
            client.events.append(message)
        else:
            assert message['id'] == len(replies)
            replies.append(message)
    return replies


def check_events(events):
    last = {}
    for e in events:
        if e['event'] == 'JOB_STATUS_CHANGE':
            job, status = e['data']['id'], e['data']['status']
            assert status in FOLLOWS[last.get(job, 'null')], (job, last.get(job), status)
            last[job] = status
    return {job: status for job, status in last.items() if status != 'null'}


def end_all(client):
    """As a user would who wants no job to be left."""
    while True:
        jobs = client.call('query-jobs')
        if not jobs:
            return
        for job in jobs:
            for verb in {'paused': ['resume'], 'concluded': ['dismiss'], 'pending': ['finalize']}.get(job['status'], []):
                client.try_call('job-' + verb, id=job['id'])


@pytest.mark.parametrize('seed', [int(os.environ['PLATTER_SEED'])] if 'PLATTER_SEED' in os.environ else range(2))
def test_random_verbs(seed, tmp_path):
    print(f'PLATTER_SEED={seed}')
    rng = random.Random(seed)
    started = 0
    with run_daemon(tmp_path) as daemon, daemon.client(0) as a, daemon.client(1) as b:
        for name in ('d0', 'd1'):
            make_disk(a, name, tmp_path)
        (tmp_path / 'spare.img').write_bytes(b'')
        a.call('blockdev-add', driver='file', node_name='spare', filename='spare.img')
        for _ in range(COMMANDS // BURST):
            requests = [random_request(rng) for _ in range(BURST)]
            replies = ask_many(rng.choice([a, b]), requests)
            for request, reply in zip(requests, replies):
                if 'error' in reply:
                    assert reply['error']['class'] in ('GenericError', 'DeviceNotActive'), (request, reply)
                elif request[0] in ('blockdev-create', 'x-blockdev-amend'):
                    started += 1
        end_all(a)
        for client in (a, b):
            client.call('query-jobs')  # after the events that were on their way
            assert check_events(client.events) == {}
        for name in ('d0', 'd1', 'd0-file', 'd1-file', 'spare'):  # nothing holds them any more
            a.call('blockdev-del', node_name=name)
    assert started > COMMANDS // 50
    for name in ('d0', 'd1'):
        assert platter('check', '-f', 'qcow2', f'{name}.qcow2', cwd=tmp_path).returncode == 0


@pytest.mark.parametrize('how', ['quit', 'signal'])
def test_end_with_jobs(how, tmp_path):
    """Jobs that work, wait for their turn, are paused, or have ended: the daemon ends in order."""
    for delay in range(4):
        folder = tmp_path / str(delay)
        folder.mkdir()
        with run_daemon(folder) as daemon, daemon.client() as client:
            make_disk(client, 'disk', folder)
            ask_many(client, [('blockdev-create', {'job-id': f'j{i}', 'options': {
                'driver': 'file', 'filename': f'f{i}', 'size': 8 * MIB, 'preallocation': 'full'}}) for i in range(4)] + [
                    ('job-pause', {'id': 'j2'}), ('job-cancel', {'id': 'j3'}),
                    ('x-blockdev-amend', {'job-id': 'amend', 'node-name': 'disk',
                                          'options': {'driver': 'qcow2', 'lazy-refcounts': True}})])
            for _ in range(delay * 3):
                client.call('query-jobs')
            if how == 'quit':
                client.call('quit')
            else:
                daemon.process.send_signal(signal.SIGTERM)
            code, out = daemon.end()
            assert code == 0, out
        assert platter('check', '-f', 'qcow2', 'disk.qcow2', cwd=folder).returncode == 0


def test_disk_of_a_job(tmp_path):
    """What is refused while an amend works, and what writers of the disk notice of it: nothing."""
    with run_daemon(tmp_path) as daemon, daemon.client() as qmp:
        make_disk(qmp, 'disk', tmp_path)
        socket = tmp_path / 'nbd.sock'
        qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(socket)}})
        qmp.call('block-export-add', type='nbd', id='e', node_name='disk', writable=True)
        uri = f'nbd+unix:///disk?socket={socket}'
        script = '\n'.join(f'write -P {1 + i % 250} {i * 65536} 64k' for i in range(200)) + '\nflush\n'
        with subprocess.Popen(['qemu-io', '-f', 'raw', uri], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer:
            writer.stdin.write(script.encode())
            writer.stdin.close()
            while True:  # with the writer beside it, and once after
                over = writer.poll() is not None
                amend(qmp, other_value(qmp))
                if over:
                    break
            assert writer.wait() == 0
        reads = [x for i in range(200) for x in ('-c', f'read -P {1 + i % 250} {i * 65536} 64k')]
        out = subprocess.run(['qemu-io', '-r', '-f', 'raw', uri, *reads], capture_output=True, text=True, check=False)
        assert out.returncode == 0 and 'failed' not in out.stdout, out.stdout
        qmp.export_del('e')
    assert platter('check', '-f', 'qcow2', 'disk.qcow2', cwd=tmp_path).returncode == 0


def other_value(qmp):
    disk = next(n for n in qmp.call('query-named-block-nodes') if n['node-name'] == 'disk')
    return not disk['image']['format-specific']['data']['lazy-refcounts']


def amend(qmp, lazy):
    """Beside it: the same once more, and things that need the node as a whole."""
    change = {'job-id': 'a', 'node-name': 'disk', 'options': {'driver': 'qcow2', 'lazy-refcounts': lazy}}
    replies = ask_many(qmp, [('x-blockdev-amend', change), ('x-blockdev-amend', {**change, 'job-id': 'b'}),
                             ('block_resize', {'node-name': 'disk', 'size': 16 * MIB}),
                             ('blockdev-del', {'node-name': 'disk'})])
    assert 'return' in replies[0], replies
    # or the job was over by then; but what is exported keeps its size
    assert 'return' in replies[1] or "in use by job 'a'" in replies[1]['error']['desc'], replies
    assert any(text in replies[2]['error']['desc'] for text in ("in use by job 'a'", "permissions 'resize'")), replies
    assert 'in use' in replies[3]['error']['desc'], replies
    end_all(qmp)
    assert other_value(qmp) is not lazy
