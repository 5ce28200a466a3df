# SPDX-License-Identifier: MIT
"""platter convert from standard input and to standard output."""
import fcntl
import os
import random
import signal
import subprocess
import threading

import pytest

from qemu_image import clean, make, qemu_img, same_disk, scribble, write
from tools_common import TIMEOUT, called, guessing, needs, platter

pytestmark = needs('qcow2')
MIB = 1 << 20


def piped(*arguments, cwd, stdin=b'', good=True):
    """What convert writes to standard output."""
    done = subprocess.run([os.environ['PLATTER_BIN'], *guessing('convert', *arguments)], cwd=cwd,
                          input=stdin, capture_output=True, check=False, timeout=TIMEOUT)
    assert (done.returncode == 0) == good, done.stderr
    if not good and b'Illegal seek' in done.stderr:
        assert done.stdout == b'' or '-S' in arguments  # found out before
    return done.stdout if good else done.stderr.decode()


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sources')
    rng = random.Random(3)
    make(folder, 'base.qcow2', 6 * MIB)
    scribble(folder, 'base.qcow2', 6 * MIB, rng)
    make(folder, 'top.qcow2', 6 * MIB, backing='base.qcow2')
    scribble(folder, 'top.qcow2', 6 * MIB, rng)
    make(folder, 'empty.qcow2', 3 * MIB)
    make(folder, 'none.qcow2', 0)
    make(folder, 'odd.qcow2', 5 * MIB + 512)
    write(folder, 'odd.qcow2', f'write -P 5 {5 * MIB} 512', 'write -P 6 1M 1M')
    return folder


FILES = ['base.qcow2', 'top.qcow2', 'empty.qcow2', 'none.qcow2', 'odd.qcow2']


@pytest.mark.parametrize('file', FILES)
def test_raw_to_pipe(sources, tmp_path, file):
    want = tmp_path / 'want'
    assert qemu_img('convert', '-O', 'raw', sources / file, want, cwd=tmp_path).returncode == 0
    for options in ([], ['-m', '1'], ['-W', '-m', '16'], ['-S', '0']):
        assert piped('-f', 'qcow2', '-O', 'raw', *options, sources / file, '-', cwd=tmp_path) == want.read_bytes()
    assert not (tmp_path / '-').exists()


@pytest.mark.parametrize('options', ['', 'cluster_size=4k', 'cluster_size=512,refcount_bits=1',
                                     'extended_l2=on', 'compat=0.10', 'cluster_size=2M,refcount_bits=64',
                                     'lazy_refcounts=on,compression_type=zstd'])
def test_qcow2_to_pipe(sources, tmp_path, options):
    given = ['-o', options] if options else []
    for file in FILES:
        image = piped('-f', 'qcow2', '-O', 'qcow2', *given, sources / file, '-', cwd=tmp_path)
        (tmp_path / 'out').write_bytes(image)
        same_disk(tmp_path, 'out', sources / file, 'qcow2', 'qcow2')
        clean(tmp_path, 'out')


def test_large_disk_to_pipe(tmp_path):
    """Several L2 tables, most of which are not needed."""
    make(tmp_path, 'a.qcow2', 1 << 40)
    write(tmp_path, 'a.qcow2', 'write -P 1 0 64k', 'write -P 2 300G 1M', f'write -P 3 {(1 << 40) - 4096} 4k')
    image = piped('-f', 'qcow2', '-O', 'qcow2', 'a.qcow2', '-', cwd=tmp_path)
    assert len(image) < 3 * MIB
    (tmp_path / 'out').write_bytes(image)
    same_disk(tmp_path, 'out', 'a.qcow2', 'qcow2', 'qcow2')
    clean(tmp_path, 'out')


@pytest.mark.parametrize('options', [['-O', 'raw'], ['-O', 'qcow2'], ['-c', '-O', 'qcow2'],
                                     ['-O', 'qcow2', '-o', 'cluster_size=512'], ['-O', 'qcow2', '-S', '0']],
                         ids=' '.join)
