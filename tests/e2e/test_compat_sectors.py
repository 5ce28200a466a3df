# SPDX-License-Identifier: MIT
"""Files whose size is no multiple of 512: under the names of the installed tools a disk has whole
sectors, as theirs; under its own a disk has the bytes of its file, and no command fails on it."""
import hashlib
import json
import random
import re

import pytest

from tools_common import called, needs, platter, qemu, run

pytestmark = needs('qcow2')

# Each is a few commands in a folder with the files of FILES.
LINES = [
    'qemu-img info FILE',
    'qemu-img info --output=json FILE',
    'qemu-img map -f raw FILE',
    'qemu-img map --output=json -f raw FILE',
    'qemu-img measure -O raw FILE',
    'qemu-img measure -O qcow2 -o cluster_size=512 FILE',
    'qemu-img resize -f raw FILE +1',
    'qemu-img resize -f raw FILE 1001',
    'qemu-img resize -f raw --shrink FILE 700',
    'qemu-img convert -f raw -O raw FILE out; qemu-img compare -f raw -F raw FILE out',
    'qemu-img convert -C -f raw -O raw FILE out',
    'qemu-img convert -T none -t none -f raw -O raw FILE out',
    'qemu-img convert -f raw -O qcow2 FILE q; qemu-img compare -f raw -F qcow2 FILE q; '
    'qemu-img map --output=json q; qemu-img convert -f qcow2 -O raw q out',
    'qemu-img dd -f raw bs=100 skip=3 if=FILE of=out',
    'qemu-img dd -f raw bs=100 skip=3 count=7 if=FILE of=out',
    'qemu-img dd -f raw bs=100 skip=3 count=2 if=FILE of=out',
    'qemu-img convert -f raw -O raw FILE FILE out',
    'qemu-img convert -f raw -O qcow2 FILE FILE large q; qemu-img map --output=json q; '
    'qemu-img convert -f qcow2 -O raw q out',
    'qemu-img create -f qcow2 -F raw -b FILE q; qemu-io -f qcow2 -c "write -P 3 600 20" q; '
    'qemu-img map --output=json q; qemu-img commit q',
    'qemu-img bench -w -c 3 -s 512 -f raw FILE',
    'qemu-io -f raw -c length -c "read 512 512" -c "write -P 7 990 30" -c length FILE',
    'qemu-io -f raw -c "write -z 512 512" -c map -c length FILE',
    'qemu-io -f raw -d unmap -c "write -zu 512 512" -c "read -P 0 512 512" FILE',
    'qemu-io -f raw -c "discard 512 512" -c map -c "alloc 512 512" FILE',
    'qemu-io -f raw -n -c "read -v 990 34" -c "write -P 5 980 44" FILE',
    'qemu-io -f raw -c "truncate 1000" -c length -c "truncate 1025" -c "read -v 1024 20" FILE',
    'qemu-io -f raw -c "read 70144 1" -c "write 70000 144" FILE',
    'qemu-img info --image-opts driver=raw,file.filename=FILE,offset=1000',
]
FILES = {'small': 1000, 'large': 70000}


