# SPDX-License-Identifier: MIT
"""New qcow2 images are byte for byte those of the reference, and what it refuses is refused."""
import os
import random

import pytest

from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

SEED = int(os.environ.get('PLATTER_SEED', '20250111'))
SAMPLES = int(os.environ.get('PLATTER_ROUNDS', '60'))
CLUSTERS = ['512', '1k', '2k', '4k', '8k', '16k', '32k', '64k', '128k', '512k', '1M', '2M']
LONG_NAME = '/' + './' * 140 + 'nowhere.raw'


def random_options(rng):
    """Options and a size; now and then such as exclude each other."""
    o = {}
    if rng.random() < .8:
        o['cluster_size'] = rng.choice(CLUSTERS)
    if rng.random() < .4:
        o['refcount_bits'] = rng.choice([1, 2, 4, 8, 16, 32, 64])
    if rng.random() < .2:
        o['compat'] = rng.choice(['v2', 'v3', '0.10', '1.1'])
    if rng.random() < .2:
        o['lazy_refcounts'] = rng.choice(['on', 'off'])
    if rng.random() < .25:
        o['extended_l2'] = 'on'
    if rng.random() < .2:
        o['compression_type'] = rng.choice(['zlib', 'zstd'])
    if rng.random() < .2:
        o['data_file'] = 'data.raw'
    if rng.random() < .1:
        o['data_file_raw'] = 'on'
    if rng.random() < .3:
        o['backing_file'] = rng.choice(['base.raw', LONG_NAME])
        o['backing_fmt'] = 'raw'
    if rng.random() < .35 or 'data_file_raw' in o:
        o['preallocation'] = rng.choice(['off', 'metadata', 'falloc', 'full'])
        size = rng.choice([0, 1, 511, 512, 513, 65536, 100000, 1 << 20, (3 << 20) + 512,
                           rng.randrange(1, 6 << 20)])
    else:
        size = rng.choice([0, 1, 513, 65536, 1 << 30, (1 << 30) + 1, 1 << 40, (128 << 30) + 1,
                           1 << 47, 1 << 52, 1 << 57, 1 << 61,
                           rng.randrange(1, 1 << 36), rng.randrange(1, 1 << 44)])
    return o, size


def arguments(options, size):
    pairs = ','.join(f'{k}={v}' for k, v in options.items())
    return ['-q', '-u', '-f', 'qcow2', *(['-o', pairs] if pairs else []), 'i.qcow2', size]


def same_bytes(a, b):
    if not a.exists() or not b.exists():
        return a.exists() == b.exists()
    if a.stat().st_size != b.stat().st_size:
        return False
    if a.stat().st_size > 256 << 20:  # data files: holes
        return max(a.stat().st_blocks, b.stat().st_blocks) <= 8
    with open(a, 'rb') as x, open(b, 'rb') as y:
        while True:
            left, right = x.read(1 << 20), y.read(1 << 20)
            if left != right:
                return False
            if not left:
                return True


def compare(tmp_path, options, size):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for folder in (ours, theirs):
        folder.mkdir(exist_ok=True)
        for name in ('i.qcow2', 'data.raw'):
            (folder / name).unlink(missing_ok=True)
    a = platter('create', *arguments(options, size), cwd=ours)
    b = qemu('qemu-img', 'create', *arguments(options, size), cwd=theirs)
    where = f'PLATTER_SEED={SEED}: {arguments(options, size)}\n{a.stderr}{b.stderr}'
    assert (a.returncode == 0) == (b.returncode == 0), where
    if b.returncode == 0:
        assert same_bytes(ours / 'i.qcow2', theirs / 'i.qcow2'), where
        assert same_bytes(ours / 'data.raw', theirs / 'data.raw'), where
    else:
        assert not (ours / 'i.qcow2').exists(), where
    return b.returncode == 0


def test_random_options_give_the_same_bytes(tmp_path):
    rng = random.Random(SEED)
    made = sum(compare(tmp_path, *random_options(rng)) for _ in range(SAMPLES))
    assert made > SAMPLES // 3


@pytest.mark.parametrize('options, size', [
    ({}, 0), ({}, 1), ({}, 1 << 30),
    ({'compat': 'v2'}, 1 << 30),
    ({'cluster_size': '512'}, 16 << 30),
    ({'cluster_size': '2M'}, 1 << 61),
    ({'cluster_size': '2M', 'extended_l2': 'on'}, 1 << 60),
    ({'preallocation': 'metadata'}, 5 << 20),
    ({'preallocation': 'falloc'}, 5 << 20),
    ({'preallocation': 'full'}, 5 << 20),
    ({'preallocation': 'full'}, 0),
    ({'cluster_size': '512', 'refcount_bits': 64, 'preallocation': 'falloc'}, 3 << 20),
    ({'extended_l2': 'on', 'preallocation': 'metadata'}, 100000),
    ({'data_file': 'data.raw', 'preallocation': 'falloc'}, 3 << 20),
    ({'data_file': 'data.raw', 'data_file_raw': 'on'}, 100000),
    ({'cluster_size': '512', 'backing_file': 'b' * 376, 'backing_fmt': 'raw'}, 1 << 20),
    ({'cluster_size': '512', 'backing_file': 'b' * 377, 'backing_fmt': 'raw'}, 1 << 20),
    ({'cluster_size': '2k', 'backing_file': 'b' * 1023, 'backing_fmt': 'raw'}, 1 << 20),
    ({'backing_file': 'b' * 1024, 'backing_fmt': 'raw'}, 1 << 20),
])
def test_chosen_options_give_the_same_bytes(tmp_path, options, size):
    compare(tmp_path, options, size)


