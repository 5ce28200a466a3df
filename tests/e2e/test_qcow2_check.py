# SPDX-License-Identifier: MIT
"""platter check beside qemu-img check, over images damaged on purpose: exit codes, counts, findings
and what a repair leaves."""
import os
import re
import shutil
import socket
import struct
import subprocess

import pytest

from qcow2_image import COMPRESSED, COPIED, OFFSET, Image
from tools_common import TIMEOUT, bounded, needs, platter, qemu

pytestmark = needs('qcow2')
MODES = [(), ('-r', 'leaks'), ('-r', 'all')]


class Disk(Image):
    """An image whose bytes can be changed; of 4 KiB clusters and 16-bit refcounts, unless made
    otherwise."""

    def __init__(self, path):
        super().__init__(path)
        self.block = self.u64(self.reftable_offset)
        self.l2 = self.u64(self.l1_offset) & OFFSET

    def u64(self, at):
        return self.at('>Q', at)[0]

    def put(self, at, value, size=8):
        if len(self.bytes) < at + size:
            self.bytes += bytes(at + size - len(self.bytes))
        self.bytes[at:at + size] = value.to_bytes(size, 'big')
        return self

    def entry(self, index, value):
        return self.put(self.l2 + 8 * index, value)

    def count(self, cluster, value):
        return self.put(self.block + 2 * cluster, value, 2)

    def resize(self, by):
        self.bytes = self.bytes + bytes(by) if by > 0 else self.bytes[:by]
        return self


def make(path, options, *commands, snapshots=0, size='16M'):
    def ok(done):
        assert done.returncode == 0, done.stderr
    ok(qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, path, size))
    ok(qemu('qemu-io', '-f', 'qcow2', *[a for c in commands for a in ('-c', c)], path))
    for i in range(snapshots):
        ok(qemu('qemu-img', 'snapshot', '-c', f's{i}', path))
        ok(qemu('qemu-io', '-f', 'qcow2', '-c', f'write {i * 4}k 4k', path))
    return path


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Each kind of image once."""
    folder = tmp_path_factory.mktemp('images')
    plain = ['write 0 16k', 'write 8M 4k', 'write -c -P 7 1M 4k', 'write -c -P 8 1028k 4k']
    made = {
        'one': make(folder / 'one', 'cluster_size=4096', *plain, snapshots=1),
        'two': make(folder / 'two', 'cluster_size=4096', *plain, snapshots=2),
        'v2': make(folder / 'v2', 'cluster_size=4096,compat=0.10', *plain[:2], snapshots=1),
        'w1': make(folder / 'w1', 'cluster_size=4096,refcount_bits=1', *plain),
        'w2': make(folder / 'w2', 'cluster_size=4096,refcount_bits=2', *plain),
        'ext': make(folder / 'ext', 'cluster_size=16384,extended_l2=on', 'write 0 2k',
                    'write 16k 16k', 'write -z 40k 1k', 'write -c -P 4 64k 16k',
                    'write -z 1M 16k'),
        'data': make(folder / 'data', f'cluster_size=4096,data_file={folder}/data.raw',
                     *plain[:2]),
        'bitmaps': make(folder / 'bitmaps', 'cluster_size=4096', 'write 0 16k'),
    }
    for name in ('b0', 'b1'):
        qemu('qemu-img', 'bitmap', '--add', made['bitmaps'], name)
        qemu('qemu-io', '-f', 'qcow2', '-c', 'write 2M 64k', made['bitmaps'])
    return made


def snapshot(disk, index=0):
    return list(disk.snapshots())[index]


def bitmap_directory(disk):
    at = 112
    while disk.at('>I', at)[0] != 0x23852875:
        at += 8 + (disk.at('>I', at + 4)[0] + 7 & ~7)
    return disk.u64(at + 8 + 16)


def bitmap_table(disk):
    return disk.u64(bitmap_directory(disk))


def snapshot_extra(disk, size):
    """The first entry's extra data gets another length."""
    at, fields = snapshot(disk)
    rest = bytes(disk.bytes[snapshot(disk, 1)[0]:snapshot(disk, 1)[0] + 72])
    extra = bytes(disk.bytes[at + 40:at + 40 + fields[8]])
    names = bytes(disk.bytes[at + 40 + fields[8]:at + 40 + fields[8] + fields[2] + fields[3]])
    entry = (bytes(disk.bytes[at:at + 36]) + struct.pack('>I', size) +
             (extra + bytes([9]) * 2000)[:size] + names)
    entry += bytes(-len(entry) % 8) + rest
    disk.bytes[at:at + len(entry)] = entry
    return disk


