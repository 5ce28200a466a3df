# SPDX-License-Identifier: MIT
"""Clients of a monitor that mean no good: the daemon keeps serving the other monitors, answers what
can be answered, and its memory stays bounded."""
import json
import os
import random
import socket
import threading

import pytest

from qmp import WAIT_S, Daemon, RawClient

PLATTER = os.environ['PLATTER_BIN']
CAPS = b'{"execute":"qmp_capabilities"}'
OOB = b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}'
VERSION = b'{"execute":"query-version"}'
MIB = 1 << 20
GROWTH_MAX = 24 * MIB  # of a daemon by one hostile client; a sanitizer's quarantine comes on top
SANITIZED = b'__asan_init' in open(PLATTER, 'rb').read()


@pytest.fixture
def daemon(tmp_path):
    with Daemon(tmp_path, [PLATTER, 'daemon'], monitors=2) as d:
        yield d


@pytest.fixture
def honest(daemon):
    """Another monitor's client: what it asks for is answered before and after."""
    with daemon.client(1) as client:
        assert client.call('query-version')
        yield client
        assert client.call('query-version')


def peak_bytes(daemon):
    with open(f'/proc/{daemon.process.pid}/status') as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith('VmHWM'))


def check_growth(daemon, before):
    if not SANITIZED:
        assert peak_bytes(daemon) - before < GROWTH_MAX


class Hostile(RawClient):
    def __init__(self, daemon, negotiation=CAPS):
        super().__init__(daemon.sockets[0])
        assert b'QMP' in self.line()
        if negotiation:
            self.send(negotiation)
            assert self.line() == b'{"return": {}}\r\n'

    def error(self):
        return json.loads(self.line())['error']


def test_huge_text(daemon, honest):
    """64 MiB in one value: one error when it is too long, the rest is dropped, and on it goes."""
    before = peak_bytes(daemon)
    with Hostile(daemon) as h:
        h.socket.sendall(b'{"execute":"query-version","arguments":{"a":"')
        for _ in range(64):
            h.socket.sendall(b'x' * MIB)
        h.socket.sendall(b'"}}' + VERSION)
        assert '1048576' in h.error()['desc']
        assert b'"return"' in h.line()
    check_growth(daemon, before)


def test_deep(daemon, honest):
    before = peak_bytes(daemon)
    with Hostile(daemon) as h:
        h.socket.sendall(b'[' * 4 * MIB + b']' * 4 * MIB + VERSION)
        assert 'deep' in h.error()['desc']
        assert b'"return"' in h.line()
    check_growth(daemon, before)


def test_many_members(daemon, honest):
    before = peak_bytes(daemon)
    text = b'{"execute":"query-version","arguments":{%s}}' % b','.join(
        b'"k%d":[]' % i for i in range(50000))
    with Hostile(daemon) as h:
        h.socket.sendall(text + VERSION)
        assert h.error()
        assert b'"return"' in h.line()
    check_growth(daemon, before)


def test_commands_inside_of_what_is_refused_are_not_run(daemon, honest):
    """Neither in a value that is too deep nor in one with a fault: no node comes to be."""
    add = b'{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"n"}}'
    with Hostile(daemon) as h:
        h.socket.sendall(b'[' * 100 + add + b']' * 100)
        assert h.error()
        h.socket.sendall(b'{"a":tru,"b":%s}' % add)
        assert h.error()
        h.socket.sendall(b'{"execute":"query-named-block-nodes"}')
        assert json.loads(h.line()) == {'return': []}


@pytest.mark.parametrize('half', [
    b'', b'{', b'{"execute"', b'{"execute":"query-version', b'{"execute":"quit"', b'"\\u00',
    b'[[[[', b'\xff', b'{"execute":"query-version"}{', b'\0\1\2'], ids=repr)
def test_half_messages(daemon, honest, half):
    for negotiation in (None, CAPS, OOB):
        with Hostile(daemon, negotiation) as h:
            h.socket.sendall(half)


def test_clients_that_come_and_go(daemon, honest):
    for i in range(300):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(daemon.sockets[0])
            if i % 3:
                s.sendall(CAPS + VERSION * (i % 5))
            if i % 7 == 0:
                s.settimeout(WAIT_S)
                s.recv(1)


def flood(sock, piece, pieces):
    """Send until all is sent, or nothing more is taken. The number of bytes."""
    sent = 0
    sock.settimeout(0.2)
    try:
        for _ in range(pieces):
            sent += sock.send(piece)
    except (socket.timeout, BrokenPipeError, ConnectionResetError):
        pass
    return sent


FLOODS = {'commands': VERSION * 100, 'brackets': b'}' * 4096, 'words': b'xyz ' * 1000,
          'resets': b'\xff' * 4096, 'unknown': b'{"execute":"nope"}' * 200}


@pytest.mark.parametrize('name', FLOODS)
@pytest.mark.parametrize('oob', [False, True])
def test_replies_are_not_read(daemon, honest, name, oob):
    """The daemon stops reading such a client, and holds little of what it would answer."""
    piece = FLOODS[name]
    before = peak_bytes(daemon)
    with Hostile(daemon, OOB if oob else CAPS) as h:
        sent = flood(h.socket, piece, 16 * MIB // len(piece))
        assert sent < 16 * MIB - len(piece)
        assert honest.call('query-version')
    check_growth(daemon, before)


def test_honest_one_is_served_during_a_flood(daemon, honest):
    """A client that sends and reads as fast as it can does not keep another one out."""
    with Hostile(daemon) as h:
        stop = threading.Event()

        def read():
            while h.file.read1(65536):
                pass

        def write():
            while not stop.is_set():
                h.socket.sendall(VERSION * 1000)
            h.socket.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=f) for f in (read, write)]
        for t in threads:
            t.start()
        for _ in range(50):
            assert honest.call('query-version')
        stop.set()
        for t in threads:
            t.join(WAIT_S)


def test_events_are_not_read(daemon):
    """Whoever does not read its events is dropped when too many wait, and only it."""
    before = peak_bytes(daemon)
    with Hostile(daemon) as h, daemon.client(1) as honest:
        for _ in range(8000):
            honest.write(b'{"execute":"stop"}{"execute":"cont"}')
            for _ in range(4):
                honest.read()
        while h.line():
            pass
    check_growth(daemon, before)
    with Hostile(daemon) as h:
        h.socket.sendall(VERSION)
        assert b'"return"' in h.line()


def test_random_bytes(daemon, honest):
    """Requests that are cut, joined and changed at random; the seed is printed."""
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print('PLATTER_SEED', seed)
    rng = random.Random(seed)
    seeds = [CAPS, OOB, VERSION, b'{"exec-oob":"query-version","id":{"a":[1]}}', b'[]', b'}', b'\xff',
             b'{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"x"}}',
             b'{"execute":"blockdev-del","arguments":{"node-name":"x"}}',
             b'{"execute":"query-named-block-nodes"}', b'{"execute":"stop"}', b'{"execute":"cont"}']
    for _ in range(150):
        text = bytearray(b''.join(rng.choice(seeds) for _ in range(rng.randrange(1, 12))))
        for _ in range(rng.randrange(4)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        with Hostile(daemon, None) as h:
            while text:
                n = rng.randrange(1, len(text) + 1)
                h.socket.sendall(text[:n])
                del text[:n]
            if rng.random() < 0.5:
                h.socket.shutdown(socket.SHUT_WR)
                for line in h.file:
                    assert json.loads(line).keys() & {'return', 'error', 'event'}
