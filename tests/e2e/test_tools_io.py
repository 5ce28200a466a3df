# SPDX-License-Identifier: MIT
"""platter io beside qemu-io: the same commands give the same lines and exit codes."""
import fcntl
import os
import re
import subprocess
import termios

import pytest

from nbd_common import until
from tools_common import TIMEOUT, called, guessing, platter, qemu, serving

SIZE = 1 << 20


@pytest.fixture
def disks(tmp_path):
    paths = tmp_path / 'ours.raw', tmp_path / 'theirs.raw'
    for path in paths:
        with open(path, 'wb') as f:
            f.write(bytes(i % 251 for i in range(8192)))
            f.truncate(SIZE)
    (tmp_path / 'pattern').write_bytes(b'abc')
    return paths


def without_time(text):
    text = re.sub(r'\d\d\.\d\d sec \(.*/sec\)', 'TIME', text)
    return re.sub(r'^(\d+,\d+),.*$', r'\1,TIME', text, flags=re.M)


# Each line of commands runs in one session on equal disks.
SESSIONS = [
    ['read 0 512'],
    ['read -P 0 8k 512'],
    ['read -P 1 8k 512'],
    ['read -P 1 8k 512', 'read 0 1k'],
    ['read -v 0 40'],
    ['read -v 10 33'],
    ['read -v 4090 100'],
    ['read -q 0 512'],
    ['read -C 0 512'],
    ['read -C -P 0 8k 512'],
    ['read -P 0 -s 10 -l 20 8k 512'],
    ['read -P 1 -l 20 8k 512'],
    ['read -P 0 -s 500 -l 20 8k 512'],
    ['read -P 0 -s 600 8k 512'],
    ['read -s 5 0 512'],
    ['read 1M 512'],
    ['read 1048575 2'],
    ['read 1048575 1'],
    ['read 3 511'],
    ['read 0 0'],
    ['read 0 1.5k'],
    ['read 0x10 0x20'],
    ['read -p 0 512'],
    ['read'],
    ['read 0'],
    ['read 0 1 2'],
    ['read x 512'],
    ['read 0 x'],
    ['read 0 3G'],
    ['read -P 256 0 512'],
    ['read -P x 0 512'],
    ['read -P 0x 0 512'],
    ['read -b 0 512'],
    ['  read   0    512  '],
    ['r 0 512', 'l'],
    ['write 0 512', 'read -P 0xcd 0 512', 'read -v 510 4'],
    ['write -P 65 100 1000', 'read -P 65 100 1000', 'read -v 98 4'],
    ['write -z 0 64k', 'read -P 0 0 64k'],
    ['write -z 5 7', 'read -v 0 16'],
    ['write -z -u 0 64k', 'read -P 0 0 64k'],
    ['write -z -n 0 64k', 'read -P 0 0 64k'],
    ['write -z -f 0 512'],
    ['write -f 0 64k', 'read -P 0xcd 0 64k'],
    ['write -u 0 64k'],
    ['write -n 0 64k'],
    ['write -z -P 1 0 64k'],
    ['write -c 0 64k'],
    ['write -b 0 512'],
    ['write -q 0 64k'],
    ['write -C 0 64k'],
    ['write 1M 512'],
    ['write -s pattern 0 8', 'read -v 0 12'],
    ['write -s nofile 0 8'],
    ['write 0 1 2'],
    ['w -P 3 0 512', 'r -P 3 0 512'],
    ['flush'],
    ['f'],
    ['flush x'],
    ['discard 0 64k'],
    ['discard -q 0 1M'],
    ['discard -C 0 1M'],
    ['discard 1 1'],
    ['discard 1M 512'],
    ['discard 0'],
    ['discard x y'],
    ['length'],
    ['length x'],
    ['map'],
    ['alloc 0'],
    ['alloc 64k 1k'],
    ['alloc 65 1k'],
    ['alloc 0 1M'],
    ['alloc 2M'],
    ['alloc x'],
    ['alloc'],
    ['truncate 2M', 'length', 'map', 'read -P 0 1M 1M'],
    ['truncate 64k', 'length', 'read 64k 1'],
    ['truncate -m falloc 3M', 'length'],
    ['truncate -m bad 3M', 'length'],
    ['truncate x'],
    ['truncate'],
    ['info'],
    ['close'],
    ['close x', 'length'],
    ['write -P 5 0 512', 'close'],
    ['sleep 1', 'length'],
    ['sleep 0x1'],
    ['sleep'],
    ['sleep x'],
    ['sleep -1'],
    ['sleep 1k'],
    ['sigraise'],
    ['sigraise x'],
    ['sigraise 0', 'length'],
    ['sigraise 1k', 'length'],
    ['length', 'sigraise 15', 'length'],
    ['help sleep'],
    ['help close'],
    ['quit', 'length'],
    ['q', 'length'],
    [''],
    ['nosuch', 'length'],
    ['help nosuch'],
]