@pytest.mark.parametrize('size', [0, 1000, 512 * 1024, 3 * MIB + 512])
def test_raw_from_pipe(tmp_path, size, options):
    body = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    piped('-f', 'raw', *options, '-', 'out', cwd=tmp_path, stdin=body)
    if 'raw' in options:
        assert (tmp_path / 'out').read_bytes() == body
        return
    (tmp_path / 'want').write_bytes(body + bytes(-size % 512))
    same_disk(tmp_path, 'out', 'want', 'qcow2', 'raw')
    done = qemu_img('info', '-f', 'qcow2', '--output=json', 'out', cwd=tmp_path)
    assert f'"virtual-size": {size + -size % 512}' in done.stdout
    clean(tmp_path, 'out')


def image(folder, *options, order=range(5)):
    """20 MiB of data that does not compress, written in pieces of 4 MiB in that order."""
    rng = random.Random(9)
    pieces = [rng.randbytes(4 * MIB) for _ in range(5)]
    make(folder, 'a.qcow2', 20 * MIB, options=options)
    for i in order:
        (folder / 'piece').write_bytes(pieces[i])
        write(folder, 'a.qcow2', f'write -s piece {4 * i}M 4M')
    return (folder / 'a.qcow2').read_bytes()


@pytest.mark.parametrize('options', [[], ['-o', 'cluster_size=2M'], ['-o', 'extended_l2=on']], ids=' '.join)
def test_qcow2_from_pipe(tmp_path, options):
    """As the reference writes it in order; with memory for a fifth of it, or for large clusters."""
    body = image(tmp_path, *options)
    memory = '20M' if 'cluster_size=2M' in options else '4M'
    for target in ('raw', 'qcow2'):
        piped('--max-memory', memory, '-f', 'qcow2', '-O', target, '-', 'out', cwd=tmp_path, stdin=body)
        same_disk(tmp_path, 'out', 'a.qcow2', target, 'qcow2')


def test_compressed_from_pipe(tmp_path):
    image(tmp_path)
    assert qemu_img('convert', '-c', '-O', 'qcow2', 'a.qcow2', 'b.qcow2', cwd=tmp_path).returncode == 0
    body = (tmp_path / 'b.qcow2').read_bytes()
    piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body)
    same_disk(tmp_path, 'out', 'a.qcow2', 'raw', 'qcow2')


def test_own_stream_from_pipe(sources, tmp_path):
    """Tables in front, through two pipes."""
    for file in FILES:
        body = piped('-f', 'qcow2', '-O', 'qcow2', sources / file, '-', cwd=tmp_path)
        piped('-f', 'qcow2', '-O', 'qcow2', '-', 'out', cwd=tmp_path, stdin=body)
        same_disk(tmp_path, 'out', sources / file, 'qcow2', 'qcow2')


@pytest.mark.parametrize('file', FILES)
def test_pipe_to_pipe(sources, tmp_path, file):
    """A qcow2 stream goes on as raw and as qcow2, and raw bytes as both."""
    want = tmp_path / 'want'
    assert qemu_img('convert', '-O', 'raw', sources / file, want, cwd=tmp_path).returncode == 0
    raw = want.read_bytes()
    body = piped('-f', 'qcow2', '-O', 'qcow2', sources / file, '-', cwd=tmp_path)
    assert piped('-f', 'qcow2', '-O', 'raw', '-', '-', cwd=tmp_path, stdin=body) == raw
    assert piped('-f', 'raw', '-O', 'raw', '-', '-', cwd=tmp_path, stdin=raw) == raw
    streams = [piped('-f', 'qcow2', '-O', 'qcow2', *options, '-', '-', cwd=tmp_path, stdin=body)
               for options in ([], ['-S', '0'], ['-o', 'cluster_size=4k'], ['-o', 'extended_l2=on'])]
    assert streams[0] == body
    if raw:
        streams.append(piped('-f', 'raw', '-O', 'qcow2', '--source-size', str(len(raw)), '-', '-', cwd=tmp_path,
                             stdin=raw))
        assert streams[-1] == streams[1]  # nothing of either is known in advance
    for stream in streams:
        (tmp_path / 'out').write_bytes(stream)
        same_disk(tmp_path, 'out', want, 'qcow2', 'raw')
        clean(tmp_path, 'out')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'want']


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_pipes_that_do_not_block(fmt, sources, tmp_path):
    """As a program leaves them that shares them and works so: waited for all the same."""
    image = piped('-f', 'qcow2', '-O', fmt, sources / 'base.qcow2', '-', cwd=tmp_path)
    (take, feed), (drain, give) = os.pipe(), os.pipe()
    for fd in take, give:
        os.set_blocking(fd, False)
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
    command = guessing('convert', '-f', fmt, '-O', 'raw', '-', '-')
    with subprocess.Popen([os.environ['PLATTER_BIN'], *command], cwd=tmp_path, stdin=take, stdout=give) as process:
        os.close(take)
        os.close(give)
        with os.fdopen(feed, 'wb') as to, os.fdopen(drain, 'rb') as back:
            feeder = threading.Thread(target=lambda: (to.write(image), to.close()))
            feeder.start()
            got = back.read()
            feeder.join(TIMEOUT)
        assert process.wait(TIMEOUT) == 0
    assert got == piped('-f', 'qcow2', '-O', 'raw', sources / 'base.qcow2', '-', cwd=tmp_path)


