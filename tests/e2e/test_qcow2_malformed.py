# SPDX-License-Identifier: MIT
"""Malformed qcow2 images: each is looked at, checked, read and written; nothing crashes, hangs or takes
memory that the file does not warrant, and what must be refused is refused with a text that says why."""
import re
import shutil
import struct
import subprocess

import pytest

from qcow2_maker import COMPRESSED, COPIED, ZERO, Image
from tools_common import TIMEOUT, bounded

MEMORY = 512 << 20
OK, REFUSED = 'ok', 'refused'


def start(*arguments):
    command, environment = bounded(MEMORY, *arguments)
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, errors='replace')


def answer(process):
    try:
        text = process.communicate(timeout=TIMEOUT)[0]
    finally:
        process.kill()
    assert 0 <= process.returncode < 100, (process.args, process.returncode, text)
    assert len(text) < 2000000
    assert not re.search(r'[\x00-\x08\x0b-\x1f\x7f]', text), 'control characters reach the terminal'
    return process.returncode, text


def run(*arguments):
    return answer(start(*arguments))


def run_all(commands):
    """All at one time: what they cost is above all to start."""
    processes = [start(*command) for command in commands]
    try:
        return [answer(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


CASES = []


def case(name, opens=OK, says='', check=None, read=None, write=None, **shape):
    """opens: whether it opens read-only. says: in the text of what is refused first. check: exit code, or a
    set of them. read, write: [(offset, bytes, OK or REFUSED)]."""
    def add(function):
        CASES.append(pytest.param(function, shape, opens, says, check, read or [], write or [], id=name))
        return function
    return add


def plain(**shape):
    image = Image(**shape)
    image.put_data(0, 0x11)
    return image


# ---- the header (I01, I02, I03, I04, I05 of the catalogue of threats) ----

def header(name, says, opens=REFUSED, check=None, read=None, shape=None, **fields):
    def change(image):
        image.header.update(fields)
    case(name, opens, says, check, read, **(shape or {}))(change)


for length in (0, 3, 4, 60, 71, 72, 100, 103):
    def cut(image, length=length):
        image.truncate = length
    case(f'file of {length} bytes', REFUSED)(cut)

header('magic', 'qcow2', magic=0x514649fc)
header('version 0', 'version', version=0)
header('version 1', 'version', version=1)
header('version 4', 'version', version=4)
header('cluster bits 0', 'luster', cluster_bits=0)
header('cluster bits 8', 'luster', cluster_bits=8)
header('cluster bits 22', 'luster', cluster_bits=22)
header('cluster bits 2^32-1', 'luster', cluster_bits=0xffffffff)
header('refcount order 7', 'efcount|Reference count', refcount_order=7)
header('refcount order 2^32-1', 'efcount|Reference count', refcount_order=0xffffffff)
header('header length 0', 'eader', header_bytes=0)
header('header length 96', 'eader', header_bytes=96)
header('header length beyond the cluster', 'eader', header_bytes=0x10000 + 8)
header('header length 2^32-8', 'eader', header_bytes=0xfffffff8)
header('size 2^64-1', 'size|L1|large|big', size=(1 << 64) - 1)
header('size 2^63', 'size|L1|large|big', size=1 << 63)
header('size beyond the L1 table', 'L1', size=(8192 << 16) * 2 + 1)
header('L1 of 2^32-1 entries', 'L1', l1_entries=0xffffffff)
header('L1 one entry above the limit', 'L1', l1_entries=(32 << 20) // 8 + 1)
header('L1 unaligned', 'L1', l1_offset=3 * 65536 + 512)
header('L1 near 2^63', 'L1', l1_offset=(1 << 63) - 65536)
header('L1 at 2^64-65536', 'L1', l1_offset=(1 << 64) - 65536)
header('L1 past the end', 'L1', l1_offset=1 << 40)
header('refcount table unaligned', 'efcount|Reference count', reftable_offset=65536 + 8)
header('refcount table past the end', 'efcount|Reference count', reftable_offset=1 << 40)
header('refcount table near 2^63', 'efcount|Reference count', reftable_offset=(1 << 63) - 65536)
header('refcount table of 2^32-1 clusters', 'efcount|Reference count', reftable_clusters=0xffffffff)
header('refcount table above the limit', 'efcount|Reference count', reftable_clusters=129)
header('refcount table of no cluster', '', opens={OK, REFUSED}, reftable_clusters=0)
header('snapshot table unaligned', 'napshot', snapshots=1, snapshots_offset=65536 + 1)
header('snapshot table past the end', 'napshot', snapshots=1, snapshots_offset=1 << 40)
header('65537 snapshots', 'napshot', snapshots=65537, snapshots_offset=3 * 65536)
header('2^32-1 snapshots', 'napshot', snapshots=0xffffffff, snapshots_offset=3 * 65536)
header('unknown incompatible bit', 'ncompatible|feature', incompatible=1 << 5)
header('unknown incompatible bit 63', 'ncompatible|feature', incompatible=1 << 63)
header('unknown compatible and autoclear bits', '', opens=OK, check=0, compatible=1 << 40, autoclear=1 << 40)
header('compression bit without a type', 'ompression', incompatible=8, compression=0)
header('compression type without the bit', 'ompression', compression=1)
header('compression type 2', 'ompression', incompatible=8, compression=2)
header('extended L2 with small clusters', 'luster|xtended', incompatible=16, shape={'cluster_bits': 12})
header('encrypted, AES', 'ncrypt', crypt=1)
header('encrypted, LUKS, without a header', 'ncrypt|rypt', crypt=2)
header('encryption method 3', 'ncrypt', crypt=3)
header('data file without a name', 'ata', incompatible=4)
header('raw data file bit alone', '', opens={OK, REFUSED}, autoclear=2)


@case('unknown feature is named from the table', REFUSED, 'frobnicate')
def named_feature(image):
    image.header['incompatible'] = 1 << 9
    image.extensions.append((0x6803f857, bytes([0, 9]) + b'frobnicate'.ljust(46, b'\0')))


@case('name of an unknown feature with escapes', REFUSED, 'x1b|feature')
def escaped_feature(image):
    image.header['incompatible'] = 1 << 9
    image.extensions.append((0x6803f857, bytes([0, 9]) + b'\x1b[31mevil\x07'.ljust(46, b'\0')))


@case('corrupt bit', OK, check={0, 2}, read=[(0, 512, OK)], write=[(0, 512, REFUSED)])
def corrupt_bit(image):
    image.header['incompatible'] = 2


@case('dirty bit', OK, read=[(0, 512, OK)], write=[(0, 512, OK)])
def dirty_bit(image):
    image.header['incompatible'] = 1
    image.refcounts[5] = 3


# ---- header extensions (I17) and names (I22, I23, I25) ----

@case('extension of 2^32-1 bytes', REFUSED, 'xtension')
def extension_huge(image):
    image.extensions.append(struct.pack('>II', 0x12345678, 0xffffffff))


@case('extension beyond the cluster', REFUSED, 'xtension')
def extension_beyond(image):
    image.extensions.append(struct.pack('>II', 0x12345678, 65536))


@case('extensions without an end', {OK, REFUSED})
def extension_endless(image):
    image.extensions.append((0x12345678, bytes(65536 - 112 - 8)))
    image.end_extensions = False


@case('thousands of extensions', {OK, REFUSED})
def extension_many(image):
    image.extensions += [(0x12345678 + i, b'') for i in range(8000)]


@case('bitmaps extension twice', {OK, REFUSED})
def extension_twice(image):
    image.add_bitmap()
    image.extensions.append(image.extensions[0])


@case('bitmaps extension of wrong length', {OK, REFUSED}, 'itmap')
def extension_bitmaps_short(image):
    image.header['autoclear'] = 1
    image.extensions.append((0x23852875, bytes(16)))


@case('bitmaps bit without the extension', {OK, REFUSED})
def bitmaps_bit_alone(image):
    image.header['autoclear'] = 1


@case('backing name of 1024 bytes', REFUSED, 'acking')
def backing_long(image):
    image.backing_name = b'x' * 1024


@case('backing name of 2^32-1 bytes', REFUSED, 'acking')
def backing_huge(image):
    image.header.update(backing_offset=200, backing_bytes=0xffffffff)


@case('backing name beyond the cluster', REFUSED, 'acking')
def backing_crosses(image):
    image.header.update(backing_offset=65530, backing_bytes=100)


@case('backing name past the end', REFUSED, 'acking')
def backing_past(image):
    image.header.update(backing_offset=1 << 50, backing_bytes=10)


@case('backing name in the header', REFUSED, 'acking')
def backing_in_header(image):
    image.header.update(backing_offset=8, backing_bytes=16)


@case('backing name with escapes', REFUSED, 'acking')
def backing_escapes(image):
    image.backing_name = b'\x1b]0;evil\x07name'


@case('backing name with NUL', REFUSED, 'acking')
def backing_nul(image):
    image.backing_name = b'base\0.raw'


@case('backing file /etc/passwd', REFUSED, 'acking|allow')
def backing_absolute(image):
    image.backing_name = b'/etc/passwd'
    image.extensions.append((0xe2792aca, b'raw'))


@case('backing file outside by ..', REFUSED, 'acking|allow')
def backing_dots(image):
    image.backing_name = b'../../../../../../../../etc/passwd'
    image.extensions.append((0xe2792aca, b'raw'))


@case('backing file of json text', REFUSED, 'acking|allow|json')
def backing_json(image):
    image.backing_name = b'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}'
    image.extensions.append((0xe2792aca, b'raw'))


@case('backing file /proc/self/fd/0', REFUSED, 'acking|allow')
def backing_proc(image):
    image.backing_name = b'/proc/self/fd/0'
    image.extensions.append((0xe2792aca, b'raw'))


@case('its own backing file', REFUSED, 'loop|itself|already|backing|ocked|deep')
def backing_self(image):
    image.backing_name = b'image.qcow2'
    image.extensions.append((0xe2792aca, b'qcow2'))


@case('data file /etc/passwd', REFUSED, 'ata|allow')
def data_file_absolute(image):
    image.header['incompatible'] = 4
    image.l2 = {}
    image.extensions.append((0x44415441, b'/etc/passwd'))


@case('data file of json text', REFUSED, 'ata|json|allow')
def data_file_json(image):
    image.header['incompatible'] = 4
    image.l2 = {}
    image.extensions.append((0x44415441, b'json:{"driver":"null-co"}'))


@case('its own data file', REFUSED, '')
def data_file_self(image):
    image.header['incompatible'] = 4
    image.l2 = {}
    image.extensions.append((0x44415441, b'image.qcow2'))


# ---- L1 and L2 entries (I07, I08, I09, I13) ----

def l1_entry(name, entry, check=2):
    def change(image):
        image.l1 = [entry]
    case('L1 entry ' + name, OK, '', check, read=[(0, 512, REFUSED)], write=[(0, 512, REFUSED)])(change)


l1_entry('unaligned', 4 * 65536 + 512 | COPIED)
l1_entry('past the end', 1 << 40 | COPIED)
l1_entry('with reserved bits', 4 * 65536 | COPIED | 1 << 60)
l1_entry('with low reserved bits', 4 * 65536 | COPIED | 1)
l1_entry('exactly at the end', 6 * 65536 | COPIED)


def l1_onto(name, cluster):  # 0 is no table at all
    def change(image):
        image.l1 = [cluster * 65536 | COPIED]
    case('L1 entry to ' + name, OK, '', {2, 3}, write=[(0, 512, REFUSED)])(change)


l1_onto('the refcount table', 1)
l1_onto('the refcount block', 2)
l1_onto('itself', 3)


def l2_entry(name, entry, read=REFUSED, write=REFUSED, check=2, **shape):
    def change(image):
        image.l2[0] = entry
        image.refcounts.pop(5)
    case('L2 entry ' + name, OK, '', check, read=[(0, 512, read)], write=[(0, 512, write)], **shape)(change)


l2_entry('unaligned', 5 * 65536 + 512 | COPIED)
l2_entry('past the end', 1 << 40 | COPIED)
l2_entry('with reserved bits', 5 * 65536 | COPIED | 1 << 60, check={2, 3})
l2_entry('compressed past the end', COMPRESSED | 1 << 40)
l2_entry('compressed of more sectors than there are', COMPRESSED | 5 * 65536 + 65024 | 127 << 54,
         check={2, 3})
l2_entry('with subclusters both allocated and zero', (5 * 65536 | COPIED, 1 << 32 | 1), extended=True)
l2_entry('with allocated subclusters and no offset', (0, 1), extended=True)
l2_entry('to the header', 0 | COPIED, read={OK, REFUSED}, write={OK, REFUSED}, check={0, 2, 3})


def l2_onto(name, cluster):
    def change(image):
        image.l2[0] = cluster * 65536 | COPIED
        image.refcounts.pop(5)
    case('L2 entry to ' + name, OK, '', {2, 3}, write=[(0, 512, REFUSED)])(change)


l2_onto('the refcount table', 1)
l2_onto('the refcount block', 2)
l2_onto('the L1 table', 3)
l2_onto('its own table', 4)


@case('two guest clusters on one host cluster', OK, '', 2, read=[(0, 65536, OK)])
def shared_data(image):
    image.l2[1] = image.l2[0]


@case('two L1 entries on one L2 table', OK, '', 2, disk_clusters=8192 + 8)
def shared_l2(image):
    image.l1 = [4 * 65536 | COPIED, 4 * 65536 | COPIED]
    image.header['l1_entries'] = 2


@case('zero flag in version 2', OK, '', {0, 2, 3}, version=2)
def zero_in_v2(image):
    image.l2[1] = ZERO


# ---- refcounts (I06, I10) ----

@case('refcounts all zero', OK, '', 2, write=[(65536, 65536, REFUSED)])
def refcounts_zero(image):
    image.refcounts = {}


@case('refcount block does not count itself', OK, '', 2, write=[(65536, 65536, {OK, REFUSED})])
def refcount_own_zero(image):
    image.refcounts[2] = 0


@case('refcounts too high', OK, '', {2, 3}, write=[(0, 512, OK)])
def refcounts_high(image):
    image.refcounts = {i: 60000 for i in range(6)}


@case('refcount block unaligned', OK, '', {1, 2}, read=[(0, 512, OK)], write=[(65536, 512, REFUSED)])
def refblock_unaligned(image):
    image.reftable = [2 * 65536 + 512]


@case('refcount block past the end', OK, '', 2, read=[(0, 512, OK)], write=[(65536, 512, REFUSED)])
def refblock_past(image):
    image.reftable = [1 << 40]


@case('refcount block on the header', OK, '', 2, read=[(0, 512, OK)], write=[(65536, 512, REFUSED)])
def refblock_on_header(image):
    image.reftable = [0x1]


@case('refcount block is the refcount table', OK, '', 2, read=[(0, 512, OK)], write=[(65536, 512, REFUSED)])
def refblock_is_table(image):
    image.reftable = [65536]


@case('L1 on the header', {OK, REFUSED}, '')
def l1_on_header(image):
    image.header['l1_offset'] = 0


@case('L1 on the refcount table', OK, '', {2, 3}, write=[(65536, 512, REFUSED)])
def l1_on_reftable(image):
    image.header['l1_offset'] = 65536


@case('no refcount block at all', OK, '', 2, read=[(0, 512, OK)])
def no_refblock(image):
    image.reftable = [0]


# ---- compressed clusters (I12) ----

def compressed(name, stream, sectors=None):
    def change(image):
        image.put_compressed(1, stream=stream, sectors=sectors)
    case('compressed: ' + name, OK, '', None, read=[(0, 512, OK), (65536, 512, REFUSED)],
         write=[(65536 + 512, 512, REFUSED)])(change)


compressed('garbage', bytes(range(7, 256)) * 20)
compressed('nothing', b'')
compressed('an end before the cluster is full', b'\x03\x00')
compressed('a stored block of half a cluster', b'\x01\x00\x80\xff\x7f' + bytes(0x8000))


@case('compressed cluster in the header', OK, '', None, read=[(65536, 512, REFUSED)])
def compressed_in_header(image):
    image.l2[1] = COMPRESSED | 0


@case('zstd garbage', OK, '', None, read=[(65536, 512, REFUSED)])
def zstd_garbage(image):
    image.header.update(incompatible=8, compression=1)
    image.put_compressed(1, stream=b'\x28\xb5\x2f\xfd' + bytes(range(200)))


@case('zstd frame that wants a window of gigabytes', OK, '', None, read=[(65536, 512, REFUSED)])
def zstd_window(image):
    image.header.update(incompatible=8, compression=1)
    image.put_compressed(1, stream=b'\x28\xb5\x2f\xfd\x00\xa8' + bytes(64))


# ---- snapshots (I18) ----

@case('snapshot with 2^32-1 bytes of extra data', REFUSED, 'napshot')
def snapshot_extra(image):
    image.add_snapshot(entry=struct.pack('>QIHHIIQII', 3 * 65536, 1, 1, 1, 0, 0, 0, 0, 0xffffffff) + bytes(200))


@case('snapshot table cut by the end of the file', {OK, REFUSED}, 'napshot')
def snapshot_cut(image):
    image.add_snapshot(count=65536)


@case('snapshot L1 unaligned', {OK, REFUSED}, '', {1, 2, 3, 63})
def snapshot_l1_unaligned(image):
    image.add_snapshot(l1_offset=3 * 65536 + 8)


@case('snapshot L1 of 2^32-1 entries', {OK, REFUSED}, '')
def snapshot_l1_huge(image):
    image.add_snapshot(l1_offset=3 * 65536, l1_entries=0xffffffff)


@case('snapshot L1 past the end', {OK, REFUSED}, '')
def snapshot_l1_past(image):
    image.add_snapshot(l1_offset=1 << 40)


@case('snapshot L1 on the header', OK, '', {2, 3})
def snapshot_l1_header(image):
    image.add_snapshot(l1_offset=0)


@case('snapshot name with escapes', OK, '', 0)
def snapshot_escapes(image):
    image.add_snapshot(name=b'\x1b[2Jx\x00y')


# ---- bitmaps (I19) ----

def bitmap(title, opens=OK, check=None, says='', **fields):
    def change(image):
        image.add_bitmap(**fields)
    case('bitmap: ' + title, opens, says, check)(change)


bitmap('right', check=0)
bitmap('granularity 0', {OK, REFUSED}, granularity=0)
bitmap('granularity 63', {OK, REFUSED}, granularity=63)
bitmap('reserved flags', {OK, REFUSED}, flags=0x80)
bitmap('type 2', {OK, REFUSED}, kind=2)
bitmap('no name', {OK, REFUSED}, name=b'')
bitmap('name of 1024 bytes', {OK, REFUSED}, name=b'n' * 1024)
bitmap('table past the end', {OK, REFUSED}, table=1 << 40)
bitmap('table unaligned', {OK, REFUSED}, table=4 * 65536 + 8)
bitmap('table on the L2 table', {OK, REFUSED}, table=4 * 65536)
bitmap('table of 2^32-1 entries', {OK, REFUSED}, table_entries=0xffffffff)
bitmap('extra data of 2^32-1 bytes', {OK, REFUSED},
       directory=struct.pack('>QIIBBHI', 4 * 65536, 1, 2, 1, 16, 3, 0xffffffff) + b'map' + bytes(5))
bitmap('2^32-1 bitmaps', {OK, REFUSED}, count=0xffffffff)
bitmap('directory of 2^60 bytes', {OK, REFUSED}, directory_bytes=1 << 60)
bitmap('directory of 0 bytes', {OK, REFUSED}, directory_bytes=0)
bitmap('in use', check=0, flags=3)


@case('two bitmaps of one name', {OK, REFUSED})
def bitmap_twice(image):
    bits = image.allocate(b'\x05')
    table = image.allocate(struct.pack('>Q', bits))
    entry = struct.pack('>QIIBBHI', table, 1, 2, 1, 16, 3, 0) + b'map' + bytes(5)
    image.add_bitmap(directory=entry + entry, count=2)


# ---- running them ----

def expect(state, code, text, what):
    states = state if isinstance(state, set) else {state}
    got = OK if code == 0 else REFUSED
    assert got in states, f'{what}: {got} ({code}), {states} wanted: {text}'
    if got == REFUSED:
        assert text.strip(), f'{what} was refused without a word'
    return got


def looks(path, size, opened):
    """What only reads; whatever it answers, it answers."""
    yield 'inspect', '-f', 'qcow2', path
    yield 'info', '-f', 'qcow2', path
    if opened:
        yield 'map', '-f', 'qcow2', path
        yield 'snapshot', '-l', path
        yield 'io', '-r', '-f', 'qcow2', '-c', f'read 0 {min(size, 1 << 20)}', '-c', 'map', path


def changes(opened):
    """What writes, each to a copy. An image that cannot be opened refuses all of it in one place, but for
    check, which opens more."""
    yield 'check', '-q', '-r', 'all', '-f', 'qcow2'
    yield ('io', '-f', 'qcow2', '-d', 'unmap', '-c', 'write -P 1 100 70000', '-c', 'write -z 0 128k',
           '-c', 'discard 0 192k', '-c', 'write -c 64k 64k', '-c', 'flush')
    if opened:
        yield 'snapshot', '-a', '1'
        yield 'snapshot', '-d', '1'
        yield 'snapshot', '-c', 'new'
        yield 'resize', '-q', '-f', 'qcow2'


def run_copies(path, commands):
    """Each command on a copy of the image of its own."""
    full = []
    for i, command in enumerate(commands):
        copy = shutil.copyfile(path, f'{path}.copy{i}')
        full.append([*command, copy, *(['2M'] if command[0] == 'resize' else [])])
    return run_all(full)


@pytest.mark.parametrize('function, shape, opens, says, check, read, write', CASES)
def test_malformed(tmp_path, function, shape, opens, says, check, read, write):
    image = plain(**shape)
    function(image)
    path = image.write(str(tmp_path / 'image.qcow2'))
    before = open(path, 'rb').read()

    code, text = run('io', '-r', '-f', 'qcow2', '-c', 'length', path)
    opened = expect(opens, code, text, 'open') == OK
    if not opened:
        assert re.search(says, text), f'{says!r} is not in {text!r}'
    reads = [('io', '-r', '-f', 'qcow2', '-c', f'read {offset} {length}', path) for offset, length, _ in read]
    answers = run_all([('check', '-f', 'qcow2', path), *reads, *looks(path, 8 * image.cluster, opened)])
    code, text = answers[0]
    if check is not None:
        assert code in (check if isinstance(check, set) else {check}), (code, text)
    for (offset, _, state), (code, text) in zip(read, answers[1:]):
        expect(state, code, text, f'read at {offset}')
    assert open(path, 'rb').read() == before, 'looking at it has changed it'
    writes = [('io', '-f', 'qcow2', '-c', f'write -P 9 {offset} {length}', '-c', 'flush')
              for offset, length, _ in write]
    for (offset, _, state), (code, text) in zip(write, run_copies(path, [*writes, *changes(opened)])):
        expect(state, code, text, f'write at {offset}')


def test_many_failed_opens(tmp_path):
    """A claim of terabytes costs nothing: a sparse disk of 2 EiB opens within the limits of run()."""
    image = Image(cluster_bits=21)
    image.header['size'] = 1 << 60
    image.header['l1_entries'] = (1 << 60) // ((1 << 18) * (1 << 21))
    path = image.write(str(tmp_path / 'huge.qcow2'))
    with open(path, 'r+b') as f:
        f.truncate(64 << 20)
    run('info', '-f', 'qcow2', path)
    run('check', '-f', 'qcow2', path)
    code, text = run('io', '-r', '-f', 'qcow2', '-c', 'read 1P 64k', path)
    assert code == 0, text