@pytest.mark.parametrize('commands', SESSIONS, ids='; '.join)
def test_same_lines_and_code(disks, commands):
    arguments = [word for c in commands for word in ('-c', c)]
    ours = platter('io', '-f', 'raw', *arguments, disks[0], cwd=disks[0].parent)
    theirs = qemu('qemu-io', '-f', 'raw', *arguments, disks[1], cwd=disks[0].parent)
    assert without_time(ours.stdout) == without_time(theirs.stdout)
    assert ours.returncode == theirs.returncode
    assert ours.stderr.replace('platter: io: ', '') == theirs.stderr.replace('qemu-io: ', '')
    if not any(c.startswith('truncate') for c in commands):
        assert disks[0].read_bytes() == disks[1].read_bytes()


def test_read_only(disks):
    ours = platter('io', '-r', '-f', 'raw', '-c', 'write 0 512', '-c', 'read 0 512', disks[0])
    theirs = qemu('qemu-io', '-r', '-f', 'raw', '-c', 'write 0 512', '-c', 'read 0 512', disks[1])
    assert ours.returncode == theirs.returncode == 1
    assert without_time(ours.stdout) == without_time(theirs.stdout)
    assert 'Block node is read-only' in ours.stderr


@pytest.mark.parametrize('options', [
    ['-n'], ['-t', 'none'], ['-t', 'writethrough'], ['-t', 'directsync'], ['-t', 'unsafe'],
    ['-i', 'threads'], ['-d', 'unmap'], ['-n', '-i', 'native'], ['-n', '-k'],
])
def test_modes_write_and_read_back(disks, options):
    done = platter('io', '-f', 'raw', *options, '-c', 'write -P 9 100 70000',
                   '-c', 'read -P 9 100 70000', '-c', 'discard 128k 64k', '-c', 'flush', disks[0])
    if 'O_DIRECT' in done.stderr:
        pytest.skip('no direct I/O on this file system')
    assert done.returncode == 0, done.stderr + done.stdout


def test_lines_from_standard_input(disks):
    done = platter('io', '-f', 'raw', disks[0], stdin='read 0 512\nlength\nbad\nquit\nlength\n')
    assert done.returncode == 1
    assert without_time(done.stdout) == ('read 512/512 bytes at offset 0\n512 bytes, 1 ops; TIME\n'
                                         '1 MiB\n')
    assert done.stderr == 'command "bad" not found\n'
    assert platter('io', '-f', 'raw', disks[0], stdin='length').stdout == '1 MiB\n'


def test_a_line_too_long_is_not_run(disks):
    """Neither cut, nor its rest as if it were a line of its own."""
    for blanks in (1 << 20) - 6, 1 << 20, 3 << 20:
        lines = f'length{" " * blanks}Xwrite -P 1 0 512\n{" " * blanks}write -P 1 0 512\nlength\n'
        done = platter('io', '-f', 'raw', disks[0], stdin=lines)
        assert done.returncode == 1 and done.stdout == '1 MiB\n'
        assert done.stderr.count('longer than 1048576 bytes') == 2
    assert disks[0].read_bytes() == disks[1].read_bytes()
    done = platter('io', '-f', 'raw', disks[0], stdin=f'length{" " * ((1 << 20) - 6)}\n')
    assert done.returncode == 0 and done.stdout == '1 MiB\n'


def has_read_all(process, pipe):
    """And sleeps, waiting for more, or is over."""
    if fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)) != bytes(4):
        return False
    with open(f'/proc/{process.pid}/stat', encoding='ascii') as stat:
        return stat.read().rpartition(')')[2].split()[0] in 'SZ'