# name: (image, damage)
DAMAGE = {
    'nothing': ('one', lambda d: d),
    'refcount 0': ('one', lambda d: d.count(6, 0)),
    'refcount too low': ('one', lambda d: d.count(6, 1)),
    'refcount too high': ('one', lambda d: d.count(6, 3)),
    'refcount too low and another too high': ('one', lambda d: d.count(6, 3).count(7, 1)),
    'refcount of the header 0': ('one', lambda d: d.count(0, 0)),
    'refcount of the table 0': ('one', lambda d: d.count(1, 0)),
    'refcount of the block itself 0': ('one', lambda d: d.count(2, 0)),
    'refcount of the block itself 2': ('one', lambda d: d.count(2, 2)),
    'refcount behind the end': ('one', lambda d: d.count(20, 1)),
    'refcounts all 0': ('one', lambda d: d.put(d.block, 0, 4096)),
    'leak inside the file': ('one', lambda d: d.resize(3 * 4096).count(17, 1)),
    'tail cut by half a cluster': ('one', lambda d: d.resize(-2048)),
    'tail cut by a cluster': ('one', lambda d: d.resize(-4096)),
    'tail grown': ('one', lambda d: d.resize(100)),
    'data unaligned': ('one', lambda d: d.entry(1, 0x6200 | COPIED)),
    'data entry reserved bit': ('one', lambda d: d.entry(1, 0x6002)),
    'data entry high reserved bit': ('one', lambda d: d.entry(1, 0x6000 | 1 << 57)),
    'data behind the end': ('one', lambda d: d.entry(1, 1 << 30 | COPIED)),
    'data far behind the end': ('one', lambda d: d.entry(1, 1 << 55 | COPIED)),
    'data right behind the end': ('one', lambda d: d.entry(9, len(d.bytes) | COPIED)),
    'data twice': ('one', lambda d: d.entry(8, d.u64(d.l2))),
    'data on the L1 table': ('one', lambda d: d.entry(8, d.l1_offset | COPIED)),
    'zero cluster unaligned': ('one', lambda d: d.entry(1, 0x6200 | 1)),
    'zero cluster with room': ('one', lambda d: d.entry(1, 0x6000 | 1)),
    'zero cluster without': ('one', lambda d: d.entry(1, 1)),
    'flag set wrongly': ('one', lambda d: d.entry(1, 0x6000 | COPIED)),
    'flag missing': ('one', lambda d: d.entry(0, d.u64(d.l2) & OFFSET)),
    'flag without cluster': ('one', lambda d: d.entry(5, COPIED)),
    'flag wrong and a leak': ('one', lambda d: d.count(6, 3).entry(1, 0x6000 | COPIED)),
    'flag of an L2 table missing': ('one', lambda d: d.put(d.l1_offset, d.l2)),
    'flag of an L2 table set': ('one', lambda d: d.put(d.l1_offset + 32,
                                                       d.u64(d.l1_offset + 32) | COPIED)),
    'L2 table unaligned': ('one', lambda d: d.put(d.l1_offset, d.l2 + 512)),
    'L1 entry reserved bit': ('one', lambda d: d.put(d.l1_offset, d.l2 | COPIED | 4)),
    'L2 table behind the end': ('one', lambda d: d.put(d.l1_offset, 1 << 30 | COPIED)),
    'L2 table on a refcount block': ('one', lambda d: d.put(d.l1_offset + 8, d.block | COPIED)),
    'L2 table twice': ('one', lambda d: d.put(d.l1_offset + 8, d.l2 | COPIED)),
    'L1 table on the refcount table': ('one', lambda d: d.put(40, d.reftable_offset)),
    'compressed with flag': ('one', lambda d: d.entry(256, d.u64(d.l2 + 2048) | COPIED)),
    'compressed behind the end': ('one', lambda d: d.entry(256, COMPRESSED | 1 << 40)),
    'compressed too long': ('one', lambda d: d.entry(256, d.u64(d.l2 + 2048) | 0xf << 58)),
    'refcount table entry 0': ('one', lambda d: d.put(d.reftable_offset, 0)),
    'block twice': ('one', lambda d: d.put(d.reftable_offset + 8, d.block)),
    'block on the header': ('one', lambda d: d.put(d.reftable_offset + 8, 4096)),
    'block on data': ('one', lambda d: d.put(d.reftable_offset + 8, len(d.bytes) - 4096)),
    'block not counted': ('one', lambda d: d.put(d.reftable_offset + 8, len(d.bytes))
                          .resize(8192)),
    'refcount table behind the end': ('one', lambda d: d.put(48, 1 << 30)),
    'refcount table too long': ('one', lambda d: d.put(56, 2, 4)),
    'refcount table of no clusters': ('one', lambda d: d.put(56, 0, 4)),
    'dirty': ('one', lambda d: d.put(72, 1)),
    'dirty with a leak': ('one', lambda d: d.put(72, 1).count(6, 3)),
    'corrupt': ('one', lambda d: d.put(72, 2)),
    'corrupt with a leak': ('one', lambda d: d.put(72, 2).count(6, 3)),
    'corrupt with an error': ('one', lambda d: d.put(72, 2).count(6, 1)),
    'inactive flags': ('two', lambda d: d.put(snapshot(d)[1][0],
                                              d.u64(snapshot(d)[1][0]) | COPIED)),
    'snapshot L1 unaligned': ('two', lambda d: d.put(snapshot(d)[0], snapshot(d)[1][0] + 512)),
    'snapshot L1 behind the end': ('two', lambda d: d.put(snapshot(d)[0], 1 << 30)),
    'snapshot L1 too large': ('two', lambda d: d.put(snapshot(d)[0] + 8, 0xffffffff, 4)),
    'snapshot L1 empty': ('two', lambda d: d.put(snapshot(d)[0] + 8, 0, 4)),
    'snapshot L1 entry reserved bit': ('two', lambda d: d.put(snapshot(d)[1][0],
                                                              d.u64(snapshot(d)[1][0]) | 2)),
    'snapshot data unaligned': ('two', lambda d: d.put(
        (d.u64(snapshot(d)[1][0]) & OFFSET) + 8, 0x7200)),
    'snapshot zero cluster unaligned': ('two', lambda d: d.put(
        (d.u64(snapshot(d)[1][0]) & OFFSET) + 8, 0x7201)),
    'one snapshot too many': ('two', lambda d: d.put(60, 3, 4)),
    'one snapshot too few': ('two', lambda d: d.put(60, 1, 4)),
    'far too many snapshots': ('two', lambda d: d.put(60, 65537, 4)),
    'snapshot table unaligned': ('two', lambda d: d.put(64, d.snapshots_offset + 8)),
    'snapshot without extra data': ('two', lambda d: snapshot_extra(d, 0)),
    'snapshot with too little extra data': ('two', lambda d: snapshot_extra(d, 8)),
    'snapshot with little extra data': ('two', lambda d: snapshot_extra(d, 16)),
    'snapshot with much extra data': ('two', lambda d: snapshot_extra(d, 1024)),
    'snapshot with too much extra data': ('two', lambda d: snapshot_extra(d, 1032)),
    'snapshot with extra data without end': ('two', lambda d: d.put(snapshot(d)[0] + 36,
                                                                    0xffffffff, 4)),
    'version 2': ('v2', lambda d: d),
    'version 2 has no zero flag': ('v2', lambda d: d.entry(1, 0x6001)),
    'version 2 leak': ('v2', lambda d: d.count(8, 5)),
    'overflow of one bit': ('w1', lambda d: d.entry(8, d.u64(d.l2))),
    'overflow of two bits': ('w2', lambda d: [d.entry(8 + i, d.u64(d.l2)) for i in range(5)][-1]),
    'subcluster allocated and zero': ('ext', lambda d: d.put(d.l2 + 8, 1 << 32 | 1)),
    'subclusters without cluster': ('ext', lambda d: d.put(d.l2 + 16 * 8 + 8, 1)),
    'subclusters of a compressed cluster': ('ext', lambda d: d.put(d.l2 + 16 * 4 + 8, 1)),
    'subclusters and zero flag': ('ext', lambda d: d.put(d.l2, d.u64(d.l2) | 1)),
    'subclusters unaligned': ('ext', lambda d: d.put(d.l2, d.u64(d.l2) | 512)),
    'zero subclusters unaligned': ('ext', lambda d: d.put(d.l2, d.u64(d.l2) | 512)
                                   .put(d.l2 + 8, 0xffffffff << 32)),
    'data file': ('data', lambda d: d),
    'data file, other offset': ('data', lambda d: d.entry(1, 0x6000 | COPIED)),
    'data file, flag missing': ('data', lambda d: d.entry(1, 0x1000)),
    'data file, unaligned': ('data', lambda d: d.entry(1, 0x1200 | COPIED)),
    'data file, compressed': ('data', lambda d: d.entry(1, 0x1000 | COMPRESSED)),
    'data file, offset 0': ('data', lambda d: d.entry(10, COPIED)),
    'bitmaps': ('bitmaps', lambda d: d),
    'bitmap table behind the end': ('bitmaps', lambda d: d.put(bitmap_directory(d), 1 << 30)),
    'bitmap data behind the end': ('bitmaps', lambda d: d.put(bitmap_table(d), 1 << 30)),
    'bitmap data all ones': ('bitmaps', lambda d: d.put(bitmap_table(d), 1)),
    'bitmap data on the header': ('bitmaps', lambda d: d.put(bitmap_table(d), 4096)),
    'bitmaps not to be trusted': ('bitmaps', lambda d: d.put(88, 0)),
}


