# SPDX-License-Identifier: MIT
"""Servers that refuse an option of the negotiation, in each of the protocol's ways: what the program
says of it, beside the installed tools."""
import signal
import struct
import subprocess
import threading

import pytest

from nbd_fake_server import (ACK, INFO, OPTION_REPLY, SET_META, STRUCTURED, UNSUPPORTED, FakeServer,
                             fake_serving)
from tools_common import called, formats, platter, run

pytestmark = pytest.mark.skipif('nbd' not in formats(), reason='this build has no nbd')
ABORT, LIST, OPTION_INFO, GO, LIST_META, SERVER = 2, 3, 6, 7, 9, 2
UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, SHUTDOWN, BLOCK_SIZE, NEW = 1, 2, 3, 5, 6, 7, 8, 77
TOLD = [POLICY, INVALID, TLS_REQD, UNKNOWN, SHUTDOWN, BLOCK_SIZE, NEW]


class Refusing(FakeServer):
    """Refuses options: {option: (error, text)}."""
    refused = {}

    def option(self, conn, option, data):
        def reply(kind, payload=b''):
            conn.sendall(struct.pack('>QIII', OPTION_REPLY, option, kind, len(payload)) + payload)

        if option in self.refused:
            code, text = self.refused[option]
            reply(1 << 31 | code, text)
        elif option == ABORT:
            reply(ACK)
            raise ConnectionError
        elif option == LIST:
            for name, description in [(b'', b''), (b'foo', b'what it is')]:
                reply(SERVER, struct.pack('>I', len(name)) + name + description)
            reply(ACK)
        elif option == OPTION_INFO:
            reply(INFO, struct.pack('>HQH', 0, self.size, self.flags))
            reply(INFO, struct.pack('>HIII', 3, *self.block_sizes))
            reply(ACK)
        elif option == LIST_META:
            reply(UNSUPPORTED)
        else:
            return FakeServer.option(self, conn, option, data)
        return False


def both(tmp_path, program, arguments, refused):
    """(ours, theirs): what is printed, and the exit code"""
    link = called(tmp_path, program)
    server = Refusing()
    server.refused = refused
    with fake_serving(tmp_path / 's', server):
        done = [run([name, *arguments], cwd=tmp_path) for name in (link, program)]
    return [(one.stdout, one.stderr, one.returncode) for one in done]


@pytest.mark.parametrize('code', TOLD)
@pytest.mark.parametrize('text', [b'', b'the moon is full'])
def test_export(code, text, tmp_path):
    ours, theirs = both(tmp_path, 'qemu-img', ['info', 'nbd+unix:///?socket=s'], {GO: (code, text)})
    assert ours == theirs and theirs[2] == 1
    assert ('server reported: ' in ours[1]) == bool(text)


@pytest.mark.parametrize('code', [UNSUP, *TOLD])
def test_listed_export(code, tmp_path):
    """Nothing is listed when one export is refused, unless the server knows names only."""
    ours, theirs = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'], {OPTION_INFO: (code, b'no')})
    assert ours == theirs and (theirs[2] == 0) == (code == UNSUP)


def test_list_without_refusal(tmp_path):
    ours, theirs = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'], {})
    assert ours == theirs and theirs[2] == 0 and 'what it is' in ours[0]


@pytest.mark.parametrize('code', [TLS_REQD, SHUTDOWN])
def test_list_where_every_option_is_refused(code, tmp_path):
    ours, theirs = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'],
                        dict.fromkeys([LIST, OPTION_INFO], (code, b'no')))
    assert ours == theirs and theirs[2] == 1


@pytest.mark.parametrize('code', [UNSUP, POLICY, TLS_REQD])
def test_list_alone_is_refused(code, tmp_path):
    """libnbd does not say why; TLS is not named where it is not the cause."""
    (told, err, code), _ = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'], {LIST: (code, b'no')})
    assert (told, code) == ('', 1)
    assert 'does not list its exports' in err and err.endswith('\nserver reported: no\n'), err
    assert 'tls' not in err


@pytest.mark.parametrize('before', [{STRUCTURED: (UNSUP, b'old')}, {SET_META: (UNSUP, b'old')},
                                    {SET_META: (INVALID, b'old'), STRUCTURED: (POLICY, b'older')}])
@pytest.mark.parametrize('text', [b'', b'new'])
def test_words_of_an_earlier_refusal(before, text, tmp_path):
    """They are not those of the one that is told."""
    ours, theirs = both(tmp_path, 'qemu-img', ['info', 'nbd+unix:///?socket=s'], {**before, GO: (POLICY, text)})
    assert ours == theirs and theirs[2] == 1
    if SET_META not in before:
        (tmp_path / 's').unlink()
        ours, theirs = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'], {**before, OPTION_INFO: (POLICY, text)})
        assert ours == theirs and theirs[2] == 1


@pytest.mark.parametrize('words', [(b'of the list', b''), (b'', b'of the next'), (b'of the list', b'of the next')])
def test_words_of_a_later_refusal(words, tmp_path):
    refused = {LIST: (TLS_REQD, words[0]), OPTION_INFO: (TLS_REQD, words[1])}
    ours, theirs = both(tmp_path, 'qemu-nbd', ['-L', '-k', tmp_path / 's'], refused)
    assert ours == theirs and theirs[2] == 1


class Silent(FakeServer):
    """Says nothing from some point on."""
    silent_at = None
    asked = None

    def talk(self, conn):
        if self.silent_at == 'greeting':
            self.wait(conn)
        FakeServer.talk(self, conn)

    def option(self, conn, option, data):
        if option == self.silent_at:
            self.wait(conn)
        return FakeServer.option(self, conn, option, data)

    def wait(self, conn):
        self.asked.set()
        while conn.recv(1000):
            pass
        raise ConnectionError


@pytest.mark.parametrize('point', ['greeting', STRUCTURED, LIST])
def test_list_of_a_silent_server_can_be_ended(point, tmp_path):
    server = Silent()
    server.silent_at, server.asked = point, threading.Event()
    with fake_serving(tmp_path / 's', server):
        with subprocess.Popen([called(tmp_path, 'qemu-nbd'), '-L', '-k', tmp_path / 's'],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            assert server.asked.wait(60)
            assert program.poll() is None
            program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=60) == (b'', b'')
            assert program.returncode == -signal.SIGINT


def test_own_words(tmp_path):
    """The program by its own name says them as a hint; control characters do not reach a terminal."""
    server = Refusing()
    server.refused = {GO: (POLICY, b'\x1b[31mno')}
    with fake_serving(tmp_path / 's', server) as uri:
        done = platter('info', '-f', 'raw', uri)
    assert 'Denied by server for option 7 (go)\nserver reported: ' in done.stderr and done.returncode == 1
    assert '\x1b' not in done.stderr
