# SPDX-License-Identifier: MIT
"""Image locks between platter and the reference programs: each refuses what the other holds, and
both hold the same bytes."""
import fcntl
import os
import shutil
import struct
import subprocess
import time
from contextlib import contextmanager

import pytest

from tools_common import called, platter, qemu, run, serving

PERMISSIONS = ['consistent read', 'write', 'write unchanged', 'resize']
MODES = {'rw': [], 'ro': ['-r'], 'shared': ['-r', '-U']}
F_OFD_SETLK = 37


@pytest.fixture(name='image')
def image_fixture(tmp_path):
    path = tmp_path / 'disk.img'
    with open(path, 'wb') as f:
        f.truncate(1 << 20)
    return path


def held_bytes(path):
    """The locked bytes of a file, as the kernel lists them."""
    inode = os.stat(path).st_ino
    held = set()
    with open('/proc/locks', encoding='ascii') as f:
        for line in f:
            words = line.split()
            if words[1] == 'OFDLCK' and words[5].endswith(f':{inode}') and words[7] != 'EOF':
                held.update(range(int(words[6]), int(words[7]) + 1))
    return held


@contextmanager
def locking(path, *offsets):
    """Locks of another open file description."""
    fd = os.open(path, os.O_RDWR)
    try:
        for offset in offsets:
            fcntl.fcntl(fd, F_OFD_SETLK,
                        struct.pack('hhqqi4x', fcntl.F_RDLCK, os.SEEK_SET, offset, 1, 0))
        yield
    finally:
        os.close(fd)


@contextmanager
def holding(command, path):
    """A program that has the image open; it ends when its input does."""
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            until = time.monotonic() + 60
            while not held_bytes(path) and time.monotonic() < until:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def io_command(program, *arguments):
    if program == 'platter':
        return [os.environ['PLATTER_BIN'], 'io', '-f', 'raw', *arguments]
    if not shutil.which('qemu-io'):
        pytest.skip('qemu-io is not installed')
    return ['qemu-io', '-f', 'raw', *arguments]


@pytest.mark.parametrize('mode', MODES)
def test_same_bytes(image, mode):
    held = {}
    for program in ('platter', 'qemu-io'):
        with holding(io_command(program, *MODES[mode], image), image):
            held[program] = held_bytes(image)
        assert not held_bytes(image)
    assert held['platter'] == held['qemu-io']


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('offset', [*range(100, 104), *range(200, 204)])
def test_same_refusals(image, mode, offset):
    with locking(image, offset):
        ours = platter('io', '-f', 'raw', *MODES[mode], '-c', 'length', image)
        theirs = qemu('qemu-io', '-f', 'raw', *MODES[mode], '-c', 'length', image)
    assert (ours.returncode == 0) == (theirs.returncode == 0), ours.stderr + theirs.stderr
    if ours.returncode != 0:
        text = f'Failed to get "{PERMISSIONS[offset - 200]}" lock'
        assert text in ours.stderr
        assert text in theirs.stderr
        assert str(os.getpid()) in ours.stderr  # who holds it
        assert 'disk.img' in ours.stderr


@pytest.mark.parametrize('offset', [*range(100, 104), *range(200, 204)])
def test_same_refusals_of_create(image, offset):
    with open(image, 'r+b') as f:
        f.write(b'content')
    with locking(image, offset):
        ours = platter('create', '-f', 'raw', image, '2M')
        assert image.stat().st_size == (2 << 20 if ours.returncode == 0 else 1 << 20)
        theirs = qemu('qemu-img', 'create', '-f', 'raw', image, '2M')
    assert (ours.returncode == 0) == (theirs.returncode == 0), ours.stderr + theirs.stderr
    if ours.returncode != 0:
        assert 'lock' in ours.stderr
        assert image.read_bytes()[:7] == b'content'


def test_served_disk_is_ours_alone(image, tmp_path):
    with serving('-f', 'raw', '-k', tmp_path / 's', image):
        theirs = qemu('qemu-io', '-f', 'raw', '-c', 'write 0 512', image)
        assert theirs.returncode != 0
        assert 'lock' in theirs.stderr
        ours = platter('io', '-f', 'raw', '-c', 'write 0 512', image)
        assert ours.returncode != 0
        assert 'Failed to get' in ours.stderr
        assert '(platter' in ours.stderr
        theirs = qemu('qemu-io', '-f', 'raw', '-r', '-U', '-c', 'read 0 512', image)
        assert theirs.returncode == 0, theirs.stderr
    assert not held_bytes(image)


def test_disk_of_the_reference_is_not_emptied(image, tmp_path):
    if not shutil.which('qemu-nbd'):
        pytest.skip('qemu-nbd is not installed')
    with open(image, 'r+b') as f:
        f.write(b'content')
    with holding(['qemu-nbd', '-t', '-f', 'raw', '-k', tmp_path / 's', image], image):
        ours = platter('create', '-f', 'raw', image, '2M')
        assert ours.returncode != 0
        assert 'Failed to get "resize" lock' in ours.stderr
        assert 'qemu-nbd' in ours.stderr
    assert image.stat().st_size == 1 << 20
    assert image.read_bytes()[:7] == b'content'


def test_locking_off(image):
    with locking(image, 200, 201, 202, 203):
        options = f'driver=raw,file.driver=file,file.filename={image},file.locking=off'
        ours = platter('io', '--image-opts', '-c', 'write 0 512', options)
        assert ours.returncode == 0, ours.stderr


def test_force_share_is_for_readers(image):
    ours = platter('io', '-f', 'raw', '-U', '-c', 'read 0 512', image)
    assert ours.returncode != 0
    assert 'read-only' in ours.stderr


@pytest.mark.parametrize('line', ['info disk', 'resize disk 2M', 'compare disk disk', 'snapshot -c x disk',
                                  'convert disk new', 'convert -f raw -O qcow2 new.raw disk'])
def test_what_is_told_of_an_image_in_use(line, tmp_path):
    """By qemu-img's name the reference's line; the native program knows who holds it."""
    link = called(tmp_path, 'qemu-img')
    disk = tmp_path / 'disk'
    (tmp_path / 'new.raw').write_bytes(bytes(512))
    assert run(['qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M']).returncode == 0
    with holding(['qemu-nbd', '-t', '-f', 'qcow2', '-k', tmp_path / 's', disk], disk) as holder:
        while not (tmp_path / 's').exists():  # while it opens, locks come and go
            time.sleep(0.01)
        ours, theirs, native = (run([program, *line.split()], cwd=tmp_path)
                                for program in (link, 'qemu-img', os.environ['PLATTER_BIN']))
    assert '\nIs another process using the image [disk]?\n' in theirs.stderr
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert native.stderr.endswith(f'\nThe image [disk] is in use by process {holder.pid} (qemu-nbd)\n')


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('program', ['platter', 'qemu-img'])
def test_overlay_on_a_disk_in_use(tmp_path, program, fmt):
    qemu('qemu-img', 'create', '-q', '-f', fmt, 'base', '1M', cwd=tmp_path)
    command = [os.environ['PLATTER_BIN']] if program == 'platter' else [called(tmp_path, program)]
    with holding(['qemu-io', '-f', fmt, tmp_path / 'base'], tmp_path / 'base'):
        done = run([*command, 'create', '-f', 'qcow2', '-b', 'base', '-F', fmt, 'over'], cwd=tmp_path)
        assert done.returncode == 0 and done.stderr == ''
    assert qemu('qemu-img', 'check', 'over', cwd=tmp_path).returncode == 0