def findings(done):
    """What was found, each once: the reference tells some of it several times, ours only once."""
    told = set()
    for line in done.stderr.splitlines():
        # a warning of the reference without end of line
        line = re.sub(r".*run 'qemu-img check -r' on the image file to fix\.", '', line.strip())
        if line.startswith('Use '):
            line = 'Use'
        if re.match(r'(ERROR|Leaked|Repairing|Discarding|Rebuilding|Can\'t|Use)', line):
            told.add(line)
    return told


def damaged(tmp_path, images, name):
    kind, damage = DAMAGE[name]
    ours, theirs = tmp_path / 'ours.qcow2', tmp_path / 'theirs.qcow2'
    ours.write_bytes(damage(Disk(images[kind])).bytes)
    shutil.copy(ours, theirs)
    return ours, theirs


# A table that something else lies on: the reference calls it clean once its refcount is two.
SHARED_TABLE = ('data on the L1 table', 'compressed too long', 'bitmap data on the header')


@pytest.mark.parametrize('name', DAMAGE)
def test_as_the_reference(tmp_path, images, name):
    for mode in MODES:
        if mode == ('-r', 'all') and name in SHARED_TABLE:
            continue
        ours, theirs = damaged(tmp_path, images, name)
        mine = platter('check', '--image-refs=follow', '-f', 'qcow2', *mode, ours)
        other = qemu('qemu-img', 'check', '-f', 'qcow2', *mode, theirs)
        assert findings(mine) == findings(other), mode
        assert (mine.returncode, mine.stdout) == (other.returncode, other.stdout), mode
        if mode and mine.returncode == 0:
            after = qemu('qemu-img', 'check', '-f', 'qcow2', ours)
            assert after.returncode == 0, after.stdout + after.stderr
            assert Image(ours).incompatible == Image(theirs).incompatible
        if not mode:
            assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize('name', SHARED_TABLE)