def test_sizes_from_pipe_to_pipe(tmp_path):
    for size in (1, 511, 512, 1000, 70000, MIB + 1):
        body = random.Random(size).randbytes(size)
        assert piped('-f', 'raw', '-O', 'raw', '-', '-', cwd=tmp_path, stdin=body) == body
        (tmp_path / 'out').write_bytes(piped('-f', 'raw', '-O', 'qcow2', '--source-size', str(size), '-', '-',
                                             cwd=tmp_path, stdin=body))
        (tmp_path / 'want').write_bytes(body + bytes(-size % 512))
        same_disk(tmp_path, 'out', 'want', 'qcow2', 'raw')
        clean(tmp_path, 'out')
        said = piped('-f', 'raw', '-O', 'qcow2', '--source-size', str(size), '-', '-', cwd=tmp_path,
                     stdin=body + b'x', good=False)
        assert f'the source goes on behind byte {size}' in said


def test_raw_file_on_standard_input_to_pipe(tmp_path):
    """Its size and holes are known."""
    with open(tmp_path / 'a', 'w+b') as disk:
        disk.truncate(64 * MIB)
        disk.seek(20 * MIB)
        disk.write(b'x' * MIB)
        disk.flush()
        disk.seek(0)
        done = subprocess.run([os.environ['PLATTER_BIN'], 'convert', '-f', 'raw', '-O', 'qcow2', '-', '-'],
                              cwd=tmp_path, stdin=disk, capture_output=True, check=True, timeout=TIMEOUT)
    assert len(done.stdout) < 2 * MIB
    (tmp_path / 'out').write_bytes(done.stdout)
    same_disk(tmp_path, 'out', 'a', 'qcow2', 'raw')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('before', [512, 70001])
def test_file_that_stands_within(fmt, before, tmp_path):
    """What was read of it already is no part of the source."""
    body = random.Random(before).randbytes(MIB) + bytes(MIB) + b'x' * 4096
    (tmp_path / 'want').write_bytes(body)
    assert qemu_img('convert', '-f', 'raw', '-O', fmt, 'want', 'a', cwd=tmp_path).returncode == 0
    (tmp_path / 'file').write_bytes(b'y' * before + (tmp_path / 'a').read_bytes())
    for line in (['-O', 'raw', '-', 'out'], ['-O', 'qcow2', '-', 'out'], ['-O', 'raw', '-', '-'],
                 ['-O', 'qcow2', '-', '-'], ['-S', '0', '-O', 'qcow2', '-', '-'], ['-T', 'none', '-O', 'raw', '-', 'out']):
        with open(tmp_path / 'file', 'rb') as file:
            os.lseek(file.fileno(), before, os.SEEK_SET)
            done = subprocess.run([os.environ['PLATTER_BIN'], 'convert', '-f', fmt, *line], cwd=tmp_path, stdin=file,
                                  capture_output=True, check=False, timeout=TIMEOUT)
        assert (done.returncode, done.stderr) == (0, b'')
        if line[-1] == '-':
            (tmp_path / 'out').write_bytes(done.stdout)
        same_disk(tmp_path, 'out', 'want', line[line.index('-O') + 1], 'raw')


