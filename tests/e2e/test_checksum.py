# SPDX-License-Identifier: MIT
"""platter checksum: the same hash for the same content, as doc/format/checksum.md defines it."""
import hashlib
import json
import os
import random
import re
import subprocess

import pytest

from tools_common import needs, platter, qemu, serving

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def documented():
    """tree1 of the document."""
    with open(os.path.join(TOP, 'doc/format/checksum.md'), encoding='utf-8') as f:
        code = re.search(r'```python\n(.*?)```', f.read(), re.S).group(1)
    names = {}
    exec(code, names)  # pylint: disable=exec-used
    return names['tree1']


tree1 = documented()
MIB = 1 << 20
SIZES = [0, 1, 511, 512, MIB - 1, MIB, MIB + 1, 3 * MIB, 4 * MIB, 5 * MIB + 777]


def content(size, seed=1):
    """Data, zeroes that are written, and holes, on borders of chunks and off them."""
    rng = random.Random(seed)
    data = bytearray(size)
    for _ in range(6 if size else 0):
        at = rng.randrange(size)
        n = rng.choice([1, 512, 70000, MIB])
        data[at:at + n] = rng.randbytes(len(data[at:at + n]))
    return bytes(data)


def sparse(path, data):
    """data in a file, with holes where it is zero."""
    with open(path, 'wb') as f:
        f.truncate(len(data))
        for at in range(0, len(data), 4096):
            if data[at:at + 4096].strip(b'\0'):
                f.seek(at)
                f.write(data[at:at + 4096])
    return path