@pytest.mark.parametrize('in_flight', ['', 'aio_read -q 0 4k\n'])
def test_standard_input_that_does_not_block(in_flight, disks):
    """As a program leaves it that shares it and works so: waited for all the same."""
    take, feed = os.pipe()
    os.set_blocking(take, False)
    command = guessing('io', '-f', 'raw', disks[0])
    with subprocess.Popen([os.environ['PLATTER_BIN'], *command], stdin=take, stdout=subprocess.PIPE,
                          text=True) as process, os.fdopen(feed, 'wb', buffering=0) as to:
        os.close(take)
        for part in in_flight + 'len', 'gth\n':
            to.write(part.encode('ascii'))
            until(lambda: has_read_all(process, feed))
        to.close()
        assert process.stdout.read() == '1 MiB\n' and process.wait(TIMEOUT) == 0


def test_standard_input_that_cannot_be_read(disks):
    with open(disks[0].parent / 'lines', 'w', encoding='ascii') as lines:  # open for writing alone
        done = subprocess.run([os.environ['PLATTER_BIN'], 'io', '-f', 'raw', disks[0]], stdin=lines, text=True,
                              capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 1 and done.stderr == 'platter: io: cannot read standard input: Bad file descriptor\n'


def test_help_needs_no_disk():
    done = platter('io', '-c', 'help')
    assert done.returncode == 0
    for command in ('read', 'write', 'flush', 'discard', 'length', 'map', 'alloc', 'quit'):
        assert f'\n{command} ' in '\n' + done.stdout
        assert platter('io', '-c', f'help {command}').returncode == 0
    assert platter('io', '-c', 'length').returncode == 1


def test_closed_disk_is_gone(disks):
    done = platter('io', '-f', 'raw', '-c', 'close', '-c', 'length', '-c', 'close', disks[0])
    assert (done.returncode, done.stdout, done.stderr) == (1, '', "no file open, try 'help open'\n" * 2)


def test_many_words(disks):
    """As many as a line has."""
    done = platter('io', '-f', 'raw', '-c', 'read ' + 'x ' * 100, '-c', 'readv -q 0' + ' 1' * 5000, disks[0])
    assert done.returncode == 1
    assert done.stdout.startswith('read [') and done.stdout.count('\n') == 1


def test_null_disk():
    done = platter('io', '-f', 'raw', 'null-co://', '-c', 'length', '-c', 'write 0 1M')
    assert done.returncode == 0
    assert done.stdout.startswith('1 GiB\nwrote 1048576/1048576 bytes at offset 0\n')


@pytest.mark.parametrize('arguments, message', [
    (['a', 'b'], "'b' is too much"),
    (['nofile'], 'No such file or directory'),
    (['-t', 'bad', 'a'], "no cache mode 'bad'"),
    (['-d', 'bad', 'a'], "no discard mode 'bad'"),
    (['-U', '/dev/null'], 'force-share'),
])
def test_refusals(tmp_path, arguments, message):
    done = platter('io', *arguments, '-c', 'length', cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_a_served_disk_has_one_writer(disks, tmp_path):
    """What serve writes to nobody else writes to, ours or theirs; looking is allowed."""
    with serving('-f', 'raw', '-k', tmp_path / 'nbd.sock', disks[0]):
        for write in (platter('io', '-f', 'raw', '-c', 'length', disks[0]),
                      qemu('qemu-io', '-f', 'raw', '-c', 'length', disks[0])):
            assert write.returncode == 1
            assert 'lock' in write.stderr
        assert platter('io', '-f', 'raw', '-r', '-c', 'length', disks[0]).returncode == 0
        assert platter('io', '-f', 'raw', '-r', '-U', '-c', 'length', disks[0]).returncode == 0
        assert platter('info', '-f', 'raw', disks[0]).returncode == 0
        assert platter('info', '-U', disks[0]).returncode == 0
    assert platter('io', '-f', 'raw', '-c', 'length', disks[0]).returncode == 0


def test_qemu_io_writes_through(tmp_path):
    """What it has told as written is there for others, and when it is killed."""
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', tmp_path / 'a', '1M').returncode == 0
    with subprocess.Popen([called(tmp_path, 'qemu-io'), '-f', 'qcow2', tmp_path / 'a'], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write('write -P 5 0 64k\n')
        process.stdin.flush()
        while 'wrote 65536/65536' not in process.stdout.readline():
            pass
        process.kill()
    done = qemu('qemu-io', '-f', 'qcow2', '-c', 'read -P 5 0 64k', tmp_path / 'a')
    assert done.returncode == 0 and 'failed' not in done.stdout
