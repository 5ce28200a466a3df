# SPDX-License-Identifier: MIT
"""Internal snapshots of qcow2: layout beside the reference, both directions, hostile tables."""
import shutil
import struct

import pytest

from qcow2_image import COPIED, OFFSET, Image, differing
from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

KINDS = ['cluster_size=64k', 'cluster_size=512', 'cluster_size=4k,compat=0.10',
         'cluster_size=4k,refcount_bits=8', 'cluster_size=64k,refcount_bits=64',
         'cluster_size=16k,extended_l2=on', 'cluster_size=2M']


def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def make(path, options='cluster_size=4k', size='2M', data=True):
    ok(qemu_img('create', '-q', '-f', 'qcow2', '-o', options, path, size))
    if data:
        ok(qemu('qemu-io', '-c', 'write -q -P 1 0 300k', '-c', 'write -q -P 2 1M 100k',
                '-c', 'write -q -z 512k 64k', path))
    return path


def clean(path):
    done = qemu_img('check', path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('options', KINDS)
def test_creating_writes_the_same_bytes(tmp_path, options):
    ours = make(tmp_path / 'ours.qcow2', options)
    theirs = shutil.copy(ours, tmp_path / 'theirs.qcow2')
    for step, name in enumerate(('one', 'two', 'a longer name', '')):
        ok(platter('snapshot', '-c', name, ours))
        ok(qemu_img('snapshot', '-c', name, theirs))
        assert differing(ours, theirs) == []
        clean(ours)
        for path in (ours, theirs):
            ok(qemu('qemu-io', '-c', f'write -q -P {step + 5} {step * 64}k 70k', path))
        assert differing(ours, theirs) == []


@pytest.mark.parametrize('size', ['0', '512', '1048064'])
def test_creating_at_the_edges(tmp_path, size):
    ours = make(tmp_path / 'ours.qcow2', 'cluster_size=512', size, data=False)
    theirs = shutil.copy(ours, tmp_path / 'theirs.qcow2')
    ok(platter('snapshot', '-c', 'x', ours))
    ok(qemu_img('snapshot', '-c', 'x', theirs))
    assert differing(ours, theirs) == []
    ok(platter('snapshot', '-a', 'x', ours))
    ok(platter('snapshot', '-d', 'x', ours))
    clean(ours)


@pytest.mark.parametrize('options', KINDS)
def test_turns(tmp_path, options):
    """One image of ours, one of theirs, and two that both change in turn."""
    first = make(tmp_path / '0.qcow2', options)
    paths = [first] + [shutil.copy(first, tmp_path / f'{i}.qcow2') for i in (1, 2, 3)]
    programs = [(platter, platter), (qemu_img, qemu_img), (platter, qemu_img), (qemu_img, platter)]
    steps = [('-c', 'a'), 'write -P 3 100k 50k', ('-c', 'b'), 'write -z 0 200k', ('-a', 'a'),
             'write -P 4 1M 64k', ('-c', 'c'), ('-d', 'a'), 'discard 1M 32k', ('-a', 'b'),
             ('-d', 'b'), 'write -P 6 0 10k', ('-d', 'c')]
    for count, step in enumerate(steps):
        for path, pair in zip(paths, programs):
            if isinstance(step, str):
                ok(qemu('qemu-io', '-c', step, path))
            else:
                ok(pair[count % 2]('snapshot', *step, path))
            clean(path)
        for path in paths[1:]:
            ok(qemu_img('compare', '-q', paths[0], path))
    image = Image(paths[0])
    assert image.snapshot_count == 0


def test_applying_brings_the_size_back(tmp_path):
    path = make(tmp_path / 'd.qcow2', 'cluster_size=512')
    ok(platter('snapshot', '-c', 'two', path))
    ok(qemu_img('resize', '-q', '--shrink', path, '100k'))
    ok(platter('snapshot', '-c', 'small', path))
    ok(qemu_img('resize', '-q', path, '9M'))
    ok(platter('snapshot', '-c', 'large', path))
    for name, size in (('two', 2 << 20), ('large', 9 << 20), ('small', 100 << 10),
                       ('two', 2 << 20)):
        ok(platter('snapshot', '-a', name, path))
        assert Image(path).size == size
        clean(path)
    ok(qemu('qemu-io', '-r', '-c', 'read -q -P 1 0 300k', '-c', 'read -q -P 2 1M 100k', path))


def test_compressed_clusters(tmp_path):
    raw = tmp_path / 'd.raw'
    raw.write_bytes(b''.join(bytes([i % 7]) * 4096 for i in range(256)))
    path = tmp_path / 'd.qcow2'
    ok(qemu_img('convert', '-c', '-O', 'qcow2', '-o', 'cluster_size=4k', raw, path))
    theirs = shutil.copy(path, tmp_path / 'theirs.qcow2')
    for name in 'ab':
        ok(platter('snapshot', '-c', name, path))
        ok(qemu_img('snapshot', '-c', name, theirs))
        assert differing(path, theirs) == []
    ok(qemu('qemu-io', '-c', 'write -q -P 9 0 500k', path))
    for word in (('-a', 'b'), ('-d', 'a'), ('-d', 'b')):
        ok(platter('snapshot', *word, path))
        clean(path)
    ok(qemu_img('compare', '-q', raw, path))


def test_refcounts_that_are_full(tmp_path):
    path = make(tmp_path / 'd.qcow2', 'cluster_size=4k,refcount_bits=2')
    for name in 'ab':
        ok(platter('snapshot', '-c', name, path))
    before = Image(path)
    done = platter('snapshot', '-c', 'c', path)
    assert done.returncode == 1
    assert "Could not create snapshot 'c': " in done.stderr
    after = Image(path)
    assert (after.snapshot_count, after.snapshots_offset) == (2, before.snapshots_offset)
    assert len(after.bytes) >= len(before.bytes)
    clean(path)
    ok(qemu('qemu-io', '-c', 'read -q -P 1 0 300k', path))


def test_an_external_data_file_has_none(tmp_path):
    path = tmp_path / 'd.qcow2'
    ok(qemu_img('create', '-q', '-f', 'qcow2', '-o', f'data_file={tmp_path}/d.raw', path, '1M'))
    done = platter('snapshot', '-c', 'x', path)
    assert done.returncode == 1
    assert 'data file' in done.stderr


def test_bitmaps_forbid_applying(tmp_path):
    path = make(tmp_path / 'd.qcow2')
    ok(platter('snapshot', '-c', 'x', path))
    ok(qemu_img('bitmap', '--add', path, 'b'))
    done = platter('snapshot', '-a', 'x', path)
    assert done.returncode == 1
    assert 'Device has active dirty bitmaps' in done.stderr
    ok(platter('snapshot', '-d', 'x', path))
    clean(path)


def patch(path, offset, fmt, *values):
    with open(path, 'r+b') as file:
        file.seek(offset)
        file.write(struct.pack(fmt, *values))


def test_unknown_extra_data_survives(tmp_path):
    path = make(tmp_path / 'd.qcow2')
    ok(platter('snapshot', '-c', 'x', path))
    image = Image(path)
    at, fields = next(image.snapshots())
    entry = bytearray(image.bytes[at:at + 40 + fields[8]])
    struct.pack_into('>I', entry, 36, fields[8] + 5)
    with open(path, 'r+b') as file:
        file.seek(at)
        file.write(entry + b'extra' + b'1x')
    ok(platter('snapshot', '-c', 'y', path))
    image = Image(path)
    at, fields = next(image.snapshots())
    assert fields[8] == 29
    assert image.bytes[at + 40 + 24:at + 40 + 31] == b'extra1x'
    assert 'x' in platter('snapshot', '-l', path).stdout
    clean(path)


# ---- hostile ----

def refused(path, *verbs):
    """Each verb is refused, and leaves the file as it is."""
    before = path.read_bytes()
    for verb in verbs:
        done = platter('snapshot', *verb, path)
        assert done.returncode == 1, verb
        assert done.stderr.startswith('platter: '), done.stderr
        assert path.read_bytes() == before, verb
    return done


@pytest.fixture
def snapped(tmp_path):
    path = make(tmp_path / 'd.qcow2')
    for name in ('one', 'two'):
        ok(platter('snapshot', '-c', name, path))
    return path


ALL = (('-a', 'one'), ('-d', 'one'))


def first_entry(path):
    return next(Image(path).snapshots())[0]


def test_too_many_snapshots(snapped):
    patch(snapped, 60, '>I', 65537)
    refused(snapped, ('-l',), *ALL, ('-c', 'x'))


def test_extra_data_too_long(snapped):
    patch(snapped, first_entry(snapped) + 36, '>I', 0xffffffff)
    refused(snapped, ('-l',), *ALL, ('-c', 'x'))


@pytest.mark.parametrize('offset', [0, 512, 1 << 40, (1 << 63) + 4096, (1 << 64) - 4096])
def test_table_elsewhere(snapped, offset):
    patch(snapped, 64, '>Q', offset)
    before = snapped.read_bytes()
    for verb in ALL:
        assert platter('snapshot', *verb, snapped).returncode == 1
    assert snapped.read_bytes() == before


@pytest.mark.parametrize('offset, entries', [
    (512, 1), (0, 1), (1 << 40, 1), ((1 << 64) - 4096, 1), (None, (32 << 17) + 1),
    (None, 0xffffffff), (None, 1 << 20)])
def test_l1_table_that_cannot_be(snapped, offset, entries):
    at = first_entry(snapped)
    if offset is not None:
        patch(snapped, at, '>Q', offset)
    patch(snapped, at + 8, '>I', entries)
    refused(snapped, *ALL)
    assert 'two' in platter('snapshot', '-l', snapped).stdout
    ok(platter('snapshot', '-d', 'two', snapped))


def test_l1_table_on_the_header(snapped):
    patch(snapped, first_entry(snapped), '>Q', 0)
    refused(snapped, *ALL)


def test_twice_the_same_id(snapped):
    at = [entry[0] for entry in Image(snapped).snapshots()]
    patch(snapped, at[1] + 40 + 24, '>c', b'1')
    ok(platter('snapshot', '-d', 'two', snapped))
    ok(platter('snapshot', '-a', '1', snapped))
    clean(snapped)


def set_refcount(path, cluster, value):
    image = Image(path)
    assert image.refcount_order == 4
    per_block = image.cluster // 2
    block, = image.at('>Q', image.reftable_offset + cluster // per_block * 8)
    patch(path, block + cluster % per_block * 2, '>H', value)


@pytest.mark.parametrize('value', [0, 1, 2])
@pytest.mark.parametrize('which', ['table', 'data'])
def test_refcounts_too_low(snapped, which, value):
    image = Image(snapped)
    l1_offset = next(image.snapshots())[1][0]
    table = image.at('>Q', l1_offset)[0] & OFFSET
    cluster = table if which == 'table' else image.at('>Q', table)[0] & OFFSET
    assert image.refcount(cluster // image.cluster) == 3
    set_refcount(snapped, cluster // image.cluster, value)
    done = refused(snapped, *ALL)
    assert 'repaired' in done.stderr or 'refcount' in done.stderr


@pytest.mark.parametrize('entry', [512, 1 << 40, 1 << 55, (1 << 55) - 512])
def test_tables_at_impossible_places(snapped, entry):
    image = Image(snapped)
    l1_offset = next(image.snapshots())[1][0]
    patch(snapped, l1_offset, '>Q', entry | COPIED)
    refused(snapped, *ALL)


@pytest.mark.parametrize('entry', [4096 + 512, 1 << 40, (1 << 62) | (1 << 50)])
def test_clusters_at_impossible_places(snapped, entry):
    ok(platter('snapshot', '-d', 'two', snapped))
    ok(qemu('qemu-io', '-c', 'write -q -P 5 0 4k', snapped))
    image = Image(snapped)
    l1_offset = next(image.snapshots())[1][0]
    table = image.at('>Q', l1_offset)[0] & OFFSET
    patch(snapped, table, '>Q', entry)
    refused(snapped, *ALL)


def test_one_table_many_times(tmp_path):
    """Each mention of a table is a reference of its own."""
    path = make(tmp_path / 'd.qcow2', size='4M')
    ok(platter('snapshot', '-c', 'one', path))
    image = Image(path)
    offset, entries = next(image.snapshots())[1][:2]
    assert entries == 2
    first, second = image.at('>QQ', offset)
    assert first and not second
    patch(path, offset + 8, '>Q', first)
    refused(path, *ALL)
