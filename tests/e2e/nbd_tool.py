# SPDX-License-Identifier: MIT
"""qemu-nbd and the link of its name: starting either in the background, what clients see of it, and
ending it."""
import os
import re
import signal
from contextlib import contextmanager
from urllib.parse import quote

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
    def __init__(self, socket, pid_file):
        self.pid = int(pid_file.read_text(encoding='ascii'))
        self.socket = socket
        self.pid_file = pid_file

    def uri(self, export=''):
        return f'nbd+unix:///{export}?socket={self.socket}'

    def ended(self):
        until(lambda: not alive(self.pid))
        return not os.path.exists(self.socket)

    def end(self):
        if alive(self.pid):
            os.kill(self.pid, signal.SIGTERM)
        assert self.ended()
        self.pid_file.unlink(missing_ok=True)


@contextmanager
def background(program, folder, *arguments):
    """Started with --fork: it listens when the command has returned. program: its name, or words."""
    socket, pid_file = folder / 'nbd.sock', folder / 'nbd.pid'
    words = program if isinstance(program, list) else [program]
    done = run([*words, '--fork', '-k', socket, '--pid-file', pid_file, *arguments], cwd=folder)
    assert (done.returncode, done.stdout) == (0, ''), done.stderr
    server = Background(socket, pid_file)
    try:
        yield server
    finally:
        server.end()


def make_images(tmp_path):
    with open(tmp_path / 'plain.raw', 'wb') as f:
        f.write(bytes(range(256)) * 256)
        f.truncate(1 << 20)
    for line in (['qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'],
                 ['qemu-img', 'bitmap', '--add', 'base.qcow2', 'b0'],
                 ['qemu-io', '-c', 'write -q -P 3 64k 128k', 'base.qcow2'],
                 ['qemu-img', 'snapshot', '-c', 'first', 'base.qcow2'],
                 ['qemu-img', 'bitmap', '--add', 'base.qcow2', 'b1'],
                 ['qemu-io', '-c', 'write -q -P 4 512k 64k', 'base.qcow2'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2',
                  'over.qcow2'],
                 ['qemu-io', '-c', 'write -q -P 5 192k 64k', 'over.qcow2']):
        assert run(line, cwd=tmp_path).returncode == 0
    return tmp_path


CONTEXTS = ['base:allocation', 'qemu:allocation-depth', 'qemu:dirty-bitmap:b0',
            'qemu:dirty-bitmap:b1']


def seen(server, other, folder):
    """What clients see: the listings of both programs, maps, and the content; and the disk's URI."""
    lists = [run([who, '-L', '-k', server.socket]) for who in (PROGRAM, other)]
    assert lists[0].stdout == lists[1].stdout and lists[1].returncode == 0
    uri = server.uri(quote(re.search(r"export: '(.*)'", lists[0].stdout)[1]))
    maps = [run(['nbdinfo', f'--map={context}', uri]).stdout for context in CONTEXTS
            if context in lists[0].stdout]
    assert run(['nbdcopy', uri, folder / 'copy']).returncode == 0
    content = (folder / 'copy').read_bytes()
    (folder / 'copy').unlink()
    return (lists[0].stdout, maps, content), uri
