# SPDX-License-Identifier: MIT
"""The QMP session beside the reference's: the same bytes to both, and the same bytes come back, but
for the version and for what is said of text that is no JSON (ours names the place). Where the two
differ otherwise on purpose the test says how."""
import json
import os
import re
import shutil
import socket

import pytest

from qmp import WAIT_S, Daemon, RawClient

PLATTER = os.environ['PLATTER_BIN']
REFERENCE = shutil.which('qemu-storage-daemon')
CAPS = b'{"execute":"qmp_capabilities"}'
OOB = b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}'
VERSION = b'{"execute":"query-version"}'


def compat(tmp_path):
    link = tmp_path / 'qemu-storage-daemon'
    if not link.exists():
        link.symlink_to(PLATTER)
    return [str(link)]


def programs(tmp_path):
    return [compat(tmp_path)] + ([[REFERENCE]] if REFERENCE else [])


def messages(data):
    assert data == b'' or data.endswith(b'\r\n')
    return [json.loads(line) for line in data.splitlines()]


def masked(line):
    line = re.sub(rb'("(?:micro|minor|major)": )\d+', rb'\1N', line)
    line = re.sub(rb'("package": )"[^"]*"', rb'\1TEXT', line)
    # The reference has no name for the elements of a list; ours says which list.
    line = line.replace(b"Parameter 'null' does", b"Parameter 'enable' does")
    return re.sub(rb'("desc": )"(JSON parse error|invalid JSON at).*"', rb'\1NO JSON', line)


def talk_bytes(daemon, data):
    with RawClient(daemon.sockets[0]) as raw:
        greeting = raw.line()  # the reference greets nobody whose end is closed before it has a look
        raw.send(data)
        return greeting + raw.rest()


def talk(daemon, data):
    return messages(talk_bytes(daemon, data))


SAME = {
    'greeting': b'',
    'before negotiation': VERSION + b'{"execute":"nope","id":1}{"exec-oob":"query-version"}',
    'negotiation': b'{"execute":"qmp_capabilities","arguments":{"enable":["bad"]}}'
                   b'{"execute":"qmp_capabilities","arguments":{"enable":"oob"}}'
                   b'{"execute":"qmp_capabilities","arguments":{"x":1}}' + VERSION + CAPS + CAPS,
    'ids': CAPS + b''.join(b'{"execute":"query-version","id":%s}' % i for i in (
        b'1', b'-1.50', b'"a"', b'null', b'true', b'[1,{"a":[]}]', b'{"b":"\\u00e9"}',
        b'{"driver":1,"size":{"z":0,"y":[{}],"x":1e3},"offset":"\\u0001\\"/\xf0\x9d\x84\x9e"}',
        b'18446744073709551615', b"'q'")),
    'ids of errors': CAPS + b'{"execute":"nope","id":[1]}{"id":{"a":1}}{"execute":1,"id":"x"}'
                            b'{"execute":"query-version","arguments":[],"id":3}'
                            b'{"execute":"query-version","extra":1,"id":4}'
                            b'{"execute":"query-version","arguments":{"x":1},"id":5}',
    'not objects': CAPS + b'[] 1 "x" null true {}' + VERSION,
    'oob off': CAPS + b'{"exec-oob":"query-version","id":1}',
    'oob on': OOB,
    # The reference drops what is queued with oob when its client's end is closed; we answer it.
    'twice oob': b'{"execute":"qmp_capabilities","arguments":{"enable":["oob","oob"]}}',
    'single quotes': b"{'execute':'qmp_capabilities'}{'execute':'query-version'}",
    'white space': b'\n\t ' + CAPS + b'\r\n\r\n' + VERSION + b'\n\n',
    'syntax': CAPS + b'{"a":tru}{"execute" "x"}{"execute":"query-version",}' + VERSION,
    'duplicate': CAPS + b'{"execute":"query-version","execute":"query-version"}' + VERSION,
    'brackets': CAPS + b'}{]' + VERSION + b'[}' + VERSION,
    'words': CAPS + b'xyz ' + VERSION,
    'reset': CAPS + b'\xff' + VERSION + b'{"execute":"query-ver\xff' + VERSION,
    'end of line in a string': CAPS + b'{"execute":"query-ver\n' + VERSION,
    'unfinished': CAPS + VERSION + b'{"execute":"query',
}


