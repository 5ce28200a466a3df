# SPDX-License-Identifier: MIT
"""platter map --picture: what its letters and colours say of a disk, on a terminal and in files."""
import os
import pty
import struct
import subprocess
import xml.etree.ElementTree
import zlib

import pytest

from tools_common import guessing, needs, platter, qemu

MIB = 1 << 20


@pytest.fixture(name='disk')
def disk_fixture(tmp_path):
    """40 MiB in a chain: base with data in 20M..30M, the disk with data in 0..10M and zeroes in 12M..14M."""
    for arguments in (['qemu-img', 'create', '-q', '-f', 'qcow2', tmp_path / 'base', '40M'],
                      ['qemu-io', '-f', 'qcow2', '-c', 'write 20M 10M', tmp_path / 'base'],
                      ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', tmp_path / 'base', '-F', 'qcow2', tmp_path / 'd'],
                      ['qemu-io', '-f', 'qcow2', '-c', 'write 0 10M', '-c', 'write -z 12M 2M', '-c', 'write 35M 64k',
                       tmp_path / 'd']):
        assert qemu(arguments[0], *arguments[1:]).returncode == 0
    return tmp_path / 'd'


def picture(*arguments):
    done = platter('map', '--picture', *arguments)
    assert (done.returncode, done.stderr) == (0, '')
    cells, _, legend = done.stdout.partition('\n\n')
    return cells.replace('\n', ''), legend


def expected(cell, disk_bytes):
    """The letters of the fixture's disk."""
    def share(begin, end, at):
        return max(0, min(end, at + cell, disk_bytes) - max(begin, at))
    letters = ''
    for at in range(0, disk_bytes, cell):
        own = share(0, 10 * MIB, at) + share(35 * MIB, 35 * MIB + 65536, at)
        below, zero = share(20 * MIB, 30 * MIB, at), share(12 * MIB, 14 * MIB, at)
        hole = min(cell, disk_bytes - at) - own - below - zero
        letters += ('1' if below > own else '#' if own >= zero + hole else '+') if own + below else 'z' if zero >= hole else '.'
    return letters


@needs('qcow2')
def test_letters(disk):
    cells, legend = picture('-f', 'qcow2', disk)
    cell = 32768  # 40 MiB over 80 * 16 cells, in sectors
    assert cells == expected(cell, 40 * MIB)
    assert set(cells) == set('#1z.')
    assert 'each cell is 32 KiB' in legend
    assert '# data' in legend and ': 10.1 MiB, 25.2 %' in legend
    assert '1 data of the backing file 1 below: 10 MiB, 25.0 %' in legend
    assert 'z zeroes: 2 MiB, 5.0 %' in legend and '. unallocated: 17.9 MiB' in legend


@needs('qcow2')
def test_window_of_a_disk(disk):
    cells, legend = picture('-f', 'qcow2', '-s', '9M', '-l', '2M', disk)
    assert 'each cell is 2 KiB' in legend
    assert cells == 512 * '#' + 512 * '.'


def test_partly(tmp_path):
    """A little data in the middle of much nothing is seen."""
    with open(tmp_path / 'd', 'wb') as f:
        f.truncate(1 << 40)
        f.seek(1 << 39)
        f.write(b'x' * 4096)
    cells, _ = picture('-f', 'raw', tmp_path / 'd')
    assert cells.count('+') == 1 and set(cells) == {'+', 'z'}


@pytest.mark.parametrize('size', [0, 1, 512, 513])
def test_small(tmp_path, size):
    (tmp_path / 'd').write_bytes(size * b'x')
    cells, legend = picture('-f', 'raw', tmp_path / 'd')
    assert cells == -(-size // 512) * '#'
    assert 'each cell is 512 B' in legend


def on_terminal(columns, environment, *arguments):
    """What is written to a terminal of so many columns."""
    master, slave = pty.openpty()
    try:
        import fcntl  # pylint: disable=import-outside-toplevel
        import termios  # pylint: disable=import-outside-toplevel
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, columns, 0, 0))
        with subprocess.Popen([os.environ['PLATTER_BIN'], *guessing('map', '--picture', *arguments)],
                              env={**os.environ, 'TERM': 'xterm', **environment}, stdin=subprocess.DEVNULL,
                              stdout=slave) as process:
            os.close(slave)
            slave = -1
            text = b''
            while True:
                try:
                    more = os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
                if not more:
                    break
                text += more
            assert process.wait(60) == 0
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)
    return text.decode().replace('\r\n', '\n')


def test_terminal(tmp_path):
    (tmp_path / 'd').write_bytes(MIB * b'x')
    plain = on_terminal(40, {'NO_COLOR': '1'}, '-f', 'raw', tmp_path / 'd')
    rows = plain.partition('\n\n')[0].split('\n')
    assert {len(row) for row in rows[:-1]} == {40} and len(rows) <= 16
    assert '\033' not in plain
    assert '\033' not in on_terminal(40, {'TERM': 'dumb'}, '-f', 'raw', tmp_path / 'd')
    colours = on_terminal(40, {'NO_COLOR': ''}, '-f', 'raw', tmp_path / 'd')
    assert colours.startswith('\033[34;7m#\033[0m')


