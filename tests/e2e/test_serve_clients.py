# SPDX-License-Identifier: MIT
"""Real clients against `platter serve` itself, and what survives its ends."""
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import threading

import pytest

from nbd_client import (CMD_FLUSH, CMD_READ, CMD_WRITE, ENOMEM, SIMPLE, T_MULTI_CONN, Client,
                        Disconnected, connect)
from nbd_common import until
from tools_common import platter, run, serving

SIZE = 24 << 20
MAX = 32 << 20  # of one request
WAYS = {
    'cached': [], 'direct': ['--cache', 'none'], 'threads': ['--aio', 'threads', '--threads', '2'],
    'one thread': ['--threads', '0'], 'writethrough': ['--cache', 'writethrough'],
}


def good(*command, cwd=None):
    done = run(command, cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(name='source')
def source_fixture(tmp_path):
    """Data, holes and zeroes; the end is not on a block of the client."""
    path = tmp_path / 'source.raw'
    rng = random.Random(11)
    with open(path, 'wb') as f:
        f.truncate(SIZE)
        for _ in range(20):
            f.seek(rng.randrange(SIZE - (1 << 20)) & ~4095)
            f.write(rng.randbytes(rng.randrange(1, 1 << 20)))
    return path


@pytest.fixture(name='disk')
def disk_fixture(tmp_path):
    path = tmp_path / 'disk.raw'
    with open(path, 'wb') as f:
        f.truncate(SIZE)
    return path


@pytest.fixture(name='where', params=['unix', 'tcp'])
def where_fixture(request, tmp_path):
    return ['-k', tmp_path / 'nbd.sock'] if request.param == 'unix' else ['-p', '0']


def direct_or_skip(folder, options):
    if 'none' in options:
        try:
            os.close(os.open(folder / 'disk.raw', os.O_RDONLY | os.O_DIRECT))
        except OSError:
            pytest.skip('no direct I/O here')


@pytest.mark.parametrize('options', WAYS.values(), ids=WAYS)
def test_copies(tmp_path, source, disk, options):
    """nbdinfo, nbdcopy both ways with several connections, qemu-img convert and compare."""
    direct_or_skip(tmp_path, options)
    with serving('-f', 'raw', *options, '-k', tmp_path / 'nbd.sock', disk) as (_, uri):
        info = json.loads(good('nbdinfo', '--json', uri))['exports'][0]
        assert info['export-size'] == SIZE and info['can_multi_conn'] and not info['is_read_only']
        good('nbdcopy', '--connections', 4, '--flush', source, uri)
        good('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, uri)
        good('nbdcopy', '--connections', 4, uri, tmp_path / 'back.raw')
        assert digest(source) == digest(tmp_path / 'back.raw')
        good('qemu-io', '-f', 'raw', '-c', f'write -z -u 0 {SIZE}', uri)
        good('qemu-img', 'convert', '-n', '-W', '-m', '4', '-f', 'raw', '-O', 'raw', source, uri)
        good('qemu-img', 'convert', '-f', 'raw', '-O', 'raw', uri, tmp_path / 'again.raw')
    assert digest(source) == digest(tmp_path / 'again.raw') == digest(disk)


def test_copies_over_tcp(tmp_path, source, disk):
    with serving('-f', 'raw', '-p', '0', disk) as (_, uri):
        good('nbdcopy', '--connections', 4, source, uri)
        good('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, uri)
        good('nbdcopy', uri, tmp_path / 'back.raw')
    assert digest(source) == digest(tmp_path / 'back.raw') == digest(disk)


@pytest.mark.parametrize('options', [[], ['--cache', 'none']], ids=['cached', 'direct'])
def test_fio_verify(tmp_path, disk, where, options):
    direct_or_skip(tmp_path, options)
    with serving('-f', 'raw', *options, *where, disk) as (_, uri):
        good('fio', '--name=v', '--ioengine=nbd', f'--uri={uri}', '--rw=randwrite',
             '--bsrange=4k-64k', '--iodepth=32', '--size=12m', '--verify=crc32c',
             '--verify_fatal=1', cwd=tmp_path)


def test_qemu_io(tmp_path, disk, where):
    with serving('-f', 'raw', *where, disk) as (_, uri):
        out = good('qemu-io', '-f', 'raw', '-c', 'write -P 7 1M 64k', '-c', 'write -f -P 8 2M 512',
                   '-c', 'read -P 7 1M 64k', '-c', 'read -P 8 2M 512', '-c', 'write -z 1M 32k',
                   '-c', 'read -P 0 1M 32k', '-c', 'discard 2M 1M', '-c', 'flush', uri)
        assert 'verification failed' not in out


def test_null_disk(tmp_path):
    with serving('-k', tmp_path / 's', '--image-opts',
                 'driver=null-co,size=64M,read-zeroes=off') as (_, uri):
        assert good('nbdinfo', '--size', uri).strip() == str(64 << 20)
        good('qemu-io', '-f', 'raw', '-c', 'write -P 3 0 1M', '-c', 'read 0 1M', uri)
    with serving('-f', 'raw', '-k', tmp_path / 's', 'null-co://') as (_, uri):
        good('qemu-io', '-f', 'raw', '-c', 'read 0 1M', uri)


def test_null_disk_without_zeroes_is_no_hole(tmp_path):
    for zeroes, kind in (('off', 'data'), ('on', 'hole,zero')):
        with serving('-k', tmp_path / zeroes, '--image-opts',
                     f'driver=null-co,size=1M,read-zeroes={zeroes}') as (_, uri):
            extents = json.loads(good('nbdinfo', '--map', '--json', uri))
            assert [extent['description'] for extent in extents] == [kind]


def test_null_disk_tells_nothing_of_the_server(tmp_path):
    """Its reads leave the buffer alone: what was in the server's memory must not come along."""
    with serving('-k', tmp_path / 's', '--image-opts', '--threads', '1',
                 'driver=null-co,size=64M,read-zeroes=off'):
        with connect(str(tmp_path / 's')) as c:
            for n in (512, 4096, 8192, 16384, 65536, 131072, 1 << 20):
                assert c.pread(0, n) == bytes(n)


def test_read_only(tmp_path, source):
    before = digest(source)
    with serving('-f', 'raw', '-r', '-k', tmp_path / 's', source) as (_, uri):
        assert json.loads(good('nbdinfo', '--json', uri))['exports'][0]['is_read_only']
        good('nbdcopy', '--connections', 4, uri, tmp_path / 'back.raw')
        assert run(['nbdcopy', source, uri]).returncode != 0
        with connect(str(tmp_path / 's')) as c:
            assert c.request(CMD_WRITE, 0, 512, payload=b'x' * 512).error == 1
    assert digest(source) == digest(tmp_path / 'back.raw') == before


def test_one_client_only(tmp_path, disk):
    """-e 1: no promise of several connections; nbdcopy then uses one."""
    with serving('-f', 'raw', '-e', '1', '-k', tmp_path / 's', disk) as (_, uri):
        with connect(str(tmp_path / 's')) as c:
            assert not c.flags & T_MULTI_CONN
        assert not json.loads(good('nbdinfo', '--json', uri))['exports'][0]['can_multi_conn']
        good('nbdcopy', '--connections', 4, uri, tmp_path / 'back.raw')
    with serving('-f', 'raw', '-e', '2', '-k', tmp_path / 's', disk):
        with connect(str(tmp_path / 's')) as c:
            assert c.flags & T_MULTI_CONN


# ---- ends ----

class Writer(threading.Thread):
    """Writes blocks of increasing numbers, flushing often; remembers what was flushed."""

    def __init__(self, address):
        super().__init__()
        self.address = address
        self.flushed = 0
        self.many = threading.Event()

    def run(self):
        try:
            with connect(self.address) as c:
                for n in range(1, 1 << 20):
                    block = n % (SIZE // 4096)
                    if c.request(CMD_WRITE, block * 4096, 4096,
                                 payload=n.to_bytes(8, 'little') * 512).error:
                        return
                    if n % 16 == 0:
                        if c.request(CMD_FLUSH).error:
                            return
                        self.flushed = n
                        if n >= 256:
                            self.many.set()
        except (Disconnected, OSError):
            pass


def check_flushed(disk, flushed):
    blocks = SIZE // 4096
    with open(disk, 'rb') as f:
        for n in range(max(1, flushed - blocks + 200), flushed + 1):
            f.seek(n % blocks * 4096)
            found = int.from_bytes(f.read(8), 'little')
            assert found >= n and found % blocks == n % blocks, (n, found)


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGKILL], ids=['SIGTERM', 'SIGKILL'])
def test_ends_in_the_middle_of_writes(tmp_path, disk, end):
    """What was flushed is there, the exit is clean on SIGTERM, and the next server starts at once:
    over the socket that a killed one left, on a disk whose locks are gone."""
    path = str(tmp_path / 's')
    command = [os.environ['PLATTER_BIN'], 'serve', '-f', 'raw', '-k', path, str(disk)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline()
        writers = [Writer(path) for _ in range(1)]
        for w in writers:
            w.start()
        assert all(w.many.wait(60) for w in writers)
        process.send_signal(end)
        assert process.wait(60) == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        assert process.stderr.read() == ''
    for w in writers:
        w.join()
    check_flushed(disk, writers[0].flushed)
    assert os.path.exists(path) == (end == signal.SIGKILL)
    # The kernel drops the locks of a killed process when the last of its writes has ended.
    until(lambda: platter('io', '-f', 'raw', '-c', 'write 0 512', disk).returncode == 0)
    with serving('-f', 'raw', '-k', path, disk) as (_, uri):
        good('qemu-io', '-f', 'raw', '-c', 'write -P 1 0 4k', uri)


def test_second_server_is_told_who_serves(tmp_path, disk):
    with serving('-f', 'raw', '-k', tmp_path / 's', disk) as (process, _):
        done = platter('serve', '-f', 'raw', '-k', tmp_path / 't', disk)
        assert done.returncode == 1 and f'by process {process.pid} (platter)' in done.stderr
        assert 'disk.raw' in done.stderr and not (tmp_path / 't').exists()
        done = platter('serve', '-f', 'raw', '-k', tmp_path / 's', 'null-co://')
        assert done.returncode == 1 and 'another process serves' in done.stderr
        assert platter('info', '-U', disk).returncode == 0
    assert platter('io', '-f', 'raw', '-c', 'write 0 512', disk).returncode == 0


# ---- the process around it ----

PROGRAM = os.environ.get('PLATTER_BIN')


def test_limit_on_file_size_is_an_error(tmp_path):
    path = tmp_path / 'd'
    path.write_bytes(bytes(1 << 20))

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 << 10, 512 << 10))
    done = subprocess.run([PROGRAM, 'io', '-f', 'raw', '-c', 'write 600k 4k', '-c', 'write 0 4k', path],
                          preexec_fn=limit, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    assert 'write failed: File too large' in done.stdout and 'wrote 4096/4096' in done.stdout
    done = subprocess.run([PROGRAM, 'create', tmp_path / 'e', '1M'], preexec_fn=limit,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and 'too large' in done.stderr


@pytest.mark.parametrize('arguments', [['info', 'd'], ['--help'], ['bench', '-f', 'raw', '-c', '1', 'd'],
                                       ['io', '-f', 'raw', '-c', 'length', 'd'], ['create', 'e', '1M'],
                                       ['serve', '-f', 'raw', '-k', 's', 'd']],
                         ids=lambda a: a[0])
@pytest.mark.parametrize('redirect', ['>&-', '>/dev/full', '| true'])
def test_output_that_cannot_be_written(tmp_path, arguments, redirect):
    (tmp_path / 'd').write_bytes(bytes(1 << 20))
    script = f'"$@" {redirect}'
    if redirect == '| true':  # a reader that is gone before anything is written
        script = 'mkfifo p; true <p & exec 3>p; wait; "$@" >&3'
    done = subprocess.run(['sh', '-c', script, 'sh', PROGRAM, *arguments], cwd=tmp_path,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and 'could not write' in done.stderr, done
    assert (tmp_path / 'd').read_bytes() == bytes(1 << 20), 'the output went into the disk'


def test_all_descriptors_closed(tmp_path):
    path = tmp_path / 'd'
    path.write_bytes(bytes(1 << 20))
    done = subprocess.run(['sh', '-c', '"$@" <&- >&- 2>&-', 'sh', PROGRAM, 'io', '-f', 'raw', '-c',
                           'read 0 4k', '-c', 'bogus', path], timeout=60, check=False)
    assert done.returncode == 1
    assert path.read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_bench_and_io(disk, end):
    for arguments in (['bench', '-f', 'raw', '-w', '-c', '100000000', str(disk)],
                      ['io', '-f', 'raw', str(disk)]):
        with subprocess.Popen([PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            if arguments[0] == 'io':
                process.stdin.write(b'length\n')
                process.stdin.flush()
            assert process.stdout.readline()
            process.send_signal(end)
            assert process.wait(60) == -end
    assert platter('io', '-f', 'raw', '-c', 'write 0 512', disk).returncode == 0


def test_stderr_that_nobody_reads_does_not_end_the_server(tmp_path, disk):
    read, write = os.pipe()
    with subprocess.Popen([PROGRAM, 'serve', '-f', 'raw', '-k', str(tmp_path / 's'), str(disk)], stderr=write,
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        os.close(write)
        os.close(read)
        assert re.match('nbd', process.stdout.readline())
        with Client(str(tmp_path / 's')) as c:
            c.greet()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


# ---- memory of one client, against another's ----

def test_clients_that_never_read_leave_an_honest_one_its_share(tmp_path):
    """Twenty clients ask for 64 MiB each and read nothing, more than the whole budget of 1 GiB: one
    that comes then is served within its share, beyond which there is no memory."""
    size = 64 << 20
    with serving('--image-opts', '-k', tmp_path / 's', '--threads', '2',
                 f'driver=null-co,size={size},read-zeroes=off') as (process, _):
        hostile = []
        try:
            for _ in range(20):
                c = connect(str(tmp_path / 's'), mode=SIMPLE)
                c.send(c.header(CMD_READ, 0, MAX, 0, 1) + c.header(CMD_READ, 0, MAX, 0, 2))
                hostile.append(c)
            with connect(str(tmp_path / 's'), mode=SIMPLE, timeout=60) as honest:
                for n in (512, 4096, 65536, 1 << 20, 2 << 20):
                    assert honest.pread(0, n) == bytes(n)
                    honest.pwrite(0, bytes(n))
                until(lambda: honest.request(CMD_READ, 0, MAX).error == ENOMEM)
                cookies = [honest.submit(CMD_WRITE, i * 65536, 65536, payload=bytes(65536))
                           for i in range(100)]
                assert all(honest.wait(k).error == 0 for k in cookies)
        finally:
            for c in hostile:
                c.close()
        assert process.poll() is None
