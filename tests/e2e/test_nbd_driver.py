# SPDX-License-Identifier: MIT
"""The NBD client driver: every command on a disk behind qemu-nbd, nbdkit and platter serve."""
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from tools_common import TIMEOUT, formats, platter, qemu, run, same_json, serving

pytestmark = pytest.mark.skipif('nbd' not in formats(),
                                reason='this build has no nbd')
MIB = 1 << 20


@contextmanager
def started(command, sock):
    """A server that has its socket when it is ready."""
    if not shutil.which(command[0]):
        pytest.skip(f'{command[0]} is not installed')
    with subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + TIMEOUT
            while not os.path.exists(sock):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@contextmanager
def server(kind, disk, sock, *options):
    if kind == 'platter':
        with serving('-f', 'raw', '--discard', 'unmap', '-k', sock, *options, disk):
            yield
        return
    commands = {
        'qemu-nbd': ['qemu-nbd', '-t', '-e', '8', '-f', 'raw', '--discard=unmap', '-k', sock,
                     *options, disk],
        'nbdkit': ['nbdkit', '-f', '-U', sock, 'file', disk],
    }
    with started(commands[kind], sock):
        yield


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'd.raw'
    with open(path, 'wb') as f:
        f.truncate(8 * MIB)
    return path


