# SPDX-License-Identifier: MIT
"""platter io on a terminal: lines are edited, come back with the arrow keys, and Tab completes commands."""
import os
import pty
import select
import subprocess

import pytest

from tools_common import TIMEOUT

UP, LEFT, BACKSPACE, TO_END, TAB, END = b'\x1b[A', b'\x1b[D', b'\x7f', b'\x05', b'\t', b'\x04'


class Terminal:
    """The program behind a terminal. What it shows is taken up to what a step waits for."""
    def __init__(self, path):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [os.environ['PLATTER_BIN'], 'io', '-f', 'raw', path], env={**os.environ, 'TERM': 'xterm'},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        self.shown = b''

    def until(self, text):
        while text not in self.shown:
            assert select.select([self.master], [], [], TIMEOUT)[0], f'{text!r} is not in {self.shown!r}'
            self.shown += os.read(self.master, 65536)
        before, _, self.shown = self.shown.partition(text)
        return before

    def type(self, keys):
        os.write(self.master, keys)


@pytest.fixture(name='terminal')
def terminal_fixture(tmp_path):
    (tmp_path / 'd').write_bytes(bytes(3 << 20))
    terminal = Terminal(tmp_path / 'd')
    try:
        terminal.until(b'platter> ')
        yield terminal
        if terminal.process.poll() is None:
            terminal.type(b'quit\r')
        terminal.process.wait(TIMEOUT)
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        os.close(terminal.master)


def test_lines_come_back_and_are_edited(terminal):
    terminal.type(b'length\r')
    terminal.until(b'\n3 MiB')
    terminal.until(b'platter> ')
    terminal.type(b'read 0 512\r')
    terminal.until(b'read 512/512 bytes at offset 0')
    terminal.until(b'platter> ')
    terminal.type(UP + LEFT * 4 + BACKSPACE + b'1k' + TO_END + b'\r') # read 1k 512
    terminal.until(b'read 512/512 bytes at offset 1024')
    terminal.until(b'platter> ')
    terminal.type(UP * 3 + b'\r')
    terminal.until(b'\n3 MiB')
    terminal.until(b'platter> ')


@pytest.mark.parametrize('keys,answer', [
    (b'len' + TAB + b'\r', b'\n3 MiB'),
    (b'rea' + TAB + b' 1k 1k\r', b'read 1024/1024 bytes at offset 1024'), # what all agree on: read, readv
    (b'aio_r' + TAB + b'2k 1k\r', b'read 1024/1024 bytes at offset 2048'),
    (b'nothing' + TAB + b'\r', b'command "nothing" not found'),
    (b'help len' + TAB + b'\r', b'command len not found'), # only the first word is a command's
])
def test_completed(terminal, keys, answer):
    terminal.type(keys)
    terminal.until(answer)


def test_what_begins_so_is_shown(terminal):
    terminal.type(b're' + TAB)
    assert terminal.until(b'resume').split()[1:] == [b'read', b'readv', b'remove_break', b'reopen']
    terminal.until(b'platter> re')
    terminal.type(b'ad 0 512\r')
    terminal.until(b'read 512/512 bytes at offset 0')
    terminal.until(b'platter> ')


def test_the_end_is_a_new_line_alone(terminal):
    terminal.type(END)
    assert terminal.until(b'\n') == b'\r'
    assert terminal.process.wait(TIMEOUT) == 0


def test_the_key_of_the_end_deletes_inside_a_line(terminal):
    terminal.type(b'lengxth' + END + LEFT * 3 + END + b'\r')
    terminal.until(b'\n3 MiB')
    terminal.until(b'platter> ')