def test_what_follows_the_image(sources, tmp_path):
    """It is read to its end, so that its writer does not fail, and left out."""
    image = (sources / 'base.qcow2').read_bytes()
    (tmp_path / 'long').write_bytes(image + b'tail' * MIB)
    for target in ('out', '-'):
        done = subprocess.run(f"set -o pipefail; cat long | '{os.environ['PLATTER_BIN']}' convert --max-memory 64M "
                              f'-f qcow2 -O qcow2 - {target} > stream', shell=True, executable='/bin/bash',
                              cwd=tmp_path, check=False, timeout=TIMEOUT)
        assert done.returncode == 0
        same_disk(tmp_path, 'out' if target == 'out' else 'stream', sources / 'base.qcow2', 'qcow2', 'qcow2')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_what_follows_without_end(number, sources, tmp_path):
    """A signal ends it; the target is whole by then."""
    image = (sources / 'base.qcow2').read_bytes()
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'convert', '-f', 'qcow2', '-O', 'raw', '-', 'out'], cwd=tmp_path,
                          stdin=subprocess.PIPE) as process:
        process.stdin.write(image + bytes(64 * MIB))
        process.stdin.flush()  # more than any pipe and window hold: the tail is being read
        process.send_signal(number)
        assert process.wait(TIMEOUT) == -number
    same_disk(tmp_path, 'out', sources / 'base.qcow2', 'raw', 'qcow2')


def test_what_cannot_go_on(tmp_path):
    """Data that is not in the order of the disk, with memory for less than it."""
    body = image(tmp_path)
    options = ['--max-memory', '1M', '-f', 'qcow2', '-O', 'qcow2', '-', '-']
    (tmp_path / 'out').write_bytes(piped(*options, cwd=tmp_path, stdin=body))
    same_disk(tmp_path, 'out', 'a.qcow2', 'qcow2', 'qcow2')
    body = image(tmp_path, order=[4, 3, 2, 1, 0])
    said = piped(*options, cwd=tmp_path, stdin=body, good=False)
    assert 'Illegal seek' in said and 'an image has its tables in front; -S 0 writes' in said
    said = piped(*options, '-S', '0', cwd=tmp_path, stdin=body, good=False)
    assert 'Illegal seek' in said and 'or its data in the order of the disk' in said


def test_tables_between_the_data(tmp_path):
    """A second L2 table behind the data of the first: the plan would need what is not there yet."""
    make(tmp_path, 'b.qcow2', 584 << 20)
    write(tmp_path, 'b.qcow2', 'write -P 1 0 8M', 'write -P 2 512M 70M')
    body = (tmp_path / 'b.qcow2').read_bytes()
    line = ['--max-memory', '1M', '-f', 'qcow2', '-O', 'qcow2', '-', '-']
    assert '-S 0 writes' in piped(*line, cwd=tmp_path, stdin=body, good=False)
    (tmp_path / 'out').write_bytes(piped('-p', '-S', '0', *line, cwd=tmp_path, stdin=body))
    same_disk(tmp_path, 'out', 'b.qcow2', 'qcow2', 'qcow2')


def test_tables_between_compressed_data(tmp_path):
    """Where that is nobody says: it goes where nothing was passed by."""
    make(tmp_path, 'b.qcow2', 1 << 30)
    (tmp_path / 'piece').write_bytes(random.Random(4).randbytes(65536 // 2) + bytes(65536 // 2))
    write(tmp_path, 'b.qcow2', *(f'write -c -s piece {64 * i}k 64k' for i in range(64)), 'write -c -P 2 512M 64k')
    body = (tmp_path / 'b.qcow2').read_bytes()
    line = ['-f', 'qcow2', '-O', 'qcow2', '-', '-']
    said = piped('--max-memory', '1M', *line, cwd=tmp_path, stdin=body, good=False)
    assert 'error while reading at byte 0: Illegal seek' in said and '-S 0 writes' in said
    (tmp_path / 'out').write_bytes(piped(*line, cwd=tmp_path, stdin=body))
    same_disk(tmp_path, 'out', 'b.qcow2', 'qcow2', 'qcow2')


@pytest.mark.parametrize('size', [MIB, MIB + 512])
def test_image_that_ends_within_a_cluster(tmp_path, size):
    """As with a file: where the disk ends there, it is whole; else it was cut short."""
    (tmp_path / 'a.raw').write_bytes(random.Random(size).randbytes(size))
    assert qemu_img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2', cwd=tmp_path).returncode == 0
    body = (tmp_path / 'a.qcow2').read_bytes()[:-(-size % 65536) or None]
    piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body)
    same_disk(tmp_path, 'out', 'a.raw', 'raw', 'raw')
    for cut in (1, 100, 511, 512, 513, 5000, 65535, 65536):
        piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body[:-cut], good=False)


