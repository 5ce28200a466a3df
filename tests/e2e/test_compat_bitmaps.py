# SPDX-License-Identifier: MIT
"""Images whose bitmap directory is wrong beside qemu-img: both refuse them, the link says what is wrong with which entry,
and its check goes on, so that the rest of the image is looked at."""
import struct

import pytest

from img_lines import create, must, patch
from tools_common import called, needs, run

pytestmark = needs('qcow2')

# name: (what is patched, from there on, by which bytes, what is told)
FAULTS = {
    'table inside a cluster': ('entry', 0, struct.pack('>Q', 0x10001), "its table's offset is not valid"),
    'no table': ('entry', 0, bytes(8), "its table's offset is not valid"),
    'empty table': ('entry', 8, bytes(4), 'its table is empty or too large'),
    'huge table': ('entry', 8, b'\xff' * 4, 'its table is empty or too large'),
    'reserved flags': ('entry', 12, struct.pack('>I', 0x80), 'it has reserved flags'),
    'flag of extra data': ('entry', 12, struct.pack('>I', 4), 'it has a flag for extra data that it has not'),
    'unknown type': ('entry', 16, b'\x02', 'its type is unknown'),
    'fine granularity': ('entry', 17, b'\x03', 'its granularity is not supported'),
    'coarse granularity': ('entry', 17, b'\x28', 'its granularity is not supported'),
    'no name': ('entry', 18, bytes(2), 'entry at byte 0 has a name that is empty or too long'),
    'long name': ('entry', 18, struct.pack('>H', 2000), 'entry at byte 0 has a name that is empty or too long'),
    'long extra data': ('entry', 20, b'\xff' * 4, 'entry at byte 0 reaches past its end'),
    'directory behind the end': ('extension', 16, struct.pack('>Q', 1 << 30), 'the directory at offset 0x40000000 is not inside'),
}


def patched(folder, where, offset, data):
    """An image, disk.qcow2, with one bitmap."""
    create(folder, 'disk.qcow2')
    must(folder, 'qemu-img', 'bitmap', '--add', 'disk.qcow2', 'b0')
    image = (folder / 'disk.qcow2').read_bytes()
    extension = image.index(b'\x23\x85\x28\x75') + 8
    directory = struct.unpack_from('>Q', image, extension + 16)[0]
    patch(folder, 'disk.qcow2', (extension if where == 'extension' else directory) + offset, data)


@pytest.mark.parametrize('fault', FAULTS)
def test_what_is_wrong_is_told(fault, tmp_path):
    link = called(tmp_path, 'qemu-img')
    *place, told = FAULTS[fault]
    patched(tmp_path, *place)
    ours, theirs = (run([p, 'info', 'disk.qcow2'], cwd=tmp_path) for p in (link, 'qemu-img'))
    assert ours.returncode == theirs.returncode == 1
    assert told in ours.stderr and told not in theirs.stderr
    ours, theirs = (run([p, 'check', 'disk.qcow2'], cwd=tmp_path) for p in (link, 'qemu-img'))
    assert told in ours.stderr and 'Image end offset' in ours.stdout and ours.returncode in (1, 2)
    assert 'Could not open' in theirs.stderr and theirs.returncode == 1


def test_a_table_behind_the_end_is_lost(tmp_path):
    """The reference takes zeroes for it and resizes the disk; nobody knows what the bitmap was."""
    link = called(tmp_path, 'qemu-img')
    patched(tmp_path, 'entry', 0, struct.pack('>Q', 1 << 30))
    ours = run([link, 'resize', 'disk.qcow2', '2M'], cwd=tmp_path)
    assert ours.returncode == 1 and "Bitmap 'b0' is inconsistent" in ours.stderr
    theirs = run(['qemu-img', 'resize', 'disk.qcow2', '2M'], cwd=tmp_path)
    assert theirs.returncode == 0


@pytest.mark.parametrize('repair', ['leaks', 'all'])
def test_a_repair_drops_what_is_not_believed(repair, tmp_path):
    """Bitmaps of an image that a program without bitmaps has changed. A check alone leaves all as it is."""
    link = called(tmp_path, 'qemu-img')
    told = []
    for program in (link, 'qemu-img'):
        create(tmp_path, 'disk.qcow2')
        must(tmp_path, 'qemu-img', 'bitmap', '--add', 'disk.qcow2', 'b0')
        patch(tmp_path, 'disk.qcow2', 88, bytes(8))
        before = (tmp_path / 'disk.qcow2').read_bytes()
        assert run([program, 'check', 'disk.qcow2'], cwd=tmp_path).returncode == 3
        assert (tmp_path / 'disk.qcow2').read_bytes() == before
        done = run([program, 'check', '-r', repair, 'disk.qcow2'], cwd=tmp_path)
        again = run(['qemu-img', 'check', 'disk.qcow2'], cwd=tmp_path)
        told.append((done.stdout, done.returncode, again.stdout, again.stderr, b'\x23\x85\x28\x75' in
                     (tmp_path / 'disk.qcow2').read_bytes()[:4096]))
    assert told[0] == told[1] and told[0][3:] == ('', False)
