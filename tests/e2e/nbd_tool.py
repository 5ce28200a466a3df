# SPDX-License-Identifier: MIT
"""qemu-nbd and the link of its name: starting either in the background, and ending it."""
import os
import signal
from contextlib import contextmanager

from nbd_common import until
from tools_common import run

PROGRAM = 'qemu-nbd'


def alive(pid):
    """Whether it runs: in a container nobody may collect those that have ended."""
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as f:
            return f.read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


class Background:
    def __init__(self, pid, socket):
        self.pid = pid
        self.socket = socket

    def uri(self, export=''):
        return f'nbd+unix:///{export}?socket={self.socket}'

    def ended(self):
        until(lambda: not alive(self.pid))
        return not os.path.exists(self.socket)


@contextmanager
def background(program, folder, *arguments):
    """Started with --fork: it listens when the command has returned."""
    socket, pid_file = folder / 'nbd.sock', folder / 'nbd.pid'
    done = run([program, '--fork', '-k', socket, '--pid-file', pid_file, *arguments], cwd=folder)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
    server = Background(int(pid_file.read_text(encoding='ascii')), socket)
    try:
        yield server
    finally:
        if alive(server.pid):
            os.kill(server.pid, signal.SIGTERM)
        assert server.ended()
        pid_file.unlink(missing_ok=True)