@pytest.fixture(scope='module')
def links(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {program: called(folder, program) for program in ('qemu-img', 'qemu-io')}


def make_files(folder):
    folder.mkdir()
    for name, size in FILES.items():
        (folder / name).write_bytes(bytes(range(1, 251)) * (size // 250))


def masked(text):
    text = re.sub(r'(disk size: |"actual-size": ).*', r'\1SIZE', text)
    return re.sub(r'\d\d\.\d\d sec \(.*/sec\)|in \d+\.\d+ seconds', 'TIME', text)


def outcome(programs, line, folder):
    make_files(folder)
    told = []
    for command in line.split('; '):
        words = [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', command)]
        done = run([programs.get(words[0], words[0]), *words[1:]], cwd=folder)
        told.append((masked(done.stdout), masked(done.stderr), done.returncode))
    held = {path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in folder.iterdir() if path.name != 'q'}
    return told, held


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('line', LINES)
def test_same(line, name, links, tmp_path):
    line = line.replace('FILE', name)
    assert outcome(links, line, tmp_path / 'ours') == outcome({}, line, tmp_path / 'theirs')


@pytest.mark.parametrize('size', [1, 511, 513, 1000, 70000])
def test_own_name(size, tmp_path):
    """The disk has the bytes of the file; what has sectors ends with zeroes."""
    disk = tmp_path / 'disk'
    disk.write_bytes(b'\x5a' * size)
    assert json.loads(platter('info', '-f', 'raw', '--output=json', disk).stdout)['virtual-size'] == size
    ours = platter('measure', '-f', 'raw', '-O', 'qcow2', disk)
    assert (ours.returncode, ours.stdout) == \
        (0, qemu('qemu-img', 'measure', '-f', 'raw', '-O', 'qcow2', disk).stdout)
    assert platter('convert', '-f', 'raw', '-O', 'qcow2', disk, tmp_path / 'q').returncode == 0
    assert platter('convert', '-f', 'qcow2', '-O', 'raw', tmp_path / 'q', tmp_path / 'raw').returncode == 0
    assert (tmp_path / 'raw').read_bytes() == b'\x5a' * size + bytes(-size % 512)
    ours = platter('measure', '-f', 'raw', '-O', 'raw', disk)
    assert ours.stdout.split('\n')[0] == f'required size: {size}'
    ours = platter('measure', '--size', size, '-O', 'raw')
    assert ours.stdout.split('\n')[0] == f'required size: {size}'


@pytest.mark.parametrize('options', ['', '-S 0', '-C', '-T none -t none', '-m 16 -W', '--salvage', '--journal j'])
@pytest.mark.parametrize('size', [1, 511, 1000, 70000, (3 << 20) + 1])
def test_copies_have_the_bytes_of_the_disk(options, size, tmp_path):
    body = random.Random(size).randbytes(size)
    (tmp_path / 'disk').write_bytes(body)
    assert platter('convert', *options.split(), '-f', 'raw', '-O', 'raw', 'disk', 'out', cwd=tmp_path).returncode == 0
    assert (tmp_path / 'out').read_bytes() == body
    (tmp_path / 'out').write_bytes(b'x' * (size + 700))  # what is behind is not the copy's
    line = ['convert', '-n', '-f', 'raw', '-O', 'raw', 'disk', 'out']
    assert platter(*line, cwd=tmp_path).returncode == 0
    assert (tmp_path / 'out').read_bytes() == body + b'x' * 700


def test_several_disks_follow_each_other(tmp_path):
    bodies = [random.Random(size).randbytes(size) for size in (1000, 1, 0, 70000, 511)]
    for i, body in enumerate(bodies):
        (tmp_path / str(i)).write_bytes(body)
    want = b''.join(bodies)
    for options in ([], ['-C'], ['-S', '0']):
        done = platter('convert', *options, '-f', 'raw', '-O', 'raw', *'01234', 'out', cwd=tmp_path)
        assert (done.returncode, (tmp_path / 'out').read_bytes()) == (0, want)
    (tmp_path / 'want').write_bytes(want)
    for options in ([], ['-c'], ['-o', 'cluster_size=512'], ['-S', '0']):
        done = platter('convert', *options, '-f', 'raw', '-O', 'qcow2', *'01234', 'q', cwd=tmp_path)
        assert done.returncode == 0
        assert qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', 'want', 'q', cwd=tmp_path).returncode == 0


def test_compressed_to_the_end(tmp_path):
    """The last cluster too, though the disk is a little larger than what is copied."""
    (tmp_path / 'disk').write_bytes(b'line' * 50001)
    assert platter('convert', '-c', '-f', 'raw', '-O', 'qcow2', 'disk', 'q', cwd=tmp_path).returncode == 0
    assert '100.00% compressed' in qemu('qemu-img', 'check', 'q', cwd=tmp_path).stdout


@pytest.mark.parametrize('size', [1, 1000, 70000])
def test_dd(size, tmp_path):
    """count= is of what comes behind skip=, as everywhere; raw output has just those bytes."""
    body = random.Random(size).randbytes(size)
    (tmp_path / 'disk').write_bytes(body)
    for block, skip, count in ((100, 0, None), (100, 2, None), (100, 2, 3), (7, 5, 1), (1000, 1, 5), (100, 0, 0),
                               (1, size, None), (1, size, 5), (1 << 30, 0, 1 << 40)):
        words = [f'bs={block}', f'skip={skip}', *([] if count is None else [f'count={count}'])]
        done = platter('dd', '-f', 'raw', *words, 'if=disk', 'of=out', cwd=tmp_path)
        assert done.returncode == 0
        at = block * skip
        assert ('cannot skip' in done.stderr) == (at > size)
        assert (tmp_path / 'out').read_bytes() == body[at:None if count is None else at + block * count]
        done = platter('dd', '-f', 'raw', '-O', 'qcow2', *words, 'if=disk', 'of=q', cwd=tmp_path)
        assert done.returncode == 0
        assert qemu('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', 'out', 'q', cwd=tmp_path).returncode == 0
