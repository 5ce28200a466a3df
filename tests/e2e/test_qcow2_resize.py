# SPDX-License-Identifier: MIT
"""Resizing qcow2: the same bytes as the reference, and content that is right where it is not."""
import os
import random
import shutil

import pytest

from qcow2_image import Image, differing
from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

MODES = ['off', 'metadata', 'falloc', 'full']
KINDS = ['cluster_size=64k', 'cluster_size=512', 'cluster_size=4k,compat=0.10',
         'cluster_size=4k,refcount_bits=1', 'cluster_size=512,refcount_bits=64',
         'cluster_size=16k,extended_l2=on']


def qemu_img(*arguments, cwd=None):
    return qemu('qemu-img', *arguments, cwd=cwd)


def qemu_io(path, *commands):
    return ok(qemu('qemu-io', *[word for c in commands for word in ('-c', c)], path))


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def clean(path):
    ok(qemu_img('check', path))


def pair(tmp_path, options, size, *writes, backing=None):
    ours = tmp_path / 'ours.qcow2'
    below = ['-b', backing, '-F', 'raw'] if backing else []
    ok(qemu_img('create', '-q', '-f', 'qcow2', '-o', options, *below, ours, size))
    if writes:
        qemu_io(ours, *writes)
    return ours, shutil.copy(ours, tmp_path / 'theirs.qcow2')


def different(ours, theirs):
    """What a free cluster held last is not compared. A refcount table, or a block, that is given up
    does not get the changes any more that are in the new one: no table is written before the blocks
    that it refers to are durable (W2)."""
    return differing(ours, theirs, free=False)


def resize(ours, theirs, size, mode='off'):
    arguments = ['resize', '-q', '--shrink', f'--preallocation={mode}']
    a = platter(*arguments, ours, size)
    b = qemu_img(*arguments, theirs, size)
    assert (a.returncode, a.stdout) == (b.returncode, b.stdout), a.stderr + b.stderr
    return a


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('options', KINDS)
def test_growing_writes_the_same_bytes(tmp_path, options, mode):
    ours, theirs = pair(tmp_path, options, '1M', 'write -q -P 1 64k 200k',
                        'write -q -P 2 1000k 24k')
    for size in ('1536k', '3M', '9M'):
        resize(ours, theirs, size, mode)
        assert different(ours, theirs) == []
        clean(ours)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('options', KINDS)
def test_growing_from_inside_a_cluster(tmp_path, options, mode):
    ours, theirs = pair(tmp_path, options, 1049088, 'write -q -P 1 64k 200k',
                        'write -q -P 2 1048576 512')
    resize(ours, theirs, '3M', mode)
    assert different(ours, theirs) == []
    qemu_io(ours, 'read -q -P 2 1048576 512', 'read -q -P 0 1049088 2096640')
    clean(ours)


STEPS = {
    'the area ends where a block ends': (
        'cluster_size=512,refcount_bits=64', 512000, [(667648, 'falloc')]),
    'blocks in front of the area are missing': (
        'cluster_size=512,refcount_bits=64', 1219584,
        ['write -q -P 5 483328 154624', (1507328, 'metadata'), 'write -q -P 7 448512 154624',
         (3620864, 'metadata'), (65536, 'off'), (712704, 'falloc')]),
    'the last cluster is where the next one should go on': (
        'cluster_size=4k,compat=0.10', 515584,
        ['write -q -P 5 175104 251392', 'write -q -P 5 498688 16896', (3845120, 'falloc'),
         'write -q -P 7 3771392 61952', (4380160, 'metadata')]),
    'clusters go on behind a table that lies elsewhere': (
        'cluster_size=4k', '1M',
        ['write -q -P 1 0 1M', (1278464, 'off'), 'write -q -P 1 1277952 512',
         'discard -q 256k 256k', (4358144, 'metadata')]),
}