def checksum(*arguments):
    done = platter('checksum', *arguments)
    assert (done.returncode, done.stderr) == (0, '')
    return [line.split('  ')[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('algorithm', ['sha256', 'sha512'])
def test_as_documented(tmp_path, size, algorithm):
    data = content(size)
    (tmp_path / 'full').write_bytes(data)
    sparse(tmp_path / 'sparse', data)
    arguments = ['-f', 'raw', '-a', algorithm, tmp_path / 'full', tmp_path / 'sparse']
    assert checksum(*arguments) == 2 * [tree1(data, algorithm)]
    assert checksum('--flat', *arguments) == 2 * [hashlib.new(algorithm, data).hexdigest()]


def test_size_and_every_byte_count(tmp_path):
    seen = {}
    for name, data in {'zeroes': bytes(2 * MIB), 'more': bytes(3 * MIB), 'less': bytes(2 * MIB - 1),
                       'none': b'', 'last': bytes(2 * MIB - 1) + b'\1', 'first': b'\1' + bytes(2 * MIB - 1),
                       'swapped': bytes(MIB) + b'\1' + bytes(MIB - 1)}.items():
        (tmp_path / name).write_bytes(data)
        seen[name], = checksum('-f', 'raw', tmp_path / name)
    assert len(set(seen.values())) == len(seen)


@needs('qcow2')
def test_every_image_of_a_disk(tmp_path):
    data = content(6 * MIB, 3)
    raw = sparse(tmp_path / 'd.raw', data)
    base = sparse(tmp_path / 'base.raw', bytes(MIB) + data[MIB:4 * MIB])
    images = []
    for number, options in enumerate([[], ['-o', 'cluster_size=512'], ['-o', 'extended_l2=on'], ['-c'],
                                      ['-o', 'cluster_size=2M'], ['-S', '0'],
                                      ['-B', base, '-F', 'raw']]):
        images.append(tmp_path / f'{number}.qcow2')
        assert qemu('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', *options, raw,
                    images[-1]).returncode == 0
    assert checksum('-f', 'qcow2', *images) == len(images) * [tree1(data)]
    assert checksum('-f', 'qcow2', '--flat', *images) == len(images) * [hashlib.sha256(data).hexdigest()]
    options = f'driver=qcow2,file.driver=file,file.filename={images[0]}'
    assert checksum('--image-opts', options) == [tree1(data)]


@needs('nbd')
def test_of_an_export(tmp_path):
    data = content(5 * MIB, 4)
    raw = sparse(tmp_path / 'd.raw', data)
    with serving('-f', 'raw', '-r', '-k', tmp_path / 's', raw) as (_, uri):
        assert checksum('-f', 'raw', uri) == [tree1(data)]


def test_holes_cost_nothing(tmp_path):
    """A disk of 4 TiB with 100 bytes of data near its middle."""
    raw = tmp_path / 'd.raw'
    with open(raw, 'wb') as f:
        f.truncate(1 << 42)
        f.seek((1 << 41) + 12345)
        f.write(b'x' * 100)
    answers = json.loads(platter('checksum', '-f', 'raw', '--output=json', raw).stdout)
    assert answers[0]['read-bytes'] <= 2 * MIB
    assert answers[0]['virtual-size'] == 1 << 42
    # the same, worked out by the definition from the nodes that are not zero
    def h(d):
        return hashlib.sha256(d).digest()
    chunk = bytearray(MIB)
    chunk[12345:12445] = b'x' * 100
    node, zero, number = h(chunk), h(bytes(MIB)), (1 << 41) // MIB
    for _ in range(22):
        node = h(zero + node if number & 1 else node + zero)
        zero, number = h(zero + zero), number >> 1
    assert answers[0]['checksum'] == 'tree1-sha256:' + h(b'platter-tree1' + (1 << 42).to_bytes(8, 'big') + node).hex()


@needs('null-co')
def test_largest_disk():
    size = (1 << 63) - 512
    done = platter('checksum', '--image-opts', f'driver=null-co,size={size},read-zeroes=on')
    node = hashlib.sha256(bytes(MIB)).digest()
    for _ in range(43):
        node = hashlib.sha256(node + node).digest()
    want = hashlib.sha256(b'platter-tree1' + size.to_bytes(8, 'big') + node).hexdigest()
    assert done.stdout.split('  ')[0] == 'tree1-sha256:' + want, done.stderr


@pytest.fixture(name='raw')
def raw_fixture(tmp_path):
    return sparse(tmp_path / 'd.raw', content(2 * MIB))


def test_verify(tmp_path, raw):
    data = raw.read_bytes()
    other = tmp_path / 'other'
    other.write_bytes(data[:-1] + b'\xfe')
    good, flat = tree1(data), hashlib.sha256(data).hexdigest()
    for arguments, code, out in [
            (['--verify', good, raw], 0, f'{raw}: OK\n'),
            (['--verify', good, '-q', raw], 0, ''),
            (['--verify', good, raw, other], 1, f'{raw}: OK\n{other}: FAILED\n'),
            (['--verify', good, '-q', other], 1, ''),
            (['--verify', good[:-1] + ('0' if good[-1] != '0' else '1'), raw], 1, f'{raw}: FAILED\n'),
            (['--verify', tree1(data, 'sha384'), raw], 0, f'{raw}: OK\n'),
            (['--flat', '--verify', flat.upper(), raw], 0, f'{raw}: OK\n'),
            (['--flat', '--verify', flat, other], 1, f'{other}: FAILED\n')]:
        done = platter('checksum', '-f', 'raw', *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (code, out, '')
    answers = json.loads(platter('checksum', '-f', 'raw', '--verify', good, '--output=json', raw, other).stdout)
    assert [a['same'] for a in answers] == [True, False]
    assert [a['filename'] for a in answers] == [str(raw), str(other)]


def test_one_that_fails_hides_no_other(raw):
    done = platter('checksum', '-f', 'raw', 'nowhere', raw)
    assert done.returncode == 2
    assert "nowhere" in done.stderr and 'No such file' in done.stderr
    assert done.stdout == f'{tree1(raw.read_bytes())}  {raw}\n'


def test_read_error_is_told(raw):
    done = platter('checksum', '--image-opts', 'driver=blkdebug,image.driver=raw,inject-error.0.event=none,'
                   f'inject-error.0.iotype=read,image.file.driver=file,image.file.filename={raw}')
    assert done.returncode == 2
    assert 'reading' in done.stderr and 'Input/output error' in done.stderr
    assert done.stdout == ''


def test_progress(raw):
    assert '(100.00/100%)' in platter('checksum', '-p', '-f', 'raw', raw).stdout


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['-a', 'md5', 'a'], "no algorithm 'md5'"),
    (['--verify', 'x', 'a'], "'x' is no hash of a tree"),
    (['--verify', 'tree1-sha256:12', 'a'], '64 hexadecimal digits'),
    (['--verify', 'tree1-sha256:' + 64 * 'g', 'a'], '64 hexadecimal digits'),
    (['--verify', 'tree1-md5:12', 'a'], "no algorithm 'md5'"),
    (['--verify', 'tree1-sha512:12', '-a', 'sha256', 'a'], 'is not of the algorithm sha256'),
    (['--flat', '--verify', 'tree1-sha256:' + 64 * '0', 'a'], 'is no hash of --flat'),
    (['--flat', '--verify', '00', 'a'], '64 hexadecimal digits'),
    (['--output=xml', 'a'], "no output form 'xml'"),
    (['-f', 'raw', '--image-opts', 'a'], 'exclude each other'),
])
def test_refuses(arguments, message):
    done = platter('checksum', *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_names_of_any_bytes(tmp_path):
    name = os.fsencode(tmp_path) + b'/d\xff.raw'
    with open(name, 'wb') as disk:
        disk.write(bytes(512))
    for line in ['checksum -f raw --output=json', 'inspect -f raw --output=json']:
        done = subprocess.run([os.environ['PLATTER_BIN'], *line.split(), name], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        answer = answer[0] if isinstance(answer, list) else answer
        assert answer['filename'].endswith('/d\ufffd.raw')
