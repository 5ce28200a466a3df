# SPDX-License-Identifier: MIT
"""platter top on a daemon that works: its tables, and its screen on a terminal."""
import os
import pty
import re
import select
import subprocess

import pytest

from qmp import Daemon
from tools_common import platter

PLATTER = os.environ['PLATTER_BIN']


@pytest.fixture
def daemon(tmp_path):
    (tmp_path / 'disk.img').write_bytes(bytes(1 << 20))
    with Daemon(tmp_path, [PLATTER, 'daemon'],
                '--blockdev', f'file,node-name=disk,filename={tmp_path}/disk.img',
                '--backend', 'drive,node-name=disk', '--backend', 'empty',
                '--nbd-server', f'addr.type=unix,addr.path={tmp_path}/nbd.sock',
                '--export', 'nbd,id=e,name=e,node-name=drive,writable=on') as d:
        yield d


def test_tables(daemon, tmp_path):
    done = platter('top', '--batch', '1', '-d', '10', '-t', 'all', daemon.sockets[0])
    assert done.returncode == 0, done.stderr
    tables = done.stdout.split('\n\n')
    assert re.search(r'^drive +disk +ok ', tables[0], re.M)
    assert re.search(r'^empty +- +no medium ', tables[0], re.M)
    assert re.search(r'^disk +file +rw +1 MiB ', tables[1], re.M)
    assert re.search(r'^e +disk +serves .* nbd$', tables[2], re.M)
    assert tables[3].startswith('JOB')


def test_rates(daemon, tmp_path):
    uri = f'nbd+unix:///e?socket={tmp_path}/nbd.sock'
    load = subprocess.Popen([PLATTER, 'bench', '-f', 'raw', '-c', '100000000', uri],
                            stdout=subprocess.DEVNULL)
    try:
        done = platter('top', '--batch', '3', '-d', '300', '-s', 'ops', daemon.sockets[0])
        exports = platter('top', '--batch', '3', '-d', '300', '-t', 'exports', daemon.sockets[0])
    finally:
        load.kill()
        load.wait()
    row = [r for r in done.stdout.splitlines() if r.startswith('drive')][-1].split()
    assert float(row[3]) > 0 and float(row[9 + 2]) > 0, row  # reads per second, requests in flight
    assert done.stdout.splitlines()[1].startswith('drive'), 'the busiest is not first'
    quantiles = [row[-2]]
    row = [r for r in exports.stdout.splitlines() if r.startswith('e ')][-1].split()
    assert float(row[3]) > 0 and row[-1] == 'nbd', row
    quantiles.append(row[-3])
    for text in quantiles:
        p50, p99 = map(float, text.split('/'))
        assert 0 < p50 <= p99, text
    idle = [r for r in done.stdout.splitlines() if r.startswith('empty')][-1].split()
    assert idle[-2] == '-', idle


def test_a_monitor_that_another_client_holds(daemon):
    with daemon.client():
        done = platter('top', '--batch', '1', daemon.sockets[0])
    assert (done.returncode, done.stdout) == (1, '')
    assert 'may have another' in done.stderr


def test_bad_lines(tmp_path):
    for words in ([], ['a', 'b'], ['-s', 'zz', 'x'], ['-t', 'zz', 'x'], ['-d', '0', 'x'], ['-b', '0', 'x']):
        assert platter('top', *words).returncode == 2, words
    done = platter('top', str(tmp_path / 'nobody.sock'))
    assert done.returncode == 1 and 'nobody.sock' in done.stderr


def test_the_daemon_goes(tmp_path):
    with Daemon(tmp_path, [PLATTER, 'daemon']) as d:
        top = subprocess.Popen([PLATTER, 'top', '--batch', '1000', '-d', '20', d.sockets[0]],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert top.stdout.readline().startswith('BACKEND')
    assert 'monitor' in top.communicate(timeout=60)[1]
    assert top.returncode == 1


class Screen:
    """The program on a terminal of 120 x 40; what it has drawn, without the control sequences."""

    def __init__(self, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM='vt100', COLUMNS='120', LINES='40')
            os.execv(PLATTER, [PLATTER, *words])
        self.seen = ''

    def wait_for(self, text):
        while text not in re.sub(r'\x1b[^A-Za-z]*[A-Za-z]|\x1b[()].|\x0f', '', self.seen):
            ready, _, _ = select.select([self.fd], [], [], 60)
            assert ready, self.seen
            self.seen += os.read(self.fd, 65536).decode(errors='replace')

    def press(self, keys):
        self.seen = ''
        os.write(self.fd, keys)

    def end(self):
        self.press(b'q')
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_the_screen(daemon):
    screen = Screen('top', '-d', '100', daemon.sockets[0])
    screen.wait_for('drive')
    screen.press(b's')
    screen.wait_for('ops')
    screen.press(b'\t')
    screen.wait_for('DRIVER')
    screen.press(b'\t')
    screen.wait_for('EXPORT')
    screen.press(b'\r')
    screen.wait_for('of e')
    assert screen.end() == 0
