# SPDX-License-Identifier: MIT
"""platter bench beside qemu-img bench: the same arguments, the same lines."""
import re

import pytest

from tools_common import platter, qemu


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'd.raw'
    with open(path, 'wb') as f:
        f.truncate(1 << 20)
    return path


def without_time(text):
    return re.sub(r'in \d+\.\d{3} seconds', 'in TIME seconds', text)


@pytest.mark.parametrize('arguments', [
    [],
    ['-c', '0'],
    ['-c', '1'],
    ['-c', '1000'],
    ['-c', '100', '-d', '1'],
    ['-c', '10', '-d', '100'],
    ['-c', '100', '-s', '0x400'],
    ['-c', '16', '-s', '64k', '-S', '128k', '-o', '64k'],
    ['-c', '10', '-s', '0'],
    ['-c', '100', '-S', '512', '-s', '512', '-d', '7'],
    ['-c', '100', '-w'],
    ['-c', '100', '-w', '--pattern=65'],
    ['-c', '100', '-w', '--pattern', '0xff'],
    ['-c', '100', '-w', '-d', '8', '--flush-interval=8'],
    ['-c', '100', '-w', '-d', '8', '--flush-interval=30'],
    ['-c', '100', '-w', '-d', '8', '--flush-interval=30', '--no-drain'],
    ['-c', '100', '-t', 'writethrough', '-w'],
    ['-c', '100', '-t', 'unsafe', '-w', '--flush-interval=64'],
    ['-c', '100', '-i', 'threads'],
    ['-c', '100', '-U'],
])
def test_same_lines(disk, arguments):
    ours = platter('bench', '-f', 'raw', *arguments, disk)
    theirs = qemu('qemu-img', 'bench', '-f', 'raw', *arguments, disk)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert without_time(ours.stdout) == without_time(theirs.stdout)


@pytest.mark.parametrize('arguments', [
    ['-f', 'raw', 'null-co://'],
    ['--image-opts', 'driver=null-co,size=1G'],
    ['--image-opts', 'driver=null-aio,size=1G'],
    ['--image-opts', 'driver=raw,file.driver=null-co'],
])
def test_null_disks(arguments):
    ours = platter('bench', '-c', '1000', *arguments)
    theirs = qemu('qemu-img', 'bench', '-c', '1000', *arguments)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    assert without_time(ours.stdout) == without_time(theirs.stdout)


@pytest.mark.parametrize('arguments', [
    ['-o', '2M'],                # begins behind the end
    ['-s', '2M'],                # longer than the disk
    ['-s', '400k', '-c', '3'],   # crosses the end
    ['-s', '1M', '-S', '4k', '-c', '2'],
])
def test_requests_outside_the_disk_fail(disk, arguments):
    ours = platter('bench', '-f', 'raw', *arguments, disk)
    theirs = qemu('qemu-img', 'bench', '-f', 'raw', *arguments, disk)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stdout == theirs.stdout
    assert 'Failed request: Input/output error' in ours.stderr


def test_pattern_is_written(disk):
    done = platter('bench', '-f', 'raw', '-w', '-c', '4', '-s', '1k', '-S', '2k', '--pattern=0x41',
                   disk)
    assert done.returncode == 0
    data = disk.read_bytes()
    for i in range(4):
        assert data[i * 2048:i * 2048 + 2048] == b'A' * 1024 + b'\0' * 1024
    assert not any(data[8192:])


def test_quiet(disk):
    done = platter('bench', '-q', '-f', 'raw', '-c', '10', disk)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_reading_changes_nothing(disk):
    before = disk.stat().st_mtime_ns
    assert platter('bench', '-f', 'raw', '-c', '10', disk).returncode == 0
    assert disk.stat().st_mtime_ns == before


def test_guessed_format_is_told_before_writing(disk):
    done = platter('bench', '-w', '-c', '10', disk)
    assert done.returncode == 0
    assert 'was guessed: raw' in done.stderr
    assert platter('bench', '-c', '10', disk).stderr == ''


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['a', 'b'], "'b' is too much"),
    (['-c', 'x', 'a'], "'x' is not a number"),
    (['-c', '-1', 'a'], "'-1' is not a number"),
    (['-c', '1k', 'a'], "'1k' is not a number"),
    (['-d', '0', 'a'], 'out of range'),
    (['-d', '99999999', 'a'], 'out of range'),
    (['-s', '3G', 'a'], 'out of range'),
    (['-s', 'big', 'a'], "'big' is not a size"),
    (['-o', '-1', 'a'], "'-1' is not a size"),
    (['--pattern=256', '-w', 'a'], 'out of range'),
    (['--flush-interval=8', 'a'], 'only for writes'),
    (['-w', '--flush-interval=8', 'a'], 'smaller than the depth'),
    (['-t', 'bad', 'a'], "no cache mode 'bad'"),
    (['-i', 'bad', 'a'], "no aio mode 'bad'"),
    (['--no-drain=1', 'a'], 'takes no value'),
    (['nofile'], 'No such file or directory'),
    (['-f', 'raw', '/proc'], "'/proc'"),
])
def test_refusals(tmp_path, arguments, message):
    done = platter('bench', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ''
    assert message in done.stderr


def test_native_needs_direct(disk):
    done = platter('bench', '-f', 'raw', '-n', '-c', '10', disk)
    assert done.returncode == 1
    assert 'cache.direct' in done.stderr
