# SPDX-License-Identifier: MIT
"""Persistent bitmaps of qcow2 images: platter bitmap beside qemu-img bitmap, and images that both
write in turn. What a bitmap holds is read from the file by a reader of this file's own."""
import itertools
import json
import mmap
import os
import random
import re
import shutil
import struct
import subprocess

import pytest

from tools_common import TIMEOUT, needs, platter, qemu

EXT_BITMAPS = 0x23852875
IN_USE, AUTO, EXTRA_COMPATIBLE = 1, 2, 4


# ---- a reader of the file ----

class Image:
    def __init__(self, path):
        with open(path, 'rb') as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.cluster = 1 << struct.unpack_from('>I', self.bytes, 20)[0]
        self.disk = struct.unpack_from('>Q', self.bytes, 24)[0]
        self.autoclear = struct.unpack_from('>Q', self.bytes, 88)[0]
        self.extension = self._extension()

    def _extension(self):
        pos = struct.unpack_from('>I', self.bytes, 100)[0]
        while True:
            kind, length = struct.unpack_from('>II', self.bytes, pos)
            if kind == 0:
                return None
            if kind == EXT_BITMAPS:
                return pos + 8
            pos += 8 + (length + 7) // 8 * 8

    def entries(self):
        """name -> (position, table, entries, flags, type, granularity bits)"""
        found = {}
        if self.extension is None:
            return found
        count, _, _, pos = struct.unpack_from('>IIQQ', self.bytes, self.extension)
        for _ in range(count):
            table, n, flags, kind, bits, name, extra = struct.unpack_from('>QIIBBHI', self.bytes, pos)
            at = pos + 24 + extra
            found[self.bytes[at:at + name].decode()] = (pos, table, n, flags, kind, bits)
            pos += (24 + extra + name + 7) // 8 * 8
        return found

    def dirty(self, name):
        """The granules that are dirty."""
        _, table, n, _, _, bits = self.entries()[name]
        granules = -(-self.disk // (1 << bits))
        found = set()
        for i in range(n):
            entry = struct.unpack_from('>Q', self.bytes, table + 8 * i)[0]
            if entry == 1:
                found.update(range(i * self.cluster * 8, (i + 1) * self.cluster * 8))
            elif entry:
                data = self.bytes[entry:entry + self.cluster]
                found.update((i * self.cluster + byte.start()) * 8 + k
                             for byte in re.finditer(rb'[^\0]', data, re.S)
                             for k in range(8) if byte[0][0] >> k & 1)
        assert all(g < granules for g in found)
        return found

    def all(self):
        """name -> (flags, granularity, dirty granules)"""
        return {name: (e[3], 1 << e[5], sorted(self.dirty(name))) for name, e in self.entries().items()}


def patch(path, pos, fmt, *values):
    with open(path, 'r+b') as file:
        file.seek(pos)
        file.write(struct.pack(fmt, *values))


# ---- two programs ----

def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


def ours_io(path, *commands):
    return platter('io', *itertools.chain(*(('-c', c) for c in commands)), path)


def theirs_io(path, *commands):
    return qemu('qemu-io', *itertools.chain(*(('-c', c) for c in commands)), path)


OURS, THEIRS = (platter, ours_io), (qemu_img, theirs_io)


def well(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def fresh(path, size='1M', *options):
    well(qemu_img('create', '-q', '-f', 'qcow2', *options, path, size))
    return path


def checked(path):
    """No error and no leak, says each of the two."""
    for program in (qemu_img, platter):
        done = program('check', path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def disk(tmp_path):
    return fresh(tmp_path / 'd.qcow2')


# ---- the command ----

@pytest.mark.parametrize('arguments, message', [
    ([], 'Need at least one of --add'),
    (['d', 'b'], 'Need at least one of --add'),
    (['--add', 'd'], 'Expecting filename and bitmap name'),
    (['--add', 'd', 'b', 'c'], 'Expecting filename and bitmap name'),
    (['-g', '64k', '--remove', 'd', 'b'], 'granularity only supported with --add'),
    (['-b', 'd', '--clear', 'd', 'b'], 'Merge bitmap source file only supported with --merge'),
    (['-F', 'qcow2', '--merge', 'b', 'd', 'b'], '-F only supported with -b'),
    (['--image-opts', '-f', 'qcow2', '--add', 'd', 'b'], 'exclude'),
    (['-g', 'xx', '--add', 'd', 'b'], 'xx'),
])
def test_wrong_command_lines(tmp_path, arguments, message):
    done = platter('bitmap', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_formats_without_bitmaps(tmp_path):
    path = tmp_path / 'd.raw'
    path.write_bytes(bytes(1 << 20))
    done = platter('bitmap', '--add', '-f', 'raw', path, 'b')
    assert done.returncode == 1
    assert "Operation add on bitmap b failed: Can't store persistent bitmaps" in done.stderr


COMMANDS = [
    ['--add', 'a'], ['--add', 'a'], ['--add', '-g', '4k', 'b'], ['--add', '-g', '512', '--disable', 'c'],
    ['--add', '-g', '2G', 'coarse'], ['--add', '-g', '0', 'usual'], ['--add', '-g', '3k', 'z'],
    ['--add', '-g', '256', 'z'], ['--add', ''], ['--add', 'x' * 1023],
    ['--add', 'x' * 1024], ['--add', 'käse und brot'], ['--disable', 'a'], ['--enable', 'a'],
    ['--disable', 'nope'], ['--merge', 'a', 'b'], ['--merge', 'nope', 'b'], ['--merge', 'a', 'nope'],
    ['--clear', 'b'], ['--clear', 'nope'], ['--remove', 'c'], ['--remove', 'nope'],
    ['--add', '--disable', '--merge', 'a', '--enable', 'd'], ['--add', '--remove', 'e'],
    ['--add', '--add', 'e'], ['--remove', '--clear', 'e'], ['--enable', '--disable', 'd'],
    ['--merge', 'a', '--merge', 'b', 'd'], ['--clear', '--merge', 'a', 'd'], ['--remove', 'a'],
]


@needs('qcow2')
@pytest.mark.parametrize('options', [[], ['-o', 'cluster_size=512'], ['-o', 'cluster_size=2M'],
                                     ['-o', 'compat=0.10']])
def test_the_commands_one_by_one(tmp_path, options):
    mine, theirs = fresh(tmp_path / 'm.qcow2', '1M', *options), fresh(tmp_path / 't.qcow2', '1M', *options)
    few = 5 if 'cluster_size=2M' in options else len(COMMANDS)
    for number, command in enumerate(COMMANDS[:few]):
        line = [*command[:-1], '-f', 'qcow2']
        a, b = platter('bitmap', *line, mine, command[-1]), qemu_img('bitmap', *line, theirs, command[-1])
        assert a.returncode == b.returncode, (command, a.stderr, b.stderr)
        if b.returncode and 'persistent' not in b.stderr and 'characters' not in b.stderr:
            assert b.stderr.split(': ', 1)[1].splitlines()[0] in a.stderr, command
        if number in (3, 12):
            for path, io in ((mine, ours_io), (theirs, theirs_io)):
                well(io(path, f'write {number * 1000} 70000', 'discard 512k 64k', 'write -z 900k 1k'))
        assert Image(mine).all() == Image(theirs).all(), command
        if number % 5 == 0:
            checked(mine)


@needs('qcow2')
def test_merge_from_another_file(tmp_path, disk):
    source = fresh(tmp_path / 's.qcow2')
    well(qemu_img('bitmap', '--add', '-g', '4k', source, 'from'))
    well(theirs_io(source, 'write 20k 1k'))
    well(platter('bitmap', '--add', '--merge', 'from', '-b', source, '-F', 'qcow2', disk, 'to'))
    assert Image(disk).dirty('to') == {0}
    before = source.read_bytes()
    assert platter('bitmap', '--merge', 'nope', '-b', source, '-F', 'qcow2', disk, 'to').returncode == 1
    assert source.read_bytes() == before
    larger = fresh(tmp_path / 'l.qcow2', '2M')
    well(platter('bitmap', '--add', larger, 'to'))
    done = platter('bitmap', '--merge', 'from', '-b', source, '-F', 'qcow2', larger, 'to')
    assert done.returncode == 1
    assert 'destination size is 2097152, source size is 1048576' in done.stderr


@needs('qcow2')
def test_too_large_a_bitmap(tmp_path):
    for size, granularity, code in (('2T', '512', 0), ('2049G', '512', 1), ('17T', '4k', 1)):
        path = fresh(tmp_path / 'd.qcow2', size)
        for program in (qemu_img, platter):
            done = program('bitmap', '--add', '-g', granularity, path, program.__name__)
            assert done.returncode == code
            assert code == 0 or 'Use larger granularity' in done.stderr


# ---- facts ----

@needs('qcow2')
def test_info(disk):
    for options, name in (([], 'a'), (['-g', '4k', '--disable'], 'b'), (['-g', '2G'], 'c')):
        well(platter('bitmap', '--add', *options, disk, name))
    pos = Image(disk).entries()['c'][0]
    patch(disk, pos + 12, '>I', IN_USE | AUTO)
    mine = json.loads(well(platter('info', '--output=json', disk)).stdout)
    theirs = json.loads(well(qemu_img('info', '--output=json', disk)).stdout)
    assert (mine['format-specific']['data']['bitmaps'] == theirs['format-specific']['data']['bitmaps'])
    wanted = [line for line in qemu_img('info', disk).stdout.splitlines() if line.startswith('  ')]
    shown = platter('info', disk).stdout.splitlines()
    assert [line for line in wanted if line not in shown] == []


@needs('qcow2')
def test_measure(tmp_path):
    for size, adds in (('1M', []), ('1M', [['b']]), ('1G', [['-g', '512', 'b']]),
                       ('100G', [['-g', '4k', 'b'], ['--disable', 'x' * 200]])):
        path = fresh(tmp_path / 'd.qcow2', size)
        for words in adds:
            well(platter('bitmap', '--add', *words[:-1], path, words[-1]))
        for options in ([], ['-o', 'cluster_size=4k'], ['-o', 'compat=0.10']):
            line = ['measure', '--output=json', '-O', 'qcow2', *options, path]
            assert json.loads(platter(*line).stdout) == json.loads(qemu_img(*line).stdout)


# ---- writing in turn ----

@needs('qcow2')
@pytest.mark.parametrize('seed', range(4))
def test_both_write_in_turn(tmp_path, seed):
    """The same program of changes, by us alone, by the reference alone, and by both in turn."""
    rng = random.Random(seed + int(os.environ.get('PLATTER_SEED', '0')))
    options = ['-o', f'cluster_size={rng.choice(["512", "4k", "64k"])}']
    size = 3 << 20
    disks = [(fresh(tmp_path / f'{n}.qcow2', str(size), *options), pair)
             for n, pair in enumerate(([OURS], [THEIRS], [OURS, THEIRS], [THEIRS, OURS]))]
    names = ['b%d' % i for i in range(3)]
    for step in range(14):
        kind = rng.choice(['io', 'io', 'io', 'bitmap', 'resize'])
        if kind == 'io':
            line = []
            for _ in range(rng.randrange(1, 4)):
                offset, length = rng.randrange(size // 512) * 512, rng.randrange(1, 200) * 512
                length = min(length, size - offset)
                line.append(f'{rng.choice(["write", "write -z", "discard"])} {offset} {length}')
        elif kind == 'bitmap':
            line = rng.choice([['--add', '-g', rng.choice(['512', '4k', '64k'])], ['--clear'],
                               ['--remove'], ['--enable'], ['--disable'], ['--merge', rng.choice(names)]])
            line = [*line, None, rng.choice(names)]
        else:
            size = rng.choice([size + 65536, size + 1000 * 512, size - 65536])
            line = ['--shrink', None, str(size)]
        codes = set()
        for path, programs in disks:
            program, io = programs[step % len(programs)]
            if kind == 'io':
                done = io(path, *line)
            else:
                done = program(kind, *[path if word is None else word for word in line])
            codes.add(done.returncode)
        assert len(codes) == 1, (seed, step, kind, line)
        states = [Image(path).all() for path, _ in disks]
        assert all(s == states[0] for s in states), (seed, step, kind, line)
    for path, _ in disks:
        checked(path)
        assert not any(flags & IN_USE for flags, _, _ in Image(path).all().values())


@needs('qcow2')
def test_their_server_shows_our_bits(tmp_path, disk):
    if not shutil.which('nbdinfo') or not shutil.which('qemu-nbd'):
        pytest.skip('nbdinfo or qemu-nbd is not installed')
    well(platter('bitmap', '--add', disk, 'b'))
    well(ours_io(disk, 'write 128k 64k', 'write 1023k 1k'))
    socket = tmp_path / 'sock'
    with subprocess.Popen(['qemu-nbd', '-r', '-f', 'qcow2', '-B', 'b', '-k', str(socket), '-t', str(disk)]) as server:
        try:
            while not socket.exists():
                assert server.poll() is None
            shown = subprocess.run(['nbdinfo', '--map=qemu:dirty-bitmap:b', '--json',
                                    f'nbd+unix:///?socket={socket}'], capture_output=True, text=True,
                                   check=True, timeout=TIMEOUT)
        finally:
            server.terminate()
            server.wait(TIMEOUT)
    dirty = [(e['offset'], e['length']) for e in json.loads(shown.stdout) if e['type']]
    assert dirty == [(131072, 65536), (983040, 65536)]


@needs('qcow2')
def test_reading_changes_nothing(disk):
    well(qemu_img('bitmap', '--add', disk, 'b'))
    before = disk.read_bytes()
    well(ours_io(disk, 'read 0 1M'))
    well(platter('io', '-r', '-c', 'read 0 1M', disk))
    for command in ('check', 'info', 'map'):
        well(platter(command, disk))
    assert disk.read_bytes() == before


@needs('qcow2')
def test_killed_while_open(disk):
    for name, words in (('auto', []), ('still', ['--disable'])):
        well(platter('bitmap', '--add', *words, disk, name))
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'io', '-f', 'qcow2', str(disk)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        process.stdin.write('write 0 64k\n')
        process.stdin.flush()
        while 'wrote' not in process.stdout.readline():
            assert process.poll() is None
        process.kill()
        process.wait(TIMEOUT)
    flags = {name: e[3] for name, e in Image(disk).entries().items()}
    assert flags == {'auto': IN_USE | AUTO, 'still': 0}
    for program in (platter, qemu_img):
        done = program('bitmap', '--clear', disk, 'auto')
        assert done.returncode == 1
        assert "Bitmap 'auto' is inconsistent and cannot be used" in done.stderr
    for command in (['resize', disk, '2M'], ['bitmap', '--merge', 'auto', disk, 'still']):
        assert platter(*command).returncode == 1
    well(platter('bitmap', '--remove', disk, 'auto'))
    well(platter('bitmap', '--enable', disk, 'still'))
    checked(disk)


@needs('qcow2')
def test_snapshots_and_bitmaps(disk):
    well(platter('snapshot', '-c', 's', disk))
    well(platter('bitmap', '--add', '--disable', disk, 'b'))
    for program in (platter, qemu_img):
        done = program('snapshot', '-a', 's', disk)
        assert done.returncode == 1
        assert 'Device has active dirty bitmaps' in done.stderr
    well(platter('snapshot', '-d', 's', disk))
    checked(disk)


@needs('qcow2')
def test_a_disk_grows_beyond_its_bitmap(tmp_path):
    path = fresh(tmp_path / 'd.qcow2', '2T')
    well(platter('bitmap', '--add', '-g', '512', path, 'b'))
    done = platter('resize', path, '4T')
    assert done.returncode == 1
    assert 'Use larger granularity' in done.stderr
    assert Image(path).all() == {'b': (AUTO, 512, [])}
    assert Image(path).disk == 2 << 40


# ---- hostile images ----


HEADER, ENTRY, TABLE = 'header', 'entry', 'table'
BROKEN = [
    (HEADER, 0, '>I', 0), (HEADER, 0, '>I', 2), (HEADER, 0, '>I', 65536), (HEADER, 0, '>I', 2**32 - 1),
    (HEADER, 8, '>Q', 0), (HEADER, 8, '>Q', 24), (HEADER, 8, '>Q', 33), (HEADER, 8, '>Q', 40),
    (HEADER, 8, '>Q', 2**63), (HEADER, 16, '>Q', 0), (HEADER, 16, '>Q', 0x50008),
    (HEADER, 16, '>Q', 2**40), (HEADER, 16, '>Q', 2**63), (HEADER, -4, '>I', 20), (HEADER, -4, '>I', 32),
    (HEADER, 4, '>I', 1),
    (ENTRY, 12, '>I', 8 | AUTO), (ENTRY, 12, '>I', EXTRA_COMPATIBLE), (ENTRY, 16, '>B', 0),
    (ENTRY, 16, '>B', 2), (ENTRY, 17, '>B', 0), (ENTRY, 17, '>B', 8), (ENTRY, 17, '>B', 32),
    (ENTRY, 17, '>B', 63), (ENTRY, 18, '>H', 0), (ENTRY, 18, '>H', 1024), (ENTRY, 18, '>H', 9),
    (ENTRY, 18, '>H', 2), (ENTRY, 20, '>I', 2**32 - 1), (ENTRY, 0, '>Q', 0),
    (ENTRY, 0, '>Q', 0x40200), (ENTRY, 0, '>Q', 2**63), (ENTRY, 8, '>I', 0),
    (ENTRY, 8, '>I', 2**27), (ENTRY, 8, '>I', 2**32 - 1),
]
UNUSABLE = [
    (ENTRY, 0, '>Q', 2**40), (ENTRY, 0, '>Q', 0x20000), (ENTRY, 0, '>Q', 0x10000), (ENTRY, 8, '>I', 2),
    (TABLE, 0, '>Q', 2), (TABLE, 0, '>Q', 2**63), (TABLE, 0, '>Q', 0x60001), (TABLE, 0, '>Q', 0x60200),
    (TABLE, 0, '>Q', 2**40), (TABLE, 0, '>Q', 0x30000), (TABLE, 0, '>Q', 0x50000),
]


def damage(path, what):
    image = Image(path)
    where, pos, fmt, value = what
    base = {HEADER: image.extension, ENTRY: image.entries()['b'][0], TABLE: image.entries()['b'][1]}[where]
    patch(path, base + pos, fmt, value)


@needs('qcow2')
@pytest.mark.parametrize('what', BROKEN, ids=str)
def test_broken_directories(disk, what):
    """The reference refuses these too."""
    well(qemu_img('bitmap', '--add', disk, 'b'))
    damage(disk, what)
    before = disk.read_bytes()
    assert theirs_io(disk, 'read 0 512').returncode == 1 or what[2:] == ('>H', 2)
    for done in (ours_io(disk, 'write 0 512'), platter('io', '-r', '-c', 'read 0 512', disk),
                 platter('bitmap', '--clear', disk, 'b')):
        assert done.returncode == 1 or what[2:] == ('>H', 2)
        assert done.returncode == 0 or len(done.stderr.splitlines()) <= 2
    done = platter('check', disk)
    assert done.returncode in (0, 1, 2, 3)
    if what[2:] != ('>H', 2):
        assert disk.read_bytes() == before


@needs('qcow2')
@pytest.mark.parametrize('what', UNUSABLE, ids=str)
def test_bitmaps_that_cannot_be_used(disk, what):
    """The disk is there, the bitmap comes up inconsistent, and is never clean."""
    well(qemu_img('bitmap', '--add', disk, 'b'))
    damage(disk, what)
    well(platter('io', '-r', '-c', 'read 0 512', disk))
    well(ours_io(disk, 'write 0 64k'))
    assert Image(disk).entries()['b'][3] == IN_USE | AUTO
    done = platter('bitmap', '--clear', disk, 'b')
    assert done.returncode == 1
    assert 'inconsistent' in done.stderr
    well(platter('bitmap', '--remove', disk, 'b'))
    assert Image(disk).extension is None
    well(theirs_io(disk, 'read -P 205 0 64k', 'write 64k 512k'))
    assert qemu_img('check', disk).returncode in (0, 3)


@needs('qcow2')
def test_extra_data(disk):
    """Compatible extra data stays and the bitmap is used; other makes it unusable, and stays."""
    for flags, usable in ((AUTO | EXTRA_COMPATIBLE, True), (AUTO, False)):
        well(qemu_img('bitmap', '--add', disk, 'b'))
        pos = Image(disk).entries()['b'][0]
        patch(disk, pos + 12, '>IBBHI8s', flags, 1, 16, 2, 4, b'XTRAbb\0\0')
        well(ours_io(disk, 'write 0 512'))
        image = Image(disk)
        assert image.entries()['bb'][3] == flags | (0 if usable else IN_USE)
        assert b'XTRAbb' in image.bytes[image.entries()['bb'][0]:][:64]
        if usable:
            assert image.dirty('bb') == {0}
        assert platter('bitmap', '--clear', disk, 'bb').returncode == (0 if usable else 1)
        well(platter('bitmap', '--remove', disk, 'bb'))


@needs('qcow2')
def test_somebody_without_bitmaps_wrote(disk):
    well(qemu_img('bitmap', '--add', disk, 'b'))
    patch(disk, 88, '>Q', 0)
    before = disk.read_bytes()
    well(platter('io', '-r', '-c', 'read 0 512', disk))
    assert disk.read_bytes() == before
    assert platter('bitmap', '--clear', disk, 'b').returncode == 1
    well(ours_io(disk, 'write 0 512'))
    well(platter('bitmap', '--add', disk, 'b'))
    assert Image(disk).all() == {'b': (AUTO, 65536, [])}
    assert platter('check', '-r', 'leaks', disk).returncode == 0
    checked(disk)


def warns(done):
    return ('a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n'
            'Some clusters may be leaked') in done.stderr


@needs('qcow2')
@pytest.mark.parametrize('command', ['info', 'check', 'map', 'compare', 'checksum'])
def test_it_is_told_that_somebody_without_bitmaps_wrote(command, disk):
    words = [command, disk, disk] if command == 'compare' else [command, disk]
    well(qemu_img('bitmap', '--add', disk, 'b'))
    assert not warns(platter(*words))
    patch(disk, 88, '>Q', 0)
    done = platter(*words)
    assert warns(done) and done.returncode == (3 if command == 'check' else 0)
    if command != 'checksum':
        theirs = qemu_img(*words)
        assert warns(theirs) and theirs.stderr.count('warning') == done.stderr.count('warning')


@needs('qcow2')
def test_that_is_told_until_it_is_opened_for_writing(disk):
    well(qemu_img('bitmap', '--add', disk, 'b'))
    patch(disk, 88, '>Q', 0)
    assert all(warns(platter('io', *options, '-c', 'read 0 512', disk)) for options in (['-r'], ['-r'], []))
    assert not warns(platter('io', '-c', 'read 0 512', disk)) and not warns(platter('info', disk))
    assert not warns(qemu_img('info', disk))
    assert platter('check', '-r', 'leaks', disk).returncode == 0
    checked(disk)


@needs('qcow2')
def test_a_daemon_tells_it_too(disk):
    well(qemu_img('bitmap', '--add', disk, 'b'))
    patch(disk, 88, '>Q', 0)
    nodes = [f'driver=file,filename={disk},node-name=f', 'driver=qcow2,file=f,node-name=q']
    done = platter('daemon', *itertools.chain(*(('--blockdev', node) for node in nodes)), '--export', 'nosuch')
    assert done.returncode == 1 and warns(done)


@needs('qcow2')
def test_many_bitmaps(tmp_path):
    path = fresh(tmp_path / 'd.qcow2', '1M', '-o', 'cluster_size=512')
    for number in range(40):
        well(platter('bitmap', '--add', path, f'n{number:04}'))
    well(ours_io(path, 'write 0 1M'))
    assert len(Image(path).all()) == 40
    well(theirs_io(path, 'write 0 1'))
    checked(path)


@needs('qcow2')
def test_lazy_refcounts_and_a_backing_file(tmp_path, disk):
    path = tmp_path / 'o.qcow2'
    fresh(path, '1M', '-o', 'lazy_refcounts=on', '-b', disk, '-F', 'qcow2')
    well(platter('bitmap', '--add', path, 'b'))
    well(ours_io(path, 'write 64k 1k'))
    assert Image(path).dirty('b') == {1}
    info = json.loads(qemu_img('info', '--output=json', path).stdout)
    assert info['backing-filename'] == str(disk)
    checked(path)
    well(theirs_io(path, 'write 0 1k'))
    assert Image(path).dirty('b') == {0, 1}


@needs('qcow2')
def test_bitmaps_that_share_clusters(disk):
    """What two bitmaps claim is given back with neither: somebody else may have it by then."""
    for name in ('a', 'b'):
        well(qemu_img('bitmap', '--add', disk, name))
    well(theirs_io(disk, 'write 0 64k'))
    entries = Image(disk).entries()
    patch(disk, entries['b'][0], '>Q', entries['a'][1])
    assert platter('bitmap', '--clear', disk, 'b').returncode == 1
    well(platter('bitmap', '--clear', disk, 'a'))
    assert platter('bitmap', '--clear', disk, 'b').returncode == 1
    assert Image(disk).entries()['b'][3] & IN_USE
    well(platter('bitmap', '--remove', disk, 'a'))
    well(ours_io(disk, 'write -P 7 64k 512k'))
    well(platter('bitmap', '--remove', disk, 'b'))
    well(ours_io(disk, 'write -P 9 576k 448k', 'read -P 7 64k 512k'))
    assert qemu_img('check', disk).returncode in (0, 3)


@pytest.mark.parametrize('at, how, value', [(0, '>I', 0), (0, '>I', 1), (0, '>I', 70000), (4, '>I', 1), (8, '>Q', 0),
                                            (8, '>Q', 1 << 40), (16, '>Q', 512), (-4, '>I', 23)])
def test_broken_extension_is_told_as_known(at, how, value, tmp_path):
    disk = tmp_path / 'disk.qcow2'
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M').returncode == 0
    for name in ('one', 'two'):
        assert qemu('qemu-img', 'bitmap', '--add', disk, name).returncode == 0
    data = bytearray(disk.read_bytes())
    struct.pack_into(how, data, Image(disk).extension + at, value)
    disk.write_bytes(data)
    ours, theirs = platter('info', disk), qemu('qemu-img', 'info', disk)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr.startswith(f"platter: info: Could not open '{disk}': " + theirs.stderr.split("': ")[1])
