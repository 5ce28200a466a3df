# SPDX-License-Identifier: MIT
"""The NBD client driver and servers that lie, break off or say nothing."""
import struct

import pytest

from nbd_fake_server import FakeServer, fake_serving
from tools_common import formats, platter

pytestmark = pytest.mark.skipif('nbd' not in formats(),
                                reason='this build has no nbd')


def read(uri, *options):
    return platter('io', '-f', 'raw', *options, '-c', 'read -P 5 0 4k', uri)


def test_the_fake_server_is_one(tmp_path):
    with fake_serving(tmp_path / 's', FakeServer()) as uri:
        done = read(uri)
        assert done.returncode == 0 and 'read 4096/4096' in done.stdout, done.stdout + done.stderr
        assert platter('map', '-f', 'raw', uri).returncode == 0


@pytest.mark.parametrize('name, value', [
    ('greeting', b''),
    ('greeting', b'NBDMAGIC'),
    ('greeting', b'GET / HTTP/1.1\r\n\r\n'),
    ('size', (1 << 64) - 1),
    ('size', 1 << 63),
    ('block_sizes', (3, 4096, 1 << 25)),
    ('block_sizes', (1 << 20, 1 << 20, 1 << 25)),
    ('block_sizes', (4096, 4096, 512)),
])
def test_bad_facts_are_refused(name, value, tmp_path):
    server = FakeServer()
    setattr(server, name, value)
    if name == 'greeting':  # and then the connection ends
        def talk(conn):
            conn.sendall(value)
        server.talk = talk
    with fake_serving(tmp_path / 's', server) as uri:
        done = platter('info', '-f', 'raw', uri)
        if done.returncode == 0:  # libnbd may leave out sizes that make no sense
            assert name == 'block_sizes'
        else:
            assert done.returncode == 1 and str(tmp_path / 's') in done.stderr, done.stderr


def test_zero_bytes_and_an_odd_end(tmp_path):
    for size, shown in [(0, '0 B'), (4097, '4 KiB')]:
        server = FakeServer()
        server.size, server.block_sizes = size, (512, 4096, 1 << 25)
        with fake_serving(tmp_path / f's{size}', server) as uri:
            assert f'virtual size: {shown}' in platter('info', '-f', 'raw', uri).stdout


REPLIES = {
    'wrong cookie': lambda s, c, o, n: s.chunk(c + 1, 1, struct.pack('>Q', o) + b'\5' * n),
    'past the request': lambda s, c, o, n: s.chunk(c, 1, struct.pack('>Q', o + n) + b'\5' * n),
    'too little': lambda s, c, o, n: s.chunk(c, 1, struct.pack('>Q', o) + b'\5' * 512),
    'huge': lambda s, c, o, n: s.chunk(c, 1, b'', length=0xffffffff),
    'unknown kind': lambda s, c, o, n: s.chunk(c, 77, b'abc'),
    'huge hole': lambda s, c, o, n: s.chunk(c, 2, struct.pack('>QI', o, 0xffffffff)),
    'bad magic': lambda s, c, o, n: b'\0' * 64,
    'status for a read': lambda s, c, o, n: s.chunk(c, 5, struct.pack('>III', 1, n, 0)),
    'an error': lambda s, c, o, n: s.chunk(c, 0x8001, struct.pack('>IH', 28, 0)),
    'a text too long': lambda s, c, o, n: s.chunk(c, 0x8001, struct.pack('>IH', 5, 60000)),
    'nothing': lambda s, c, o, n: s.chunk(c, 0, b''),
}


# Two that end the connection are asked with a delay too: no new connection is to be waited for.
@pytest.mark.parametrize('what, delay', [*((what, 0) for what in REPLIES), ('wrong cookie', 1), ('bad magic', 1)])
def test_bad_answers_are_errors(what, delay, tmp_path):
    server = FakeServer()
    server.read = lambda *request: REPLIES[what](server, *request)
    with fake_serving(tmp_path / 's', server):
        done = platter('io', '--image-opts', '-c', 'read -P 5 0 4k',
                       f'driver=nbd,path={tmp_path}/s,reconnect-delay={delay}')
        assert done.returncode == 1 and 'read failed' in done.stdout + done.stderr


@pytest.mark.parametrize('payload', [
    struct.pack('>III', 1, 0, 0),
    struct.pack('>I', 1),
    struct.pack('>II', 1, 7),
    struct.pack('>III', 2, 65536, 0),
    struct.pack('>I', 1) + struct.pack('>II', 0, 0) * 1000,
])
def test_bad_status_is_an_error(payload, tmp_path):
    server = FakeServer()
    server.status = lambda cookie, offset, length: server.chunk(cookie, 5, payload)
    with fake_serving(tmp_path / 's', server) as uri:
        assert platter('map', '-f', 'raw', uri).returncode == 1


def test_status_beyond_what_was_asked_is_cut(tmp_path):
    server = FakeServer()
    server.status = lambda cookie, offset, length: server.chunk(
        cookie, 5, struct.pack('>III', 1, 0xffffffff, 3))
    with fake_serving(tmp_path / 's', server) as uri:
        out = platter('map', '--output=json', '-f', 'raw', uri).stdout
        assert '"length": 1048576' in out and out.count('start') == 1


def test_silence_ends_with_the_timeout(tmp_path):
    server = FakeServer()

    def talk(conn):
        conn.recv(1)  # until the client gives up
    server.talk = talk
    with fake_serving(tmp_path / 's', server):
        done = platter('info', '--image-opts', f'driver=nbd,path={tmp_path}/s,open-timeout=1')
        assert done.returncode == 1 and 'timed out' in done.stderr, done.stderr