def test_shared_table_is_never_clean(tmp_path, images, name):
    ours, _ = damaged(tmp_path, images, name)
    for mode in (('-r', 'all'), ()):
        done = platter('check', '--image-refs=follow', '-f', 'qcow2', *mode, ours)
        assert 'is a table and something else, reference=2' in done.stderr
        assert done.returncode == 2, mode


def content(path):
    """What the disk and each of its snapshots hold."""
    shown = []
    for select in ([], ['-l', 'snapshot.name=s0'], ['-l', 'snapshot.name=s1']):
        out = path.with_suffix('.raw')
        done = qemu('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', *select, path, out)
        shown.append(out.read_bytes() if done.returncode == 0 else None)
    return shown


@pytest.mark.parametrize('name', [n for n in DAMAGE if n.startswith(
    ('refcount', 'flag', 'block', 'leak', 'dirty', 'corrupt', 'snapshot with'))])
def test_repair_keeps_the_content(tmp_path, images, name):
    ours, _ = damaged(tmp_path, images, name)
    before = content(images[DAMAGE[name][0]])
    assert platter('check', '-f', 'qcow2', '-r', 'all', ours).returncode in (0, 1)
    if 'without end' not in name:
        assert content(ours) == before


# What the reference cannot mend, or cannot even open.
OURS_ONLY = {
    'block with reserved bits': ('one', lambda d: d.put(d.reftable_offset, d.block | 1)),
    'block unaligned': ('one', lambda d: d.put(d.reftable_offset, d.block + 512)),
    'block behind the end': ('one', lambda d: d.put(d.reftable_offset + 8, 1 << 30)),
    'block far behind the end': ('one', lambda d: d.put(d.reftable_offset + 8, 1 << 62)),
    'L1 entry without table': ('one', lambda d: d.put(d.l1_offset + 8, COPIED)),
}


@pytest.mark.parametrize('name', OURS_ONLY)
def test_mended_by_ours(tmp_path, images, name):
    kind, damage = OURS_ONLY[name]
    path = tmp_path / 'd.qcow2'
    path.write_bytes(damage(Disk(images[kind])).bytes)
    assert platter('check', '-f', 'qcow2', path).returncode in (1, 2)
    done = platter('check', '-f', 'qcow2', '-r', 'all', path)
    assert done.returncode == 0, done.stdout + done.stderr
    after = qemu('qemu-img', 'check', '-f', 'qcow2', path)
    assert after.returncode == 0, after.stdout + after.stderr
    assert len(path.read_bytes()) < 1 << 20


