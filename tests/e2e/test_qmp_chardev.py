# SPDX-License-Identifier: MIT
"""Where monitors are: the chardevs of the command line, as scripts write them."""
import os
import signal
import socket
import subprocess

import pytest

from qmp import WAIT_S

PLATTER = os.environ['PLATTER_BIN']
CAPS = b'{"execute":"qmp_capabilities"}'
QUIT = b'{"execute":"quit"}'


class Running:
    """A daemon with one monitor on a chardev; what it prints is read line by line."""

    def __init__(self, chardev, **popen):
        self.process = subprocess.Popen([PLATTER, 'daemon', '--chardev', chardev, '--monitor', 'c'],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, **popen)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def session(sock):
    """Greeted, negotiated, and the daemon asked to end."""
    sock.settimeout(WAIT_S)
    with sock, sock.makefile('rb') as lines:
        assert b'"QMP"' in lines.readline()
        sock.sendall(CAPS + QUIT)
        assert lines.readline() == b'{"return": {}}\r\n'
        assert lines.readline() == b'{"return": {}}\r\n'


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


def test_waits_for_its_first_client(tmp_path):
    path = str(tmp_path / 'qmp')
    with Running(f'socket,id=c,path={path},server=on') as d:
        assert d.process.stderr.readline() == f'waiting for a client on unix:{path}\n'.encode()
        session(connect(path))
        assert d.process.wait(WAIT_S) == 0


def test_a_signal_ends_the_waiting(tmp_path):
    path = str(tmp_path / 'qmp')
    with Running(f'socket,id=c,path={path},server=on') as d:
        assert b'waiting' in d.process.stderr.readline()
        assert d.end()[0] == 0
    assert not os.path.exists(path)


def test_old_words(tmp_path):
    """server,nowait: what scripts have written for years. It is the monitor that fails here, since
    the chardev has another name: so the text was taken."""
    with Running(f'socket,id=x,path={tmp_path}/qmp,server,nowait') as d:
        assert d.process.wait(WAIT_S) == 1
        assert b'"c" not found' in d.process.stderr.read()


def test_client(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 'there'))
        server.listen(1)
        server.settimeout(WAIT_S)
        with Running(f'socket,id=c,path={tmp_path}/there') as d:
            session(server.accept()[0])
            assert d.process.wait(WAIT_S) == 0


def said(out):
    """Without the last event, which a session hears that has not met its end of file before."""
    lines = out.split(b'\r\n')
    assert lines.pop() == b''
    return lines[:-1] if b'"SHUTDOWN"' in lines[-1] else lines


def test_stdio():
    with Running('stdio,id=c') as d:
        out, err = d.process.communicate(CAPS + QUIT, timeout=WAIT_S)
        assert said(out)[1:] == [b'{"return": {}}'] * 2 and err == b''
        assert d.process.returncode == 0


def test_stdio_of_files(tmp_path):
    """Commands from a file, replies into one."""
    (tmp_path / 'in').write_bytes(CAPS + b'{"execute":"query-version"}' + QUIT)
    with open(tmp_path / 'in', 'rb') as source, open(tmp_path / 'out', 'wb') as to:
        subprocess.run([PLATTER, 'daemon', '--chardev', 'stdio,id=c', '--monitor', 'c'],
                       stdin=source, stdout=to, timeout=WAIT_S, check=True)
    assert len(said((tmp_path / 'out').read_bytes())) == 4


def test_descriptors(tmp_path):
    """A connected socket, and one that listens: as service managers hand them over."""
    mine, theirs = socket.socketpair()
    with theirs, Running(f'socket,id=c,fd={theirs.fileno()}', pass_fds=[theirs.fileno()]) as d:
        session(mine)
        assert d.process.wait(WAIT_S) == 0
    path = str(tmp_path / 'qmp')
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with Running(f'socket,id=c,fd={server.fileno()},server=on,wait=off',
                     pass_fds=[server.fileno()]) as d:
            session(connect(path))
            assert d.process.wait(WAIT_S) == 0
    assert os.path.exists(path)  # not the daemon's to remove


def test_tcp():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen(1)
        server.settimeout(WAIT_S)
        with Running(f'socket,id=c,host=127.0.0.1,port={server.getsockname()[1]}') as d:
            session(server.accept()[0])
            assert d.process.wait(WAIT_S) == 0


@pytest.mark.parametrize('chardev, why', [
    ('socket,id=c', "no 'path', 'host' or 'fd' is given"),
    ('socket,id=c,path=PATH,host=localhost,port=1', "None or one of"),
    ('socket,id=c,path=PATH,wait=off', "'wait' option is incompatible"),
    ('socket,id=c,path=PATH,server=on,reconnect=1', "'reconnect' option is incompatible"),
    ('socket,id=c,path=PATH', 'No such file or directory'),
    ('socket,id=c,path=PATH/x,server=on', 'No such file or directory'),
    ('socket,id=c,host=127.0.0.1,server=on', 'no port given'),
    ('socket,id=c,fd=0', 'is not a socket'),
    ('socket,id=c,path=PATH,server=maybe', "expects 'on' or 'off'"),
    ('socket,id=c,path=PATH,server=on,bla=1', "'bla' is unexpected"),
    ('socket,path=PATH,server=on', 'no id specified'),
    ('foo,id=c', "'foo'"),
])
def test_refused(tmp_path, chardev, why):
    with Running(chardev.replace('PATH', str(tmp_path / 'qmp'))) as d:
        out, err = d.process.communicate(timeout=WAIT_S)
        assert d.process.returncode == 1 and out == b''
        assert why in err.decode()