@pytest.mark.parametrize('case', STEPS)
def test_steps_write_the_same_bytes(tmp_path, case):
    options, size, steps = STEPS[case]
    ours, theirs = pair(tmp_path, options, size)
    for step in steps:
        if isinstance(step, str):
            qemu_io(ours, step)
            qemu_io(theirs, step)
        else:
            resize(ours, theirs, *step)
        assert different(ours, theirs) == []
    clean(ours)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('options', ['cluster_size=64k', 'cluster_size=512',
                                     'cluster_size=64k,compat=0.10'])
def test_growing_over_a_longer_backing_file(tmp_path, options, mode):
    base = tmp_path / 'base.raw'
    base.write_bytes(b'\7' * (4 << 20))
    ours, theirs = pair(tmp_path, options, '1M', 'write -q -P 1 64k 64k', backing=base)
    done = resize(ours, theirs, '3M', mode)
    if done.returncode == 0:
        qemu_io(ours, 'read -q -P 0 1M 2M', 'read -q -P 7 0 64k', 'read -q -P 1 64k 64k')
        assert differing(ours, theirs) == []
    else:
        assert Image(ours).size == 1 << 20
    clean(ours)


@pytest.mark.parametrize('writes', [
    (), ('write -q -z -u 640k 60k',), ('write -q -P 1 690k 2k',),
    ('write -q -P 1 640k 60k', 'write -q -z 640k 60k')])
@pytest.mark.parametrize('mode', ['metadata', 'falloc'])
@pytest.mark.parametrize('backing', [0, 680])
def test_the_last_cluster_gets_its_place_too(tmp_path, backing, mode, writes):
    """Whatever it was before, and with what a backing file shows in front of the old end."""
    base = tmp_path / 'base.raw'
    base.write_bytes(b'\7' * (backing << 10))
    ours, theirs = pair(tmp_path, 'cluster_size=64k', '700k', *writes,
                        backing=base if backing else None)
    resize(ours, theirs, '2M', mode)
    assert differing(ours, theirs) == []
    ok(qemu_img('compare', '-q', ours, theirs))
    clean(ours)


@pytest.mark.parametrize('options', KINDS)
def test_growing_a_part_of_a_cluster_over_a_backing_file(tmp_path, options):
    base = tmp_path / 'base.raw'
    base.write_bytes(b'\7' * (4 << 20))
    for mode in MODES:
        ours, theirs = pair(tmp_path, options, 1049088, backing=base)
        if 'compat=0.10' in options and mode in ('off', 'metadata'):  # no zero clusters to hide it
            assert resize(ours, theirs, '3M', mode).returncode == 1
            continue
        ok(platter('resize', '-q', f'--preallocation={mode}', ours, '3M'))
        qemu_io(ours, 'read -q -P 7 0 1049088', 'read -q -P 0 1049088 2096640')
        clean(ours)


@pytest.mark.parametrize('options', KINDS)
def test_shrinking_writes_the_same_bytes(tmp_path, options):
    ours, theirs = pair(tmp_path, options, '5M', 'write -q -P 1 0 5M')
    for size in (5 * 1024 * 1024 - 65536, '3M', '1M', 512 * 1024, 4096):
        resize(ours, theirs, size)
        assert different(ours, theirs) == []
        assert os.path.getsize(ours) == os.path.getsize(theirs)
        clean(ours)


def test_shrinking_gives_back_space_inside_the_file(tmp_path):
    """What was cut off lies in front of what stays."""
    ours, theirs = pair(tmp_path, 'cluster_size=64k', '5M', 'write -q -P 1 2M 3M',
                        'write -q -P 2 0 64k')
    resize(ours, theirs, '2M')
    assert differing(ours, theirs) == []
    assert ours.stat().st_blocks <= os.stat(theirs).st_blocks


@pytest.mark.parametrize('options', KINDS)
def test_what_was_cut_off_is_not_seen_again(tmp_path, options):
    ours, theirs = pair(tmp_path, options, '2M', 'write -q -P 1 0 2M')
    resize(ours, theirs, 1049088)
    resize(ours, theirs, '2M')
    qemu_io(ours, 'read -q -P 1 0 1049088', 'read -q -P 0 1049088 1048064')
    clean(ours)