BITMAP_FAULTS = {
    'reserved bits': lambda d: d.put(bitmap_table(d), d.u64(bitmap_table(d)) | 2),
    'flags': lambda d: d.put(bitmap_directory(d) + 12, 0xff, 4),
    'type': lambda d: d.put(bitmap_directory(d) + 16, 5, 1),
    'granularity': lambda d: d.put(bitmap_directory(d) + 17, 63, 1),
    'table too large': lambda d: d.put(bitmap_directory(d) + 8, 0x8000001, 4),
    'table too long': lambda d: d.put(bitmap_directory(d) + 8, 3, 4),
    'directory too short': lambda d: d.put(bitmap_directory(d) + 18, 0xffff, 2),
}


@pytest.mark.parametrize('name', BITMAP_FAULTS)
def test_bitmaps_that_are_not_understood_are_kept(tmp_path, images, name):
    path = tmp_path / 'd.qcow2'
    disk = BITMAP_FAULTS[name](Disk(images['bitmaps']))
    path.write_bytes(disk.bytes)
    for mode in MODES:
        done = platter('check', '-f', 'qcow2', *mode, path)
        assert done.returncode in (1, 2), done.stdout + done.stderr
        assert 'Repairing' not in done.stderr
    for cluster in (disk.u64(bitmap_directory(disk)) // 4096, bitmap_directory(disk) // 4096):
        assert Disk(path).refcount(cluster) == 1


def test_bombs_are_bounded(tmp_path):
    """Every L1 entry of the largest L1 table at one L2 table, all of its entries at one cluster."""
    path = tmp_path / 'd.qcow2'
    entries, cluster = 4 << 20, 512
    l1 = 4 * cluster
    l2 = l1 + entries * 8
    header = struct.pack('>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3, 0, 0, 9, entries * 64 * cluster, 0,
                         entries, l1, cluster, 1, 0, 0, 0, 0, 0, 4, 104)
    with open(path, 'wb') as f:
        f.write(header.ljust(cluster, b'\0') + struct.pack('>Q', 2 * cluster).ljust(cluster, b'\0'))
        f.write((b'\0\1' * 4).ljust(2 * cluster, b'\0'))
        f.write(struct.pack('>Q', l2 | COPIED) * entries)
        f.write(struct.pack('>Q', l2 + cluster | COPIED) * 64 + bytes(cluster))
    command, environment = bounded(512 << 20, 'check', '-f', 'qcow2', path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False,
                          timeout=TIMEOUT)
    assert done.returncode == 2, done.stderr[-500:]
    assert 'Further findings are counted' in done.stderr


def test_a_finding_is_one_write(tmp_path):
    """There may be thousands. A socket that keeps messages apart shows each write."""
    path = make(tmp_path / 'd.qcow2', 'cluster_size=4k', 'write 0 64k')
    disk = Disk(path)
    for i in range(8):
        disk.entry(i, 0x1234500 | COPIED)
    path.write_bytes(disk.bytes)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    done = subprocess.run([os.environ['PLATTER_BIN'], 'check', '-f', 'qcow2', path], stderr=theirs,
                          stdout=subprocess.DEVNULL, check=False, timeout=TIMEOUT)
    theirs.close()
    with ours:
        told = list(iter(lambda: ours.recv(4096), b''))
    assert done.returncode == 2 and len(told) > 8
    assert all(text.count(b'\n') == 1 and text.endswith(b'\n') for text in told), told


@pytest.mark.parametrize('cluster', [512, 4096, 65536])
def test_dirty_images_are_repaired_when_opened(tmp_path, cluster):
    path = make(tmp_path / 'd.qcow2', f'cluster_size={cluster},lazy_refcounts=on', 'write 0 512')
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 0 3M', '-c', 'write -P 4 9M 300k', '-c',
         'flush', '-c', 'abort', path)
    assert Image(path).incompatible & 1
    assert qemu('qemu-img', 'check', path).returncode == 2
    done = platter('io', '-f', 'qcow2', '-c', 'write -P 5 12M 64k', path)
    assert done.returncode == 0, done.stderr
    assert not Image(path).incompatible & 1
    assert qemu('qemu-img', 'check', path).returncode == 0
    for check in ('read -P 3 0 3M', 'read -P 4 9M 300k', 'read -P 5 12M 64k'):
        assert 'failed' not in qemu('qemu-io', '-f', 'qcow2', '-r', '-c', check, path).stdout