def test_compressed_image_that_ends_early(tmp_path):
    """Its last sector need not be whole, but what is missing of the last cluster is not made up."""
    (tmp_path / 'a.raw').write_bytes(b''.join(b'line %d\n' % n for n in range(100000)))
    for program in (platter, qemu_img):
        assert program('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2', cwd=tmp_path).returncode == 0
        body = (tmp_path / 'a.qcow2').read_bytes()
        whole = body.rstrip(b'\0')
        for cut in range(0, len(body) - len(whole) + 1, 7):
            piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body[:len(body) - cut])
            same_disk(tmp_path, 'out', 'a.raw', 'raw', 'raw')
        for cut in (3, 100, 600, 70000):
            piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=whole[:-cut], good=False)


def test_image_in_another_order(tmp_path):
    """It fits into the usual memory; with less it is refused in words that say why."""
    body = image(tmp_path, order=[4, 3, 2, 1, 0])
    piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body)
    same_disk(tmp_path, 'out', 'a.qcow2', 'raw', 'qcow2')
    said = piped('--max-memory', '1M', '-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body, good=False)
    assert 'Illegal seek' in said and 'A pipe gives each byte once' in said


@pytest.mark.parametrize('options', ['cluster_size=512', 'cluster_size=4k', 'cluster_size=16k,extended_l2=on'])
@pytest.mark.parametrize('packed', [[], ['-c']], ids=['plain', 'packed'])
def test_small_clusters_from_pipe(tmp_path, options, packed):
    """Many tables between the data; where the pipe breaks off, so does the convert, as with a file."""
    raw = random.Random(7).randbytes(3 * MIB) + b'line\n' * 100000 + bytes(MIB)
    raw += bytes(-len(raw) % 512)
    (tmp_path / 'a.raw').write_bytes(raw)
    line = ['convert', *packed, '-f', 'raw', '-O', 'qcow2', '-o', options, 'a.raw', 'a.qcow2']
    if qemu_img(*line, cwd=tmp_path).returncode != 0:
        pytest.skip('no compression with subclusters')
    body = (tmp_path / 'a.qcow2').read_bytes()
    for target in ('raw', 'qcow2'):
        piped('-f', 'qcow2', '-O', target, '-', 'out', cwd=tmp_path, stdin=body)
        same_disk(tmp_path, 'out', 'a.raw', target, 'raw')
    (tmp_path / 'out').write_bytes(piped('-f', 'qcow2', '-O', 'qcow2', '-', '-', cwd=tmp_path, stdin=body))
    same_disk(tmp_path, 'out', 'a.raw', 'qcow2', 'raw')
    for cut in (1, 511, 512, 513, 4096, 70000, MIB, 3 * MIB):
        (tmp_path / 'cut.qcow2').write_bytes(body[:-cut])
        whole = platter('convert', '-f', 'qcow2', '-O', 'raw', 'cut.qcow2', 'want', cwd=tmp_path).returncode == 0
        piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body[:-cut], good=whole)
        assert not whole or (tmp_path / 'out').read_bytes() == raw


def test_image_that_ends_early(tmp_path):
    body = image(tmp_path)
    for cut in (0, 50, 1000, 70000, 300000, 10 * MIB + 5, len(body) - 2 * 65536, len(body) - 65536):
        piped('-f', 'qcow2', '-O', 'raw', '-', 'out', cwd=tmp_path, stdin=body[:cut], good=False)


def test_other_formats_from_file_on_standard_input(sources, tmp_path):
    with open(sources / 'base.qcow2', 'rb') as stdin:
        done = subprocess.run([os.environ['PLATTER_BIN'], 'convert', '-f', 'qcow2', '-O', 'raw', '-', 'out'],
                              cwd=tmp_path, stdin=stdin, check=False, timeout=TIMEOUT)
    assert done.returncode == 0
    same_disk(tmp_path, 'out', sources / 'base.qcow2', 'raw', 'qcow2')


