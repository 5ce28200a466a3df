# SPDX-License-Identifier: MIT
"""platter serve as a user meets it: URIs, signals, refusals."""
import os
import re
import signal
import stat
import subprocess

import pytest

from tools_common import TIMEOUT, platter, qemu, serving


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'd.raw'
    with open(path, 'wb') as f:
        f.truncate(1 << 20)
    return path


def qemu_io(uri, *commands):
    return qemu('qemu-io', '-f', 'raw', uri, *[w for c in commands for w in ('-c', c)])


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_unix_socket(disk, tmp_path, end):
    path = tmp_path / 'nbd.sock'
    with serving('-f', 'raw', '-k', path, disk, end=end) as (_, uri):
        assert uri == f'nbd+unix:///?socket={path}'
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        done = qemu_io(uri, 'write -P 5 4k 8k', 'read -P 5 4k 8k', 'flush')
        assert done.returncode == 0, done.stdout + done.stderr
    assert not path.exists()
    assert disk.read_bytes()[4096:12288] == b'\5' * 8192


def test_tcp_is_local_by_default(disk):
    with serving('-f', 'raw', '-p', '0', disk) as (_, uri):
        assert re.fullmatch(r'nbd://127\.0\.0\.1:\d+/', uri)
        assert qemu_io(uri, 'length').stdout == '1 MiB\n'


def test_name_and_read_only(disk, tmp_path):
    with serving('-f', 'raw', '-r', '-x', 'disk one', '-k', tmp_path / 's', disk) as (_, uri):
        assert '/disk%20one?' in uri
        assert qemu_io(uri, 'write 0 512').returncode == 1
        assert qemu('qemu-io', '-r', '-f', 'raw', uri, '-c', 'read 0 512').returncode == 0


@pytest.mark.parametrize('options', [
    ['--threads', '0'], ['--threads', '1'], ['--threads', '3'], ['--aio', 'threads'],
    ['--cache', 'writethrough'], ['--cache', 'unsafe'], ['--discard', 'ignore'], ['-e', '1'],
])
def test_settings_serve_alike(disk, tmp_path, options):
    with serving('-f', 'raw', *options, '-k', tmp_path / 's', disk) as (_, uri):
        done = qemu_io(uri, 'write -P 5 1 70000', 'read -P 5 1 70000', 'write -z 0 64k',
                       'discard 64k 64k', 'read -P 0 0 64k')
        assert done.returncode == 0, done.stdout + done.stderr


def test_image_opts(tmp_path):
    with serving('--image-opts', '-k', tmp_path / 's', 'driver=null-co,size=5M') as (_, uri):
        assert qemu_io(uri, 'length').stdout == '5 MiB\n'


def test_trim_gives_space_back(disk, tmp_path):
    disk.write_bytes(b'x' * (1 << 20))
    with serving('-f', 'raw', '-k', tmp_path / 's', disk) as (_, uri):
        assert qemu_io(uri, 'discard 0 1M').returncode == 0
    assert os.stat(disk).st_blocks == 0


def test_output_is_the_uri_only(disk, tmp_path):
    with serving('-k', tmp_path / 's', disk) as (process, _):
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.stdout.read() == ''
        assert 'was guessed: raw' in process.stderr.read()


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['a', 'b'], "'b' is too much"),
    (['nofile'], 'No such file or directory'),
    (['-k', 'x', '-p', '1', 'd.raw'], 'unix socket'),
    (['-p', '70000', 'd.raw'], 'out of range'),
    (['-p', 'http', 'd.raw'], 'not a number'),
    (['-e', 'many', 'd.raw'], 'not a number'),
    (['--threads', '1000', 'd.raw'], 'out of range'),
    (['--cache', 'x', 'd.raw'], "no cache mode 'x'"),
    (['--aio', 'x', 'd.raw'], "no aio mode 'x'"),
    (['-f', 'raw', '-k', '/no/such/dir/s', 'd.raw'], '/no/such/dir/s'),
    (['-f', 'raw', '-k', 'd.raw', 'd.raw'], 'd.raw'),
    (['-f', 'raw', '-k', 'x' * 200, 'd.raw'], 'x' * 50),
    (['-f', 'raw', '-b', 'no.such.host.invalid', 'd.raw'], 'no.such.host.invalid'),
])
def test_refusals(disk, arguments, message):
    done = platter('serve', *arguments, cwd=disk.parent)
    assert done.returncode in (1, 2)
    assert done.stdout == ''
    assert message in done.stderr
    assert os.path.getsize(disk) == 1 << 20


def test_port_in_use(disk):
    with serving('-f', 'raw', '-p', '0', disk) as (_, uri):
        port = re.search(r':(\d+)/', uri).group(1)
        done = platter('serve', '-f', 'raw', '-r', '-p', port, 'null-co://')
        assert done.returncode == 1
        assert port in done.stderr


def test_live_line_on_a_terminal(disk, tmp_path):
    master, slave = os.openpty()
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'serve', '-f', 'raw', '-k',
                           str(tmp_path / 's'), str(disk)], stdout=subprocess.PIPE, stderr=slave,
                          stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline().startswith('nbd+unix:')
        line = b''
        while b'requests/s' not in line:
            line += os.read(master, 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    os.close(slave)
    os.close(master)
    assert b'0 clients' in line


@pytest.mark.parametrize('ignored', [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_the_caller_ignores_stays_ignored(ignored, disk, tmp_path):
    """nohup, and what a script starts in the background. SIGTERM ends it all the same."""
    def ignore():
        signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    command = [os.environ['PLATTER_BIN'], 'serve', '-f', 'raw', '-k', tmp_path / 's', disk]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore) as process:
        uri = process.stdout.readline().strip()
        for _ in range(3):
            process.send_signal(ignored)
            assert platter('info', '-f', 'raw', uri).returncode == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