def good(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def io(name, *commands, options=('-f', 'raw')):
    return platter('io', *options, name, *[w for c in commands for w in ('-c', c)])


@pytest.mark.parametrize('kind', ['platter', 'qemu-nbd', 'nbdkit'])
def test_commands(kind, disk, tmp_path):
    sock = tmp_path / 's'
    name = f'nbd:unix:{sock}'
    with server(kind, disk, sock):
        good(platter('create', '-f', 'qcow2', name, '5M'))
        good(io(name, 'write -P 3 1M 128k', 'write -z 2M 64k', 'discard 1M 64k', 'flush',
                'read -P 3 1088k 64k', 'read -P 0 2M 64k', options=('-f', 'qcow2')))
        assert 'No errors' in good(platter('check', name))
        info = json.loads(good(platter('info', '--output=json', name)))
        assert (info['format'], info['virtual-size']) == ('qcow2', 5 * MIB)
        assert good(platter('compare', '-f', 'raw', '-F', 'raw', name, disk)) == \
            'Images are identical.\n'
        ours = platter('map', '--output=json', '-f', 'qcow2', name)
        assert json.loads(good(ours)) == json.loads(
            good(qemu('qemu-img', 'map', '--output=json', '-f', 'qcow2', name)))
    good(qemu('qemu-img', 'check', '-f', 'qcow2', disk))


@pytest.mark.parametrize('kind', ['platter', 'qemu-nbd', 'nbdkit'])
def test_random_operations(kind, disk, tmp_path):
    """Like bytes in memory, whatever the connections; the status agrees with them."""
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print('seed', seed)
    rng = random.Random(seed)
    sock = tmp_path / 's'
    model = bytearray(8 * MIB)
    commands = []
    for _ in range(120):
        at = rng.randrange(8 * MIB - 1)
        length = min(8 * MIB - at, rng.choice([1, 512, 4096, 65536, 300000]))
        fill = rng.randrange(1, 256)
        what = rng.choice(['write', 'write -f', 'write -z', 'write -z -u', 'read'])
        if what == 'read':
            part = model[at:at + length]
            fill = part[0]
            length = next((i for i, b in enumerate(part) if b != fill), length)
            commands.append(f'read -P {fill} {at} {length}')
            continue
        if what.startswith('write -z'):
            commands.append(f'{what} {at} {length}')
            fill = 0
        else:
            commands.append(f'{what} -P {fill} {at} {length}')
        model[at:at + length] = bytes([fill]) * length
    with server(kind, disk, sock):
        options = f'driver=nbd,server.type=unix,server.path={sock},connections={rng.choice([1, 4])}'
        out = good(io(options, *commands, options=('--image-opts',)))
        assert 'fail' not in out and 'error' not in out
        assert disk.read_bytes() == model
        for extent in json.loads(good(platter('map', '--output=json', '--image-opts', options))):
            if extent['zero']:
                end = extent['start'] + extent['length']
                assert not any(model[extent['start']:end]), extent


def test_names_and_info_as_the_reference(disk, tmp_path):
    sock = tmp_path / 's'
    with server('qemu-nbd', disk, sock, '-x', 'exp'):
        for name in [f'nbd:unix:{sock}:exportname=exp', f'nbd+unix:///exp?socket={sock}']:
            ours = platter('info', '--output=json', name)
            good(ours)
            assert same_json(ours, qemu('qemu-img', 'info', '--output=json', name))


def test_a_shown_name_can_be_given(disk, tmp_path):
    """Also where the name of the export has characters that mean something in a URI."""
    sock = tmp_path / 's'
    with server('qemu-nbd', disk, sock, '-x', '/a b?%'):
        name = f'json:{{"driver":"nbd","path":"{sock}","export":"/a b?%"}}'
        shown = json.loads(good(platter('info', '--output=json', name)))['filename']
        assert shown == f'nbd+unix:////a%20b%3F%25?socket={sock}'
        assert json.loads(good(platter('info', '--output=json', shown)))['filename'] == shown
        window = f'json:{{"driver":"raw","offset":4096,"file":{name[5:]}}}'
        shown = json.loads(good(platter('info', '--output=json', window)))['filename']
        assert '"export": "/a b?%"' in shown
        good(platter('info', shown))


@pytest.mark.parametrize('name, text', [
    ('nbd:', 'NBD server address missing'),
    ('nbd:foo', "error parsing address 'foo'"),
    ('nbd+unix:///x', 'No valid URL specified'),
    ('nbd://h/x?socket=y', 'No valid URL specified'),
    ('nbd:unix:@/none', "Failed to connect to '@/none': No such file or directory"),
    ('json:{"driver":"nbd","path":"/x","host":"x"}',
     'path and host may not be used at the same time'),
    ('json:{"driver":"nbd","server":{"type":"unix"}}', "Parameter 'path' is missing"),
])
def test_bad_names_as_the_reference(name, text, tmp_path):
    name, text = name.replace('@', str(tmp_path)), text.replace('@', str(tmp_path))
    for done in [platter('info', name), qemu('qemu-img', 'info', name)]:
        assert done.returncode == 1 and text in done.stderr, done.stderr


def test_what_is_refused(disk, tmp_path):
    sock = tmp_path / 's'
    base = f'driver=nbd,path={sock}'
    with server('qemu-nbd', disk, sock, '-r', '-x', 'e'):
        for options, text in [
                (base, 'Requested export not available'),
                (f'{base},export=e,tls-creds=t', "No TLS credentials with id 't'"),
                (f'{base},export=e,tls-hostname=t', "'tls-hostname' needs 'tls-creds'"),
                (f'{base},export=e,x-dirty-bitmap=qemu:dirty-bitmap:b',
                 "no metadata context 'qemu:dirty-bitmap:b'"),
                (f'{base},export=e,connections=17', 'connections'),
                (f'{base},export={"x" * 4097}', 'at most 4096'),
        ]:
            done = platter('info', '--image-opts', options)
            assert done.returncode == 1 and text in done.stderr, done.stderr
        done = platter('info', '--object', 'secret,id=t,data=x', '--image-opts', f'{base},export=e,tls-creds=t')
        assert done.returncode == 1 and "Object with id 't' is not TLS credentials" in done.stderr, done.stderr
        name = f'nbd:unix:{sock}:exportname=e'
        assert 'read-only' in io(name, 'write 0 512').stderr
        good(platter('io', '-r', '-f', 'raw', name, '-c', 'read -P 0 0 512'))
        done = platter('resize', '-f', 'raw', f'nbd:unix:{sock}:exportname=e', '9M')
        assert done.returncode == 1
    sock = tmp_path / 's2'
    with server('qemu-nbd', disk, sock):
        for size in ['9M', '7M']:
            done = platter('resize', '--shrink', '-f', 'raw', f'nbd:unix:{sock}', size)
            assert done.returncode == 1 and 'Cannot resize NBD nodes' in done.stderr
        done = platter('create', '-f', 'raw', f'nbd:unix:{sock}', '9M')
        assert done.returncode == 1 and 'Cannot grow NBD nodes' in done.stderr
        words = ['create', '-f', 'raw', f'nbd:unix:{sock}', '8M', '-o']
        good(platter(*words, 'preallocation=off'))
        done = platter(*words, 'preallocation=full')
        assert done.returncode == 1 and "Unsupported preallocation mode 'full'" in done.stderr
        done = platter('create', '-f', 'raw', 'null-co://', '8M')
        assert done.returncode == 1 and done.stdout == ''
        assert "Protocol driver 'null-co' does not support image creation" in done.stderr


def test_dirty_bitmap_is_shown_as_the_reference_does(tmp_path):
    image, sock = tmp_path / 'i.qcow2', tmp_path / 's'
    good(qemu('qemu-img', 'create', '-f', 'qcow2', image, '4M'))
    good(qemu('qemu-img', 'bitmap', '--add', image, 'b0'))
    good(qemu('qemu-io', '-f', 'qcow2', image, '-c', 'write 1M 64k', '-c', 'write 3M 128k'))
    with started(['qemu-nbd', '-t', '-r', '-f', 'qcow2', '-B', 'b0', '-k', sock, image], sock):
        options = ['map', '--output=json', '--image-opts',
                   f'driver=nbd,server.type=unix,server.path={sock},'
                   'x-dirty-bitmap=qemu:dirty-bitmap:b0']
        assert json.loads(good(platter(*options))) == json.loads(good(qemu('qemu-img', *options)))


def test_block_sizes_of_the_server(disk, tmp_path):
    """nbdkit refuses what does not keep its sizes."""
    sock = tmp_path / 's'
    with started(['nbdkit', '-f', '-U', sock, '--filter=blocksize-policy', 'file', disk,
                  'blocksize-minimum=4096', 'blocksize-preferred=8192', 'blocksize-maximum=64k',
                  'blocksize-error-policy=error'], sock):
        good(io(f'nbd:unix:{sock}', 'write -P 7 1000 200000', 'read -P 7 1000 200000',
                'read -P 0 0 1000', 'write -z 5000 50', 'read -P 0 5000 50', 'discard 1M 5000'))


class Session:
    """platter io that is told one command after the other."""

    def __init__(self, options):
        self.process = subprocess.Popen(
            [os.environ['PLATTER_BIN'], 'io', '--image-opts', options], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def send(self, command):
        self.process.stdin.write(command + '\n')
        self.process.stdin.flush()

    def answer(self):
        """The next line that says how a request ended."""
        while True:
            line = self.process.stdout.readline()
            assert line, 'platter io has ended'
            if any(w in line for w in ('wrote', 'read ', 'fail', 'error')):
                return line

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        assert self.process.wait(TIMEOUT) in (0, 1)


@pytest.mark.parametrize('connections', [1, 3])
def test_requests_wait_for_a_server_that_comes_back(connections, disk, tmp_path):
    sock = tmp_path / 's'
    command = ['qemu-nbd', '-t', '-e', '8', '-f', 'raw', '-k', sock, disk]
    options = (f'driver=nbd,server.type=unix,server.path={sock},reconnect-delay=60,'
               f'connections={connections}')
    with started(command, sock):
        session = Session(options)
        session.send('write -P 1 0 64k')
        assert 'wrote' in session.answer()
    os.unlink(sock)
    session.send('write -P 2 64k 64k')
    with started(command, sock):
        assert 'wrote' in session.answer()
        session.send('read -P 1 0 64k')
        assert 'read 65536/65536' in session.answer()
        session.end()
    assert disk.read_bytes()[:131072] == b'\1' * 65536 + b'\2' * 65536


def test_without_a_delay_requests_fail_and_a_later_one_connects(disk, tmp_path):
    sock = tmp_path / 's'
    command = ['qemu-nbd', '-t', '-e', '8', '-f', 'raw', '-k', sock, disk]
    with started(command, sock):
        session = Session(f'driver=nbd,server.type=unix,server.path={sock}')
        session.send('write -P 1 0 64k')
        assert 'wrote' in session.answer()
    os.unlink(sock)
    for _ in range(2):
        session.send('write -P 2 64k 64k')
        assert 'Input/output error' in session.answer()
    end = time.monotonic() + TIMEOUT
    with started(command, sock):
        line = ''
        while 'wrote' not in line:
            assert time.monotonic() < end
            session.send('write -P 2 64k 64k')
            line = session.answer()
        session.end()


def test_another_export_does_not_take_the_place_of_the_first(disk, tmp_path):
    sock = tmp_path / 's'
    command = ['qemu-nbd', '-t', '-e', '8', '-f', 'raw', '-k', sock, disk]
    with started(command, sock):
        session = Session(f'driver=nbd,server.type=unix,server.path={sock},reconnect-delay=1')
        session.send('write -P 1 0 64k')
        assert 'wrote' in session.answer()
    os.unlink(sock)
    os.truncate(disk, 4 * MIB)
    with started(command, sock):
        session.send('write -P 2 0 64k')
        assert 'Input/output error' in session.answer()
        session.end()
    assert disk.read_bytes()[:65536] == b'\1' * 65536


def test_opening_waits_for_the_server(disk, tmp_path):
    sock = tmp_path / 's'
    session = Session(f'driver=nbd,server.type=unix,server.path={sock},open-timeout=60')
    with started(['qemu-nbd', '-t', '-f', 'raw', '-k', sock, disk], sock):
        session.send('read -P 0 0 64k')
        assert 'read 65536/65536' in session.answer()
        session.end()


def test_opening_waits_as_long_as_it_is_told(tmp_path):
    """The pause between attempts does not end it before its time."""
    began = time.monotonic()
    done = platter('info', '--image-opts', f'driver=nbd,server.type=unix,server.path={tmp_path}/none,open-timeout=1')
    assert done.returncode == 1 and 'No such file or directory' in done.stderr
    assert time.monotonic() - began > 0.85


def test_convert_from_and_to_nothing_lost(disk, tmp_path):
    """Both ends of a copy by other programs are seen through the driver."""
    sock = tmp_path / 's'
    data = random.Random(5).randbytes(MIB)
    with open(disk, 'r+b') as f:
        f.seek(3 * MIB)
        f.write(data)
    with server('platter', disk, sock):
        copy = tmp_path / 'copy.qcow2'
        good(run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', f'nbd:unix:{sock}', copy]))
        assert good(platter('compare', '-f', 'raw', '-F', 'qcow2', f'nbd:unix:{sock}', copy)) == \
            'Images are identical.\n'


def test_signal_ends_a_wait(tmp_path):
    process = subprocess.Popen([os.environ['PLATTER_BIN'], 'info', '--image-opts',
                                f'driver=nbd,path={tmp_path}/none,open-timeout=600'],
                               stdin=subprocess.DEVNULL)
    try:
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) != 0
    finally:
        process.kill()