@pytest.mark.parametrize('line,said', [
    (['-f', 'nosuch', '-O', 'raw', '-', 'out'], "Unknown driver 'nosuch'"),
    (['-f', 'qcow2', '-O', 'raw', '-', 'out'], 'Could not read qcow2 header'),
    (['-O', 'raw', '-', 'out'], 'a pipe needs a format'),
    (['-f', 'raw', '-O', 'qcow2', '-', '-'], '--source-size is missing'),
    (['-f', 'qcow2', '--source-size', '1M', '-', 'out'], '--source-size is of a raw SOURCE'),
    (['-f', 'raw', '--source-size', '1M', 'FILE', '-'], '--source-size is of a raw SOURCE'),
    (['-f', 'raw', '-O', 'raw', '--source-size', '1M', '-', '-'], 'the source ended at byte 0 of 1048576'),
    (['-f', 'raw', '-O', 'raw', '--source-size', '1M', '-', 'out'], 'the source ended at byte 0 of 1048576'),
    (['-f', 'raw', '-O', 'qcow2', '--source-size', '0', '-', '-'], 'it must be more than 0'),
    (['-f', 'raw', '-c', '-O', 'qcow2', '--source-size', '1M', '-', '-'], 'to a pipe there is no -c and -C'),
    (['-f', 'qcow2', '-O', 'raw', '-', '-'], 'Could not read qcow2 header'),
    (['-f', 'raw', '-', '-', 'out'], 'a pipe is the only SOURCE'),
    (['-f', 'raw', '-n', '-', 'out'], 'from a pipe there is no -B, -n and --bitmaps'),
    (['-f', 'qcow2', '-c', '-O', 'qcow2', 'FILE', '-'], 'to a pipe there is no -c and -C'),
    (['-f', 'qcow2', '-O', 'qcow2', '-B', 'x', '-F', 'raw', 'FILE', '-'], 'to a pipe there is no -B'),
    (['-f', 'qcow2', '-O', 'qcow2', '-o', 'preallocation=full', 'FILE', '-'], 'Nothing can be reserved'),
    (['-f', 'qcow2', '-O', 'qcow2', '-o', 'data_file=x', 'FILE', '-'], 'no data file beside it'),
    (['-f', 'qcow2', '-O', 'raw', '-o', 'preallocation=full', 'FILE', '-'], "takes no option 'preallocation'"),
])
def test_refused(sources, tmp_path, line, said):
    line = [sources / 'base.qcow2' if word == 'FILE' else word for word in line]
    assert said in piped(*line, cwd=tmp_path, good=False)


def test_reader_goes_away(sources, tmp_path):
    """An error that is told, not the end by a signal."""
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'convert', '-S', '0', '-f', 'qcow2', '-O', 'raw',
                           sources / 'base.qcow2', '-'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL)) as process:
        try:
            process.stdout.read(1)
            process.stdout.close()
            assert process.stderr.read().endswith(b'Broken pipe\n')
            assert process.wait(TIMEOUT) == 1
        finally:
            if process.poll() is None:
                process.kill()


def test_progress_goes_elsewhere(sources, tmp_path):
    done = subprocess.run([os.environ['PLATTER_BIN'], 'convert', '-p', '-f', 'qcow2', '-O', 'raw',
                           sources / 'base.qcow2', '-'], cwd=tmp_path, capture_output=True, check=True,
                          timeout=TIMEOUT)
    assert len(done.stdout) == 6 * MIB and b'(100.00/100%)' in done.stderr


def test_memory_is_bounded(tmp_path):
    """A disk of 1 GiB through little memory: the programs together see all of it."""
    make(tmp_path, 'a.qcow2', 1 << 30)
    write(tmp_path, 'a.qcow2', 'write -P 1 512M 64k')
    line = f"'{os.environ['PLATTER_BIN']}'"
    done = subprocess.run(f'{line} convert --max-memory 256k -f qcow2 -O raw a.qcow2 - | '
                          f'{line} convert --max-memory 256k -f raw -O qcow2 - b.qcow2',
                          shell=True, cwd=tmp_path, check=False, timeout=TIMEOUT)
    assert done.returncode == 0
    same_disk(tmp_path, 'a.qcow2', 'b.qcow2', 'qcow2', 'qcow2')


def test_dash_is_a_file_where_it_stands_in(sources, tmp_path):
    link = called(tmp_path, 'qemu-img')
    done = subprocess.run([link, 'convert', '-f', 'qcow2', '-O', 'raw', sources / 'odd.qcow2', '-'], cwd=tmp_path,
                          capture_output=True, check=False, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (0, b'')
    same_disk(tmp_path, './-', sources / 'odd.qcow2', 'raw', 'qcow2')
    assert platter('convert', '-f', 'qcow2', sources / 'odd.qcow2', './-', cwd=tmp_path).returncode == 0
