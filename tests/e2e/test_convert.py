# SPDX-License-Identifier: MIT
"""platter convert and dd beside qemu-img: what the copy holds, where it is allocated, and what is
asked of convert alone."""
import json
import os
import random
import re
import signal
import subprocess

import pytest

from qemu_image import CLUSTER, clean, make, qemu_img, same_disk, scribble, write
from tools_common import TIMEOUT, called, needs, platter, run, serving

pytestmark = needs('qcow2')
MIB = 1 << 20


def convert(*arguments, cwd):
    done = platter('convert', *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def shape(cwd, name, fmt):
    """Where the reference sees data and zeroes, without offsets in the file. The first block of a
    raw file is left out: the reference writes it when it makes one."""
    rows = json.loads(qemu_img('map', '-f', fmt, '--output=json', name, cwd=cwd).stdout)
    seen = {}
    for row in rows:
        for at in range(row['start'], row['start'] + row['length'], 4096):
            seen[at] = (row['depth'], row['zero'], row['data'], row['present'])
    if fmt == 'raw':
        seen.pop(0, None)
    return seen


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Raw with runs of all lengths, qcow2 with each kind of cluster, a chain."""
    folder = tmp_path_factory.mktemp('sources')
    rng = random.Random(5)
    body = bytearray(2 * MIB + 512)
    at = 0
    while at < len(body):
        n = rng.choice([512, 4096, 8192, 65536, 100000, 131072])
        if rng.random() < 0.5:
            body[at:at + n] = rng.randbytes(min(n, len(body) - at))
        at += n
    (folder / 'plain.raw').write_bytes(body)
    with open(folder / 'sparse.raw', 'wb') as f:
        f.truncate(4 * MIB)
        for at in (4096, 70000 // 4096 * 4096, 2 * MIB, 3 * MIB + 16384):
            f.seek(at)
            f.write(b'x' * 4096)
    make(folder, 'base.qcow2', 4 * MIB)
    scribble(folder, 'base.qcow2', 4 * MIB, rng)
    make(folder, 'middle.qcow2', 4 * MIB, backing='base.qcow2')
    scribble(folder, 'middle.qcow2', 4 * MIB, rng)
    make(folder, 'top.qcow2', 5 * MIB, backing='middle.qcow2')
    scribble(folder, 'top.qcow2', 5 * MIB, rng)
    write(folder, 'top.qcow2', 'write -z 1M 192k', 'write -P 0 2M 64k', f'write -P 9 {4 * MIB} 4k')
    assert qemu_img('convert', '-c', '-O', 'qcow2', '-f', 'raw', 'plain.raw', 'packed.qcow2',
                    cwd=folder).returncode == 0
    assert qemu_img('snapshot', '-c', 'first', 'base.qcow2', cwd=folder).returncode == 0
    write(folder, 'base.qcow2', 'write -P 77 0 1M')
    for path in folder.iterdir():
        # What a file system has set aside and not written is a hole until it was read once, and data as long as
        # it is in the page cache: all programs and tests are to see the same.
        path.read_bytes()
    return folder


CASES = [
    ('raw', 'raw', ['plain.raw'], []),
    ('raw', 'qcow2', ['plain.raw'], []),
    ('raw', 'raw', ['sparse.raw'], []),
    ('raw', 'qcow2', ['sparse.raw'], []),
    ('raw', 'raw', ['plain.raw'], ['-S', '512']),
    ('raw', 'raw', ['plain.raw'], ['-S', '64k']),
    ('raw', 'raw', ['plain.raw'], ['-S', '0']),
    ('raw', 'qcow2', ['sparse.raw'], ['-S', '0']),
    ('raw', 'raw', ['plain.raw'], ['-C']),
    ('raw', 'raw', ['plain.raw'], ['-W', '-m', '16']),
    ('raw', 'raw', ['plain.raw'], ['-m', '1', '-t', 'none', '-T', 'none']),
    ('raw', 'raw', ['plain.raw'], ['--salvage', '-t', 'writeback']),
    ('raw', 'qcow2', ['plain.raw'], ['-o', 'cluster_size=4k']),
    ('raw', 'qcow2', ['plain.raw'], ['-o', 'extended_l2=on']),
    ('raw', 'qcow2', ['sparse.raw'], ['-o', 'compat=0.10,cluster_size=512']),
    ('raw', 'qcow2', ['plain.raw'], ['-c']),
    ('raw', 'qcow2', ['sparse.raw'], ['-c', '-o', 'compression_type=zstd']),
    ('raw', 'qcow2', ['sparse.raw'], ['-c', '-S', '0', '-m', '3']),
    ('raw', 'qcow2', ['plain.raw'], ['-c', '-W']),
    ('qcow2', 'raw', ['top.qcow2'], []),
    ('qcow2', 'qcow2', ['top.qcow2'], []),
    ('qcow2', 'qcow2', ['packed.qcow2'], []),
    ('qcow2', 'raw', ['packed.qcow2'], ['-C']),
    ('qcow2', 'qcow2', ['base.qcow2'], ['-l', 'first']),
    ('qcow2', 'qcow2', ['base.qcow2'], ['-l', 'snapshot.name=first']),
    ('qcow2', 'raw', ['base.qcow2', 'packed.qcow2', 'top.qcow2'], []),
    ('qcow2', 'qcow2', ['top.qcow2'], ['-B', 'middle.qcow2', '-F', 'qcow2']),
    ('qcow2', 'qcow2', ['top.qcow2'], ['-c', '-B', 'middle.qcow2', '-F', 'qcow2']),
    ('qcow2', 'qcow2', ['middle.qcow2'], ['-o', 'backing_file=base.qcow2,backing_fmt=qcow2']),
    ('qcow2', 'qcow2', ['middle.qcow2'], ['-o', 'cluster_size=4k', '-B', 'base.qcow2', '-F', 'qcow2']),
]


@pytest.mark.parametrize('fmt,target,files,options', CASES,
                         ids=[' '.join([*c[3], *c[2], c[1]]) for c in CASES])
def test_like_reference(sources, tmp_path, fmt, target, files, options):
    for name in os.listdir(sources):
        os.link(sources / name, tmp_path / name)
    line = ['convert', '-f', fmt, '-O', target, *options, *files]
    assert qemu_img(*line, 'theirs', cwd=tmp_path).returncode == 0
    done = platter(*line, 'ours', cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    same_disk(tmp_path, 'ours', 'theirs', target, target)
    assert shape(tmp_path, 'ours', target) == shape(tmp_path, 'theirs', target)
    if target == 'qcow2':
        clean(tmp_path, 'ours')


# A target that is there: it holds something else before.
@pytest.mark.parametrize('options', [[], ['-S', '0'], ['-W']],
                         ids=' '.join)
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_into_target_that_is_there(sources, tmp_path, fmt, options):
    for name in ('ours', 'theirs'):
        assert qemu_img('create', '-q', '-f', fmt, name, 6 * MIB, cwd=tmp_path).returncode == 0
        write(tmp_path, name, 'write -P 1 0 6M', fmt=fmt)
    line = ['convert', '-n', '-f', 'raw', '-O', fmt, *options, sources / 'sparse.raw']
    assert qemu_img(*line, 'theirs', cwd=tmp_path).returncode == 0
    convert(*line[1:], 'ours', cwd=tmp_path)
    same_disk(tmp_path, 'ours', 'theirs', fmt, fmt)
    assert shape(tmp_path, 'ours', fmt) == shape(tmp_path, 'theirs', fmt)


def test_target_with_a_tail_that_compresses_in_part(sources, tmp_path):
    """The last cluster of the source is no whole one of the target."""
    make(tmp_path, 'ours', 4 * MIB)
    write(tmp_path, 'ours', 'write -P 1 0 4M')
    convert('-n', '-c', '-f', 'raw', '-O', 'qcow2', sources / 'plain.raw', 'ours', cwd=tmp_path)
    raw = tmp_path / 'content'
    assert qemu_img('convert', '-O', 'raw', 'ours', raw, cwd=tmp_path).returncode == 0
    body = (sources / 'plain.raw').read_bytes()
    assert raw.read_bytes() == body + b'\1' * (4 * MIB - len(body))
    clean(tmp_path, 'ours')


def test_base_further_down(sources, tmp_path):
    """What is between the source and the base is copied; the reference leaves it out."""
    for name in ('base.qcow2', 'middle.qcow2', 'top.qcow2'):
        os.link(sources / name, tmp_path / name)
    convert('-f', 'qcow2', '-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2', 'top.qcow2', 'ours',
            cwd=tmp_path)
    same_disk(tmp_path, 'ours', 'top.qcow2', 'qcow2', 'qcow2')


def test_bitmaps(tmp_path):
    make(tmp_path, 'a.qcow2', MIB)
    for line in (['--add', 'a.qcow2', 'b0'], ['--add', '-g', '128k', 'a.qcow2', 'b1'],
                 ['--add', '--disable', 'a.qcow2', 'b2']):
        assert qemu_img('bitmap', *line, cwd=tmp_path).returncode == 0
    write(tmp_path, 'a.qcow2', 'write 0 64k', 'write 512k 4k')
    convert('--bitmaps', '-f', 'qcow2', '-O', 'qcow2', 'a.qcow2', 'b.qcow2', cwd=tmp_path)
    told = [json.loads(qemu_img('info', '--output=json', name, cwd=tmp_path).stdout)
            ['format-specific']['data']['bitmaps'] for name in ('a.qcow2', 'b.qcow2')]
    assert sorted(map(str, told[0])) == sorted(map(str, told[1]))
    clean(tmp_path, 'b.qcow2')


def test_refuses_to_write_over_its_source(tmp_path):
    make(tmp_path, 'a.qcow2', MIB)
    write(tmp_path, 'a.qcow2', 'write -P 7 0 1M')
    before = (tmp_path / 'a.qcow2').read_bytes()
    os.symlink('a.qcow2', tmp_path / 'link')
    for name in ('a.qcow2', 'link'):
        for line in (['convert', '-f', 'qcow2', 'a.qcow2', name],
                     ['convert', '-U', '-f', 'qcow2', 'a.qcow2', name],
                     ['convert', '-n', '-f', 'qcow2', '-O', 'qcow2', 'a.qcow2', name],
                     ['dd', '-f', 'qcow2', 'if=a.qcow2', f'of={name}']):
            done = platter(*line, cwd=tmp_path)
            assert done.returncode == 1 and done.stderr, line
            assert (tmp_path / 'a.qcow2').read_bytes() == before, line


def test_read_error_and_salvage(tmp_path):
    """A compressed cluster that cannot be decompressed."""
    raw = tmp_path / 'a.raw'
    raw.write_bytes(bytes(range(256)) * (4 * CLUSTER // 256))
    assert qemu_img('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, 'a.qcow2', cwd=tmp_path).returncode == 0
    image = bytearray((tmp_path / 'a.qcow2').read_bytes())
    l1 = int.from_bytes(image[40:48], 'big')
    l2 = int.from_bytes(image[l1:l1 + 8], 'big') & 0x00fffffffffffe00
    entry = int.from_bytes(image[l2 + 8:l2 + 16], 'big')
    at = entry & ((1 << 54) - 1)
    image[at:at + 16] = b'\xff' * 16
    (tmp_path / 'a.qcow2').write_bytes(image)
    done = platter('convert', '-f', 'qcow2', '-O', 'raw', 'a.qcow2', 'b.raw', cwd=tmp_path)
    broken = f'platter: convert: warning: compressed cluster at {at:#x} cannot be decompressed'
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        broken, 'platter: convert: error while reading at byte 0: Input/output error']
    done = platter('convert', '--salvage', '-f', 'qcow2', '-O', 'raw', 'a.qcow2', 'b.raw', cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [broken] + [
        f'platter: convert: warning: error while reading offset {at}: Input/output error'
        for at in range(CLUSTER, 2 * CLUSTER, 512)]
    body = raw.read_bytes()
    assert (tmp_path / 'b.raw').read_bytes() == body[:CLUSTER] + bytes(CLUSTER) + body[2 * CLUSTER:]


def test_progress_as_json(sources, tmp_path):
    done = convert('--progress=json', '-f', 'raw', '-O', 'qcow2', sources / 'plain.raw', 'a', cwd=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {'event': 'end', 'ok': True}
    assert lines[-2]['percent'] == 100
    assert all(line['event'] == 'progress' for line in lines[:-1])
    done = platter('convert', '--progress=json', '-f', 'raw', '-O', 'raw', 'missing', 'a', cwd=tmp_path)
    assert done.returncode == 1 and json.loads(done.stdout) == {'event': 'end', 'ok': False}
    assert platter('convert', '--progress=xml', 'a', 'b', cwd=tmp_path).returncode == 2


def test_progress_on_signal_and_end_by_signal(sources, tmp_path):
    """Slow enough to be asked; ended early, the source is as it was."""
    before = (sources / 'plain.raw').read_bytes()
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'convert', '-p', '-r', '256k', '-f', 'raw', '-O',
                           'qcow2', sources / 'plain.raw', tmp_path / 'a'], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.read(10) == '    (0.00/'
            process.send_signal(signal.SIGUSR1)
            assert re.fullmatch(r'    \(\d+\.\d\d/100%\)\n', process.stderr.readline())
            assert '100%)' in process.stdout.readline()
            assert process.stdout.read(10) # something was copied: the job runs
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == -signal.SIGINT
            assert process.stderr.read() == 'platter: convert: ended by a signal: Interrupt\n'
        finally:
            if process.poll() is None:
                process.kill()
    assert (sources / 'plain.raw').read_bytes() == before


@pytest.mark.parametrize('options', [[], ['-o', 'cluster_size=4k'], ['-o', 'extended_l2=on'], ['-c'],
                                     ['-c', '-o', 'compression_type=zstd'], ['-c', '-S', '0']], ids=' '.join)
def test_same_file_each_time(tmp_path, options):
    """Without -W room is given in the order of the disk, whatever is ready first."""
    rng = random.Random(7)
    with open(tmp_path / 'a.raw', 'wb') as f:
        for i in range(160):  # clusters that shrink, that do not, and some zeroes
            f.write((rng.randbytes(65536), rng.randbytes(4096) * 16, bytes(65536))[(i * i) % 7 % 3])
    files = []
    for name in 'bcd':
        convert('-f', 'raw', '-O', 'qcow2', *options, 'a.raw', name, cwd=tmp_path)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] == files[2]
    same_disk(tmp_path, 'b', 'a.raw', 'qcow2', 'raw')
    clean(tmp_path, 'b')
    offsets = [row['offset'] for row in
               json.loads(platter('map', '-f', 'qcow2', '--output=json', 'b', cwd=tmp_path).stdout)
               if 'offset' in row]
    assert offsets == sorted(offsets)
    if '-c' not in options:
        assert '0.00% fragmented' in qemu_img('check', '-f', 'qcow2', 'b', cwd=tmp_path).stdout


def test_same_file_each_time_over_a_backing_file(tmp_path):
    """Zeroes are written then, and take turns with the data: whichever comes first makes the table. With little memory
    tables are read again, so that those that go first are not ready first."""
    rng = random.Random(11)
    with open(tmp_path / 'a.raw', 'wb') as f:
        for i in range(320):  # tables are for 32 KiB
            f.write((rng.randbytes(65536), bytes(65536), bytes(32768) + rng.randbytes(32768))[(i * i) % 7 % 3])
    with open(tmp_path / 'base.raw', 'wb') as f:
        f.write(rng.randbytes(320 * 65536))
    files = []
    for name in 'bcdef':
        convert('-m', '16', '--max-memory', '2M', '-f', 'raw', '-O', 'qcow2', '-B', 'base.raw', '-F', 'raw', '-o',
                'cluster_size=512', 'a.raw', name, cwd=tmp_path)
        files.append((tmp_path / name).read_bytes())
    assert len(set(files)) == 1
    same_disk(tmp_path, 'b', 'a.raw', 'qcow2', 'raw')
    clean(tmp_path, 'b')


def test_memory_limit(sources, tmp_path):
    line = ['-c', '-f', 'raw', '-O', 'qcow2', sources / 'plain.raw', 'a']
    done = platter('convert', '--max-memory', '64k', *line, cwd=tmp_path)
    assert done.returncode == 1
    assert '65536 bytes of memory are too few: ' in done.stderr
    convert('--max-memory', '1M', *line, cwd=tmp_path)
    same_disk(tmp_path, 'a', sources / 'plain.raw', 'qcow2', 'raw')


def test_large_sparse_disk(tmp_path):
    with open(tmp_path / 'a.raw', 'wb') as f:
        f.truncate(1 << 40)
        for at in (0, 12345 << 20, (1 << 40) - 512):
            f.seek(at)
            f.write(b'y' * 512)
    convert('-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2', cwd=tmp_path)
    convert('-f', 'qcow2', '-O', 'raw', 'a.qcow2', 'b.raw', cwd=tmp_path)
    assert os.stat(tmp_path / 'b.raw').st_size == 1 << 40
    assert os.stat(tmp_path / 'b.raw').st_blocks < 4096
    with open(tmp_path / 'b.raw', 'rb') as f:
        for at in (0, 12345 << 20, (1 << 40) - 512):
            f.seek(at)
            assert f.read(512) == b'y' * 512


def test_remote_source(sources, tmp_path):
    with serving('-f', 'raw', '-r', '-k', tmp_path / 'sock', sources / 'sparse.raw') as (_, uri):
        convert('-f', 'raw', '-O', 'qcow2', uri, 'a', cwd=tmp_path)
    same_disk(tmp_path, 'a', sources / 'sparse.raw', 'qcow2', 'raw')


def test_objects_that_options_name(sources, tmp_path):
    source = f'driver=throttle,throttle-group=g,file.driver=raw,file.file.filename={sources / "plain.raw"}'
    convert('--object', 'throttle-group,id=g,limits.bps-total=1000000000', '--image-opts', source, 'a', cwd=tmp_path)
    same_disk(tmp_path, 'a', sources / 'plain.raw', 'raw', 'raw')
    done = platter('convert', '--image-opts', source, 'b', cwd=tmp_path)
    assert done.returncode == 1 and "'g'" in done.stderr


@pytest.mark.parametrize('operands', ['', 'bs=1000 count=3', 'bs=64k skip=3', 'skip=7 count=100',
                                      'bs=1M count=1 skip=1', 'bs=4k skip=100 count=101',
                                      'skip=9999999', 'count=0', 'bs=100k skip=2'])
@pytest.mark.parametrize('target', ['raw', 'qcow2'])
def test_dd_by_its_other_name(sources, tmp_path, target, operands):
    link = called(tmp_path, 'qemu-img')
    line = ['dd', '-f', 'qcow2', '-O', target, f'if={sources / "packed.qcow2"}', *operands.split()]
    theirs = qemu_img(*line, 'of=theirs', cwd=tmp_path)
    ours = run([link, *line, 'of=ours'], cwd=tmp_path)
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr)
    same_disk(tmp_path, 'ours', 'theirs', target, target)
    assert shape(tmp_path, 'ours', target) == shape(tmp_path, 'theirs', target)


def test_random_chains(tmp_path):
    rng = random.Random(int(os.environ.get('PLATTER_SEED', '11')))
    for round_ in range(4):
        folder = tmp_path / str(round_)
        folder.mkdir()
        size = 512 * rng.randrange(1, 6000)
        make(folder, 'i0', size)
        for i in range(rng.randrange(4)):
            make(folder, f'i{i + 1}', size, backing=f'i{i}',
                 options=('-o', f'cluster_size={1 << rng.randrange(12, 18)}'))
            scribble(folder, f'i{i + 1}', size, rng)
            last = f'i{i + 1}'
        last = sorted(name for name in os.listdir(folder))[-1]
        options = rng.choice([[], ['-c'], ['-o', f'cluster_size={1 << rng.randrange(9, 18)}']])
        convert('-f', 'qcow2', '-O', 'qcow2', *options, last, 'out', cwd=folder)
        same_disk(folder, 'out', last, 'qcow2', 'qcow2')
        clean(folder, 'out')


def test_target_that_is_said_to_be_zero(sources, tmp_path):
    """Where the source has holes it is left alone."""
    (tmp_path / 'a').write_bytes(b'\1' * 4 * MIB)
    convert('-n', '--target-is-zero', '-f', 'raw', '-O', 'raw', sources / 'sparse.raw', 'a', cwd=tmp_path)
    body = (tmp_path / 'a').read_bytes()
    assert body[:4096] == b'\1' * 4096 and body[4096:8192] == b'x' * 4096


@pytest.mark.parametrize('options', [[], ['-c'], ['-S', '0']], ids=' '.join)
def test_source_without_what_the_backing_file_holds(options, tmp_path):
    """Where it has no layer below, or one that ends earlier, its holes are zeroes; they hide the backing file."""
    (tmp_path / 'base').write_bytes(b'\7' * 4 * MIB)
    (tmp_path / 'short').write_bytes(b'\7' * (MIB + 512))
    qemu_img('create', '-q', '-f', 'qcow2', 'alone', '4M', cwd=tmp_path)
    qemu_img('create', '-q', '-f', 'qcow2', '-b', 'short', '-F', 'raw', 'above', '4M', cwd=tmp_path)
    for name in ('alone', 'above'):
        write(tmp_path, name, 'write -q -P 9 64k 64k', 'write -q -P 9 3M 64k')
        convert('-f', 'qcow2', '-O', 'qcow2', *options, '-B', 'base', '-F', 'raw', name, 'out', cwd=tmp_path)
        same_disk(tmp_path, 'out', name, 'qcow2', 'qcow2')
        clean(tmp_path, 'out')


def test_target_over_a_backing_file_is_not_zero(sources, tmp_path):
    (tmp_path / 'a').write_bytes(b'\1' * 4 * MIB)
    done = platter('convert', '-n', '--target-is-zero', '-B', 'b', '-F', 'raw', '-f', 'raw', '-O', 'raw',
                   sources / 'sparse.raw', 'a', cwd=tmp_path)
    assert done.returncode != 0 and 'Cannot use --target-is-zero' in done.stderr
    assert (tmp_path / 'a').read_bytes() == b'\1' * 4 * MIB


def test_preallocated_target(sources, tmp_path):
    for prealloc in ('metadata', 'falloc', 'full'):
        convert('-f', 'raw', '-O', 'qcow2', '-o', f'preallocation={prealloc}', sources / 'plain.raw', 'a',
                cwd=tmp_path)
        same_disk(tmp_path, 'a', sources / 'plain.raw', 'qcow2', 'raw')
        assert all(row[3] for row in shape(tmp_path, 'a', 'qcow2').values())
        clean(tmp_path, 'a')


@needs('qcow2')
def test_over_an_image_that_cannot_grow(tmp_path):
    """What clearing it frees is written again, where it is."""
    (tmp_path / 'a.raw').write_bytes(random.Random(3).randbytes(8 << 20))
    assert qemu_img('convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 't.qcow2', cwd=tmp_path).returncode == 0
    size = os.path.getsize(tmp_path / 't.qcow2')
    target = f'driver=qcow2,file.driver=raw,file.size={size},file.file.driver=file,file.file.filename=t.qcow2'
    done = platter('convert', '-n', '-f', 'raw', '--target-image-opts', 'a.raw', target, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_disk(tmp_path, 'a.raw', 't.qcow2', 'raw', 'qcow2')
    clean(tmp_path, 't.qcow2')
