# SPDX-License-Identifier: MIT
"""platter top on a daemon that works: its tables, and its screen on a terminal."""
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading

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


class Monitor:
    """A monitor of nobody we know: it greets, and answers each command with what answers has for it."""

    def __init__(self, path, answers):
        self.path, self.answers = str(path), {'qmp_capabilities': {'return': {}}, **answers}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client, _ = self.listener.accept()
        with client, client.makefile('rw') as f:
            self.say(f, {'QMP': {'version': {}, 'capabilities': []}})
            for line in f:
                self.say(f, self.answers.get(json.loads(line)['execute'], {'return': []}))

    @staticmethod
    def say(f, message):
        f.write(json.dumps(message) + '\n')
        f.flush()


def test_a_monitor_that_leaves_out_what_ours_sends(tmp_path):
    monitor = Monitor(tmp_path / 'm.sock', {
        'query-block': {'return': [{'locked': False}, {'device': 'b', 'inserted': {}, 'io-status': 'a\x1b'}, 7]},
        'query-blockstats': {'return': [{'stats': {'rd_bytes': 1e300}}, {'device': 'b', 'stats': 'none'}]},
        'query-named-block-nodes': {'return': [{}, {'image': {'virtual-size': 1e300}}]},
        'query-block-exports': {'return': [{'node-name': 3}, {'id': 'e'}]},
        'query-jobs': {'return': [{}]}})
    done = platter('top', '-b', '1', '-d', '10', '-t', 'all', '-s', 'name', monitor.path)
    assert done.returncode == 0, done
    tables = done.stdout.split('\n\n')
    assert re.findall(r'^(\S+) +(\S+) ', tables[0], re.M)[1:] == [('-', '-'), ('-', '-'), ('b', '-')]
    assert 'a?' in tables[0]
    assert re.findall(r'^(\S+) +(\S+) ', tables[2], re.M)[1:] == [('-', '-'), ('e', '-')]
    assert [len(t.splitlines()) for t in tables[:4]] == [4, 3, 3, 2]


def test_a_monitor_that_fails_without_a_word(tmp_path):
    monitor = Monitor(tmp_path / 'm.sock', {'query-block': {'error': {'class': 'GenericError'}}})
    done = platter('top', '-b', '1', '-d', '10', monitor.path)
    assert done.returncode == 1
    assert 'query-block: the monitor does not say why' in done.stderr


class Screen:
    """The program on a terminal of 120 x 40; what it has drawn, without the control sequences."""

    def __init__(self, *words, ignores=()):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for number in ignores:
                signal.signal(number, signal.SIG_IGN)
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


def test_the_row_of_a_long_name(daemon):
    name = 'export-of-' + 54 * 'x'
    with daemon.client() as client:
        client.call('block-export-add', type='nbd', id=name, node_name='drive', name='long')
        client.call('block-export-del', id='e')
    screen = Screen('top', '-d', '100', '-t', 'exports', daemon.sockets[0])
    screen.wait_for(name[:24])
    screen.press(b'\r')
    screen.wait_for(f'of {name[:50]}')
    for heading in ('JOB', 'BACKEND', 'DRIVER', 'EXPORT'):  # the row is drawn anew
        screen.press(b'\t')
        screen.wait_for(heading)
    screen.wait_for(name[:24])
    assert screen.end() == 0


def test_nobody_presses_keys(daemon):
    shown, terminal = pty.openpty()
    done = subprocess.run([PLATTER, 'top', '-d', '10', daemon.sockets[0]], stdin=subprocess.DEVNULL,
                          stdout=terminal, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(terminal)
    assert (done.returncode, done.stderr) == (0, '')
    assert os.read(shown, 65536).startswith(b'BACKEND')
    os.close(shown)


def test_the_terminal_goes(daemon):
    screen = Screen('top', '-d', '10', daemon.sockets[0], ignores=[signal.SIGHUP])
    screen.wait_for('drive')
    os.close(screen.fd)
    ended = os.pidfd_open(screen.pid)
    if not select.select([ended], [], [], 60)[0]:
        os.kill(screen.pid, signal.SIGKILL)
    os.close(ended)
    assert os.waitstatus_to_exitcode(os.waitpid(screen.pid, 0)[1]) == 1