@pytest.mark.skipif(not REFERENCE, reason='no reference')
@pytest.mark.parametrize('name', SAME)
def test_like_the_reference(tmp_path, name):
    ours, theirs = [], []
    for program, got in zip(programs(tmp_path), (ours, theirs)):
        with Daemon(tmp_path, program) as daemon:
            got += map(masked, talk_bytes(daemon, SAME[name]).splitlines())
    assert ours == theirs


def test_texts_that_clients_know(tmp_path):
    """Texts that programs are known to look for."""
    with Daemon(tmp_path, compat(tmp_path)) as daemon:
        got = talk(daemon, VERSION + CAPS + CAPS + b'{"execute":"nope"}')
    assert got[1]['error']['desc'] == ("Expecting capabilities negotiation with "
                                       "'qmp_capabilities'")
    assert got[2] == {'return': {}}
    assert got[3]['error']['desc'] == ('Capabilities negotiation is already complete, '
                                       'command ignored')
    assert got[4]['error']['desc'] == 'The command nope has not been found'


def test_greeting(tmp_path):
    with Daemon(tmp_path, compat(tmp_path)) as daemon:
        with RawClient(daemon.sockets[0]) as raw:
            greeting = messages(raw.rest())[0]['QMP']  # also who closes its end at once is greeted
    assert greeting['capabilities'] == ['oob']
    assert greeting['version']['package'].startswith('Platter ')
    assert greeting['version']['qemu'] == {'major': 7, 'minor': 2, 'micro': 0}  # clients judge by it
    with Daemon(tmp_path, [PLATTER, 'daemon']) as daemon:
        greeting, _, asked = talk(daemon, CAPS + VERSION)
    numbers = greeting['QMP']['version']
    assert '{major}.{minor}.{micro}'.format(**numbers['qemu']) == numbers['package'].split()[1]
    assert asked['return'] == numbers


def test_one_client_at_a_time(tmp_path):
    """The next one is greeted when the one before it has gone, and negotiates anew."""
    for program in programs(tmp_path):
        with Daemon(tmp_path, program) as daemon:
            with RawClient(daemon.sockets[0]) as first, RawClient(daemon.sockets[0]) as second:
                assert b'QMP' in first.line()
                first.send(CAPS)
                assert first.line() == b'{"return": {}}\r\n'
                second.send(VERSION)
                second.socket.settimeout(0.05)
                with pytest.raises(socket.timeout):
                    second.socket.recv(1)
                second.socket.settimeout(WAIT_S)
                first.close()
                second.file = second.socket.makefile('rb')
                assert b'QMP' in second.line()
                assert b'CommandNotFound' in second.line()


def test_byte_by_byte(tmp_path):
    with Daemon(tmp_path, compat(tmp_path)) as daemon:
        with RawClient(daemon.sockets[0]) as raw:
            assert b'QMP' in raw.line()
            for byte in CAPS + VERSION:
                raw.send(bytes([byte]))
            assert raw.line() == b'{"return": {}}\r\n'
            assert b'package' in raw.line()


def test_socket_mode_and_life(tmp_path):
    """Only its owner may connect (by the reference's name that is left to the umask); the path goes
    at the end; a dead socket is replaced, another file is not."""
    program = [os.environ['PLATTER_BIN'], 'daemon']
    path = tmp_path / 'qmp0.sock'
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with Daemon(tmp_path, program):
        with RawClient(str(path)) as raw:
            assert b'QMP' in raw.line()
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert not path.exists()
    path.write_text('mine')
    with pytest.raises(AssertionError, match='not a socket'):
        Daemon(tmp_path, program)
    assert path.read_text() == 'mine'