def test_clusters_that_are_used_again_read_as_zeroes(tmp_path):
    for options in ('cluster_size=4k', 'cluster_size=4k,compat=0.10',
                    'cluster_size=16k,extended_l2=on'):
        for mode in MODES:
            ours, _ = pair(tmp_path, options, '1M', 'write -q -P 1 0 1M')
            ok(qemu('qemu-io', '-d', 'ignore', '-c', 'discard -q 256k 256k', ours))
            ok(platter('resize', '-q', f'--preallocation={mode}', ours, '2M'))
            qemu_io(ours, 'read -q -P 0 1M 1M', 'read -q -P 1 512k 512k')
            clean(ours)


def test_snapshots(tmp_path):
    ours, theirs = pair(tmp_path, 'cluster_size=512', '100k', 'write -q -P 1 0 100k')
    for path in (ours, theirs):
        ok(qemu_img('snapshot', '-c', 's', path))
    for size in ('50k', '70k', '200k', '30k'):
        resize(ours, theirs, size)
        clean(ours)
        ok(qemu_img('compare', '-q', ours, theirs))
    ok(qemu_img('snapshot', '-a', 's', ours))
    qemu_io(ours, 'read -q -P 1 0 100k')
    clean(ours)


def test_version_2_with_snapshots(tmp_path):
    ours, theirs = pair(tmp_path, 'compat=0.10', '1M', 'write -q -P 1 0 100k')
    for path in (ours, theirs):
        ok(qemu_img('snapshot', '-c', 's', path))
    before = ours.read_bytes()
    for size in ('2M', '512k'):
        done = resize(ours, theirs, size)
        assert done.returncode == 1
        assert "Can't resize a v2 image which has snapshots" in done.stderr
    assert ours.read_bytes() == before


@pytest.mark.parametrize('raw', ['on', 'off'])
@pytest.mark.parametrize('mode', MODES)
def test_external_data_file(tmp_path, raw, mode):
    """In a folder each, where both programs find the data file by the name in the image."""
    ours, theirs = [tmp_path / name / 'd.qcow2' for name in ('ours', 'theirs')]
    for path in (ours, theirs):
        path.parent.mkdir()
        ok(qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                f'data_file=d.raw,data_file_raw={raw}', path, '1M', cwd=path.parent))
        ok(qemu('qemu-io', '-c', 'write -q -P 1 100k 100k', path, cwd=path.parent))
    for size, how in (('3M', mode), ('700k', 'off'), ('2M', mode)):
        arguments = ['resize', '-q', '--shrink', f'--preallocation={how}', 'd.qcow2', size]
        ok(platter(*arguments, cwd=ours.parent))
        ok(qemu('qemu-img', *arguments, cwd=theirs.parent))
        assert differing(ours, theirs) == []
        assert ours.with_suffix('.raw').read_bytes() == theirs.with_suffix('.raw').read_bytes()
        ok(qemu('qemu-io', '-c', 'read -q -P 1 100k 100k', '-c', 'read -q -P 0 200k 500k', ours,
                cwd=ours.parent))
        ok(qemu('qemu-img', 'check', ours, cwd=ours.parent))


@pytest.mark.parametrize('raw', ['on', 'off'])
@pytest.mark.parametrize('mode', MODES)
def test_external_data_file_that_is_longer(tmp_path, raw, mode):
    """The reference shows what the file held behind the old end."""
    sizes = []
    for name, tool in (('ours', platter), ('theirs', qemu_img)):
        path = tmp_path / name / 'd.qcow2'
        path.parent.mkdir()
        ok(qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                f'data_file=d.raw,data_file_raw={raw}', path, '1M', cwd=path.parent))
        with open(path.with_suffix('.raw'), 'ab') as data:
            data.truncate(1 << 20)
            data.seek(1 << 20)
            data.write(b'old' * 100000)
        sizes.append([])
        for size in (1180160, 1200128, 1507328):
            ok(tool('resize', '-q', f'--preallocation={mode}', 'd.qcow2', size, cwd=path.parent))
            sizes[-1].append(path.with_suffix('.raw').stat().st_size)
            if tool is platter:
                ok(qemu('qemu-io', '-c', f'read -q -P 0 0 {size}', path, cwd=path.parent))
            ok(qemu('qemu-img', 'check', path, cwd=path.parent))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize('size', ['1T', '130G'])