def test_a_data_file_is_where_the_image_looks_for_it(tmp_path):
    """In the image's folder, as a backing file; the reference takes both from the folder it runs in."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for command in (('create', '-f', 'qcow2', '-o', 'data_file=d.raw,data_file_raw=on', 'images/d.qcow2', '1M'),
                    ('io', '-f', 'qcow2', '-c', 'write -P 7 64k 4k', 'images/d.qcow2')):
        done = platter(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / 'd.raw').exists()
    assert (folder / 'd.raw').read_bytes()[65536:65536 + 4096] == b'\7' * 4096


@pytest.mark.parametrize('options, size, message', [
    ('cluster_size=256', '1M', 'Cluster size must be a power of two between 512 and 2048k'),
    ('cluster_size=513', '1M', 'Cluster size must be a power of two'),
    ('cluster_size=4M', '1M', 'Cluster size must be a power of two'),
    ('refcount_bits=0', '1M', 'Refcount width must be a power of two'),
    ('refcount_bits=3', '1M', 'Refcount width must be a power of two'),
    ('refcount_bits=128', '1M', 'Refcount width must be a power of two'),
    ('compat=v2,refcount_bits=8', '1M', 'compatibility level 1.1'),
    ('compat=v2,lazy_refcounts=on', '1M', 'compatibility level 1.1'),
    ('compat=v2,extended_l2=on', '1M', 'compatibility level 1.1'),
    ('compat=v2,compression_type=zstd', '1M', 'compatibility level 1.1'),
    ('compat=v2,data_file=data.raw', '1M', 'compatibility level 1.1'),
    ('compat=0.9', '1M', "'compat' does not accept value '0.9'"),
    ('compression_type=lzma', '1M', "'compression_type' does not accept value 'lzma'"),
    ('preallocation=some', '1M', "'preallocation' does not accept value 'some'"),
    ('extended_l2=on,cluster_size=8k', '1M', 'at least 16384 bytes'),
    ('data_file_raw=on', '1M', 'data-file-raw requires data-file'),
    ('data_file=i.qcow2', '1M', 'cannot be the image itself'),
    ('data_file=data.raw,data_file_raw=on,backing_file=x,backing_fmt=raw', '1M',
     'cannot be used at the same time'),
    ('backing_file=x,backing_fmt=raw,preallocation=full', '1M', 'only be used at the same time'),
    ('backing_fmt=raw', '1M', 'Backing format cannot be used without backing file'),
    ('backing_file=x', '1M', 'Backing file specified without backing format'),
    ('backing_file=x,backing_fmt=nope', '1M', "'backing-fmt' does not accept value 'nope'"),
    ('backing_file=,backing_fmt=raw', '1M', 'got empty string'),
    ('', '4E', 'too large for file format'),
    ('cluster_size=512', '129G', 'too large for file format'),
    ('encryption=on', '1M', "'encryption'"),
])
def test_refused(tmp_path, options, size, message):
    """An image that is there already stays what it was."""
    there = tmp_path / 'i.qcow2'
    there.write_bytes(b'precious')
    arguments_ = ['-q', '-u', '-f', 'qcow2', *(['-o', options] if options else []), 'i.qcow2', size]
    done = platter('create', *arguments_, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert there.read_bytes() == b'precious'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['i.qcow2']


def test_size_comes_from_the_backing_file(tmp_path):
    (tmp_path / 'base.raw').write_bytes(bytes(3 << 20))
    done = platter('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'i.qcow2',
                   cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    theirs = qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw',
                  'theirs.qcow2', cwd=tmp_path)
    assert theirs.returncode == 0
    assert same_bytes(tmp_path / 'i.qcow2', tmp_path / 'theirs.qcow2')


@pytest.mark.parametrize('arguments_, message', [
    (['-b', 'nothing.raw', '-F', 'raw', 'i.qcow2', '1M'], 'Could not open the backing file'),
    (['-b', 'i.qcow2', '-F', 'raw', 'i.qcow2', '1M'], 'cannot be its own backing file'),
    (['-b', 'base.raw', 'i.qcow2'], 'without backing format'),
    (['-b', 'base.raw', '-o', 'backing_file=x', 'i.qcow2'], 'given twice'),
    (['-u', '-b', 'nothing.raw', '-F', 'raw', 'i.qcow2'], 'needs a size'),
])
def test_backing_files_that_are_refused(tmp_path, arguments_, message):
    (tmp_path / 'base.raw').write_bytes(bytes(512))
    done = platter('create', '-q', '-f', 'qcow2', *arguments_, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not (tmp_path / 'i.qcow2').exists()


def test_options_are_listed():
    done = platter('create', '-f', 'qcow2', '-o', 'help')
    theirs = qemu('qemu-img', 'create', '-f', 'qcow2', '-o', 'help').stdout.splitlines()
    ours = done.stdout.splitlines()
    assert ours[0] == theirs[0]
    encryption = ('  encrypt.', '  encryption')
    for line in theirs[1:]:
        if line.startswith('  ') and not line.startswith(encryption):
            assert line in ours