# ---- files ----

def png_pixels(data):
    """(width, height, lines of rgb) of a PNG, whose checksums are right."""
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    chunks, at = {}, 8
    while at < len(data):
        n, = struct.unpack('>I', data[at:at + 4])
        body = data[at + 4:at + 8 + n]
        assert struct.unpack('>I', data[at + 8 + n:at + 12 + n])[0] == zlib.crc32(body)
        chunks[body[:4]] = body[4:]
        at += 12 + n
    assert list(chunks) == [b'IHDR', b'IDAT', b'IEND']
    width, height, *rest = struct.unpack('>IIBBBBB', chunks[b'IHDR'])
    assert rest == [8, 2, 0, 0, 0]
    raw = zlib.decompress(chunks[b'IDAT'])
    assert len(raw) == height * (1 + 3 * width)
    lines = [raw[y * (1 + 3 * width):(y + 1) * (1 + 3 * width)] for y in range(height)]
    assert all(line[0] == 0 for line in lines)
    return width, height, [line[1:] for line in lines]


@needs('qcow2')
def test_png(disk, tmp_path):
    done = platter('map', '-f', 'qcow2', '-o', tmp_path / 'p.png', disk)
    if 'no .png' in done.stderr:
        pytest.skip('this build has no PNG')
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    width, height, lines = png_pixels((tmp_path / 'p.png').read_bytes())
    assert (width, height) == (128 * 8, 64 * 8)
    cell = 40 * MIB // (128 * 64)

    def at(offset):
        row, column = divmod(offset // cell, 128)
        return lines[row * 8][column * 24:column * 24 + 3].hex()
    assert [at(o * MIB) for o in (0, 9, 13, 25, 16)] == ['1f5fbf', '1f5fbf', 'c8c8c8', '2e8b57', 'f2f2f2']


@needs('qcow2')
def test_svg(disk, tmp_path):
    done = platter('map', '-f', 'qcow2', '-o', tmp_path / 'p.svg', disk)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    root = xml.etree.ElementTree.parse(tmp_path / 'p.svg').getroot()
    space = '{http://www.w3.org/2000/svg}'
    area = {}
    for rect in root.iter(space + 'rect'):
        if rect.get('height') == '8':
            area[rect.get('fill')] = area.get(rect.get('fill'), 0) + int(rect.get('width')) * 8
    total = 128 * 64 * 64
    assert abs(area['#1f5fbf'] / total - 0.25) < 0.01 and abs(area['#2e8b57'] / total - 0.25) < 0.01
    words = [t.text for t in root.iter(space + 'text')]
    assert any('data of the backing file 1 below: 10 MiB' in w for w in words)


@pytest.mark.parametrize('arguments, code, message', [
    (['-o', 'p.gif', 'd'], 2, "'p.gif' names no kind of picture"),
    (['-o', '.svg', 'd'], 2, "'.svg' names no kind of picture"),
    (['--picture', '--output=json', 'd'], 2, 'is no JSON'),
    (['-f', 'raw', '-o', 'no/where.svg', 'd'], 1, "could not create 'no/where.svg'"),
    (['-f', 'raw', '-o', '/dev/full/p.svg', 'd'], 1, 'could not create'),
])
def test_refuses(tmp_path, arguments, code, message):
    (tmp_path / 'd').write_bytes(bytes(512))
    done = platter('map', *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert message in done.stderr


def test_file_that_is_full(tmp_path):
    (tmp_path / 'd').write_bytes(bytes(512))
    (tmp_path / 'full.svg').symlink_to('/dev/full')
    done = platter('map', '-f', 'raw', '-o', 'full.svg', 'd', cwd=tmp_path)
    assert done.returncode == 1
    assert "could not write 'full.svg': No space left on device" in done.stderr


@pytest.mark.parametrize('end', ['svg', 'png'])
def test_part_of_a_picture_is_not_left(end, tmp_path):
    (tmp_path / 'd').write_bytes(bytes(512))
    done = subprocess.run(['sh', '-c', f'trap "" XFSZ; ulimit -f 0; exec "$PLATTER_BIN" map -f raw -o p.{end} d'],
                          cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"could not write 'p.{end}': File too large" in done.stderr
    assert not (tmp_path / f'p.{end}').exists()


def test_a_large_picture_on_a_full_disk(tmp_path):
    """More than a buffer of it: the first write that fails says why."""
    with open(tmp_path / 'd', 'wb') as disk:
        for i in range(512):
            disk.seek(i << 17)
            disk.write(b'x')
    (tmp_path / 'full.svg').symlink_to('/dev/full')
    done = platter('map', '-f', 'raw', '-o', 'full.svg', 'd', cwd=tmp_path)
    assert done.returncode == 1
    assert "could not write 'full.svg': No space left on device" in done.stderr
    assert (tmp_path / 'full.svg').is_symlink()