def test_too_large(tmp_path, size):
    ours, theirs = pair(tmp_path, 'cluster_size=512', '1M')
    before = ours.read_bytes()
    done = resize(ours, theirs, size)
    assert 'Failed to grow the L1 table: File too large' in done.stderr
    assert ours.read_bytes() == before


def test_large_and_sparse(tmp_path):
    """Shrinking is not shown beside the reference: it makes a table for each part that goes."""
    ours, theirs = pair(tmp_path, 'cluster_size=64k', '1M')
    resize(ours, theirs, '1P')
    assert differing(ours, theirs) == []
    before = os.path.getsize(ours)
    ok(platter('resize', '-q', '--shrink', ours, '1M'))
    assert Image(ours).size == 1 << 20
    assert os.path.getsize(ours) <= before
    clean(ours)


SEED = int(os.environ.get('PLATTER_SEED', '7301'))


def random_write(rng, options, model):
    """A request of the reference, and what it does to the disk."""
    verbs = ['write -P 5', 'write -P 6', 'discard']
    if 'compat=0.10' not in options:
        verbs += ['write -z', 'write -z -u']
    verb = rng.choice(verbs)
    unit = 65536 if verb == 'discard' and len(model) >= 65536 else 512
    verb = 'write -P 7' if verb == 'discard' and unit == 512 else verb
    offset = rng.randrange(0, len(model) // unit * unit, unit)
    most = min(len(model) - offset, 600 << 10)
    count = rng.randrange(unit, most // unit * unit + 1, unit)
    fill = int(verb.split()[-1]) if '-P' in verb else 0
    model[offset:offset + count] = bytes([fill]) * count
    return f'{verb} {offset} {count}'


@pytest.mark.parametrize('number', range(12))
def test_random_steps_show_the_right_disk(tmp_path, number):
    """Beside bytes in memory: in the reference, what was cut off can be seen again after growing."""
    print('seed', SEED + number)
    rng = random.Random(SEED + number)
    options = rng.choice([*KINDS, 'cluster_size=1k,refcount_bits=32'])
    image, raw, base = [tmp_path / name for name in ('d.qcow2', 'd.raw', 'base.raw')]
    base.write_bytes(rng.randbytes(512) * rng.randrange(1, 8000))
    backing = rng.random() < .4 and 'compat=0.10' not in options
    below = ['-b', base, '-F', 'raw'] if backing else []
    size = rng.randrange(1, 8000) * 512
    model = bytearray((base.read_bytes() if backing else b'')[:size].ljust(size, b'\0'))
    ok(qemu_img('create', '-q', '-f', 'qcow2', '-o', options, *below, image, size))
    for step in range(6):
        request = random_write(rng, options, model)
        ok(qemu('qemu-io', '-d', 'unmap', '-c', request, image))
        old, size = size, rng.choice([512, 65536]) * rng.randrange(1, 100) * rng.choice([1, 1, 50])
        size = min(size, 6 << 20)
        mode = rng.choice(MODES) if size > old else 'off'
        print(options, backing, step, request, old, size, mode)
        ok(platter('resize', '-q', '--shrink', f'--preallocation={mode}', image, size))
        model = model[:size].ljust(size, b'\0')
        raw.write_bytes(model)
        ok(qemu_img('compare', '-f', 'qcow2', '-F', 'raw', image, raw))
        clean(image)
