# SPDX-License-Identifier: MIT
"""TLS of the NBD server: real clients with certificates and keys, those that are refused, and bytes
that are no TLS."""
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
from contextlib import contextmanager

import pytest

from nbd_client import (CMD_READ, ERR_INVALID, ERR_TLS_REQD, EXTENDED, OPT_ABORT, OPT_EXPORT_NAME, OPT_INFO,
                        OPT_LIST, OPT_SET_META, OPT_STARTTLS, OPT_STRUCTURED_REPLY, STRUCTURED, Client,
                        Disconnected, Refused)
from nbd_tool import background
from qmp import Daemon
from tls_common import Keys, certtool, client_context, listening, psk, raw_connection, starttls, x509
from tools_common import TIMEOUT, called, formats, run

pytestmark = pytest.mark.skipif('nbd' not in formats(), reason='this build has no nbd')
MIB = 1 << 20
PLATTER = os.environ.get('PLATTER_BIN', 'platter')


@pytest.fixture(scope='session')
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp('pki') / 'keys')


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'disk.raw'
    path.write_bytes(random.Random(5).randbytes(4 * MIB))
    return path


@pytest.fixture
def program(tmp_path):
    """platter nbd by the name that other programs know."""
    link = tmp_path / 'qemu-nbd'
    link.symlink_to(os.path.abspath(PLATTER))
    return link


@contextmanager
def serve(program, disk, creds, *more):
    with listening(program, '-t', '-e', '0', '-f', 'raw', *creds, '--tls-creds', 't', *more, disk) as server:
        yield server


@pytest.fixture
def served(program, keys, disk):
    """A server that asks for certificates."""
    with serve(program, disk, x509('t', keys.server, 'server')) as server:
        yield server


def image(server, creds, more=''):
    """Arguments that name the disk behind a server."""
    return [*creds, '--image-opts', f'driver=nbd,host=127.0.0.1,port={server.port},tls-creds=c{more}']


def handle(server, **settings):
    """A script of python's libnbd that prints what a client with these settings reads."""
    lines = ['import nbd', 'h = nbd.NBD()', 'h.set_tls(nbd.TLS_REQUIRE)']
    lines += [f'h.set_tls_{key}({value!r})' for key, value in settings.items()]
    lines += [f'h.connect_tcp("127.0.0.1", "{server.port}")', 'print(h.get_tls_negotiated(), h.get_size())',
              'assert h.pread(512, 0) != bytes(512)', 'h.shutdown()']
    return run(['/usr/bin/python3', '-c', '\n'.join(lines)])


# ---- clients of others, and ours ----

@pytest.mark.parametrize('client', ['qemu-img', PLATTER])
def test_certificates(served, tmp_path, keys, client, disk):
    copy = tmp_path / 'copy.raw'
    done = run([client, 'convert', '-O', 'raw', *image(served, x509('c', keys.client)), copy])
    assert done.returncode == 0, done.stderr
    assert copy.read_bytes() == disk.read_bytes()
    for folder in (keys.stranger, keys.mistrust, keys.nobody):
        done = run([client, 'info', *image(served, x509('c', folder))])
        assert done.returncode == 1 and 'virtual size' not in done.stdout, folder
        assert 'Our own' not in done.stderr, done.stderr
    for program in (client, called(tmp_path, 'qemu-img')):
        done = run([program, 'info', '--image-opts', f'driver=nbd,host=127.0.0.1,port={served.port}'])
        assert done.returncode == 1
        assert 'TLS negotiation required before option 7 (go)\nDid you forget a valid tls-creds?' in done.stderr


def test_libnbd(served, keys):
    done = handle(served, certificates=str(keys.client))
    assert (done.returncode, done.stdout) == (0, f'True {4 * MIB}\n'), done.stderr
    for folder in (keys.stranger, keys.mistrust):
        assert handle(served, certificates=str(folder)).returncode != 0
    done = run(['nbdinfo', '--size', served.uri(keys.client)])
    assert done.stdout == f'{4 * MIB}\n', done.stderr
    done = run([PLATTER, 'nbd', '-L', '-b', '127.0.0.1', '-p', served.port])
    assert done.returncode == 1 and 'Did you forget a valid tls-creds?' in done.stderr, done.stderr
    done = run(['nbdinfo', f'nbd://127.0.0.1:{served.port}'])
    assert done.returncode != 0 and 'without TLS' in done.stdout, done.stderr


def test_much_at_once(served, tmp_path, keys, disk):
    """Copies in both directions with many requests in flight, and with requests of 32 MiB."""
    uri = served.uri(keys.client)
    new, back = tmp_path / 'new.raw', tmp_path / 'back.raw'
    new.write_bytes(random.Random(7).randbytes(4 * MIB))
    for words in (['nbdcopy', new, uri], ['nbdcopy', '--requests=64', '--request-size=65536', uri, back]):
        done = run(words)
        assert done.returncode == 0, done.stderr
    assert disk.read_bytes() == new.read_bytes() == back.read_bytes()


@pytest.mark.parametrize('client', ['qemu-img', PLATTER])
def test_keys(tmp_path, program, keys, disk, client):
    with serve(program, disk, psk('t', keys.psk, 'server')) as served:
        for user, folder, well in (('alice', keys.psk, True), ('bob', keys.psk, True),
                                   ('alice', keys.wrong_psk, False), ('carol', keys.wrong_psk, False)):
            done = run([client, 'info', *image(served, psk('c', folder, more=f',username={user}'))])
            assert (done.returncode == 0) == well, (user, done.stderr)
        done = run([client, 'info', *image(served, x509('c', keys.client))])
        assert done.returncode == 1
        done = handle(served, psk_file=str(keys.psk / 'keys.psk'), username='bob')
        assert done.returncode == 0, done.stderr


def test_who_need_not_show_a_certificate(tmp_path, program, keys, disk):
    with serve(program, disk, x509('t', keys.server, 'server', ',verify-peer=off')) as served:
        for folder in (keys.nobody, keys.client):
            assert run([PLATTER, 'info', *image(served, x509('c', folder))]).returncode == 0
        assert run([PLATTER, 'info', *image(served, x509('c', keys.mistrust))]).returncode == 1
        assert run([PLATTER, 'info', *image(served, x509('c', keys.mistrust, more=',verify-peer=off'))]).returncode == 0


@pytest.mark.parametrize('rule, well', [
    ('authz-simple,id=a,identity=C=GB,,O=Acme,,CN=alice', True),
    ('authz-simple,id=a,identity=CN=alice', False),
    ('authz-list,id=a,rules.0.match=C=GB*,rules.0.policy=allow,rules.0.format=glob', True),
    ('authz-list,id=a,rules.0.match=C=GB*,rules.0.policy=allow', False),
    ('authz-list,id=a,policy=allow,rules.0.match=*CN=alice,rules.0.policy=deny,rules.0.format=glob', False),
])
def test_who_may_come(tmp_path, program, keys, disk, rule, well):
    with serve(program, disk, x509('t', keys.server, 'server'), '--object', rule, '--tls-authz', 'a') as served:
        for client in ('qemu-img', PLATTER):
            done = run([client, 'info', *image(served, x509('c', keys.client))])
            assert (done.returncode == 0) == well, done.stderr


def test_users_that_may_come(tmp_path, program, keys, disk):
    with serve(program, disk, psk('t', keys.psk, 'server'), '--object', 'authz-simple,id=a,identity=bob',
               '--tls-authz', 'a') as served:
        for user, well in (('bob', True), ('alice', False)):
            done = run([PLATTER, 'info', *image(served, psk('c', keys.psk, more=f',username={user}'))])
            assert (done.returncode == 0) == well, (user, done.stderr)


@pytest.mark.parametrize('client', ['qemu-img', PLATTER])
def test_the_name_of_the_host(served, keys, client):
    for host, more, well in (('127.0.0.1', '', True), ('localhost', '', True),
                             ('localhost', ',tls-hostname=localhost', True),
                             ('127.0.0.1', ',tls-hostname=other.example', False)):
        options = f'driver=nbd,host={host},port={served.port},tls-creds=c{more}'
        done = run([client, 'info', *x509('c', keys.client), '--image-opts', options])
        assert (done.returncode == 0) == well, done.stderr


def test_a_certificate_for_another_host(tmp_path, program, keys, disk):
    folder = keys.ca.issue(tmp_path / 'other', 'server', 'cn = other.example\ndns_name = other.example')
    with serve(program, disk, x509('t', folder, 'server')) as served:
        for client in ('qemu-img', PLATTER):
            assert run([client, 'info', *image(served, x509('c', keys.client))]).returncode == 1
            assert run([client, 'info', *image(served, x509('c', keys.client, more=',verify-peer=off'))]).returncode == 0


def test_unix_sockets(tmp_path, program, keys, disk):
    """They have no name that a certificate could be checked for."""
    with background(program, tmp_path, '-t', '-e', '0', '-f', 'raw', *x509('t', keys.server, 'server'),
                    '--tls-creds', 't', disk) as server:
        where = f'driver=nbd,path={server.socket},tls-creds=c'
        for client in ('qemu-img', PLATTER):
            done = run([client, 'info', *x509('c', keys.client), '--image-opts', where])
            assert done.returncode == 1 and 'No hostname for certificate validation' in done.stderr, done.stderr
        done = run([PLATTER, 'info', *x509('c', keys.client, more=',verify-peer=off'), '--image-opts', where])
        assert done.returncode == 0, done.stderr
        for program_words in (['qemu-nbd'], [PLATTER, 'nbd']):
            done = run([*program_words, '-L', '-k', server.socket, *x509('c', keys.client), '--tls-creds', 'c'])
            assert done.returncode == 1 and 'No hostname for certificate validation' in done.stderr, done.stderr


# ---- the client driver at the reference's server ----

@pytest.mark.parametrize('kind', ['x509', 'psk'])
def test_our_client_at_qemu_nbd(tmp_path, keys, disk, kind):
    creds = x509('t', keys.server, 'server') if kind == 'x509' else psk('t', keys.psk, 'server')
    ours = x509('c', keys.client) if kind == 'x509' else psk('c', keys.psk, more=',username=alice')
    wrong = x509('c', keys.mistrust) if kind == 'x509' else psk('c', keys.wrong_psk, more=',username=alice')
    with serve('qemu-nbd', disk, creds) as served:
        copy = tmp_path / 'copy.raw'
        done = run([PLATTER, 'convert', '-O', 'raw', *image(served, ours), copy])
        assert done.returncode == 0, done.stderr
        assert copy.read_bytes() == disk.read_bytes()
        link = called(tmp_path, 'qemu-img')
        for words in (['info', *image(served, wrong)], ['convert', *image(served, wrong), copy]):
            told = [run([who, *words]) for who in (link, 'qemu-img')]
            assert told[0].returncode == told[1].returncode == 1 and 'TLS handshake failed: ' in told[0].stderr
            # libnbd does not say what a certificate lacks
            assert (told[0].stderr == told[1].stderr) == (kind == 'psk')
        sums = [run([PLATTER, 'checksum', '--flat', *words]).stdout.split()[0]
                for words in (image(served, ours), ['-f', 'raw', disk])]
        assert sums[0] == sums[1]
        assert run([PLATTER, 'compare', *image(served, ours), f'driver=raw,file.filename={disk}']).returncode == 0
        lists = [run([program, *words, '-L', '-b', '127.0.0.1', '-p', served.port, *ours, '--tls-creds', 'c'])
                 for program, *words in (['qemu-nbd'], [PLATTER, 'nbd'])]
        assert [done.returncode for done in lists] == [0, 0], lists
        assert lists[0].stdout == lists[1].stdout


def test_reconnect_is_over_tls_too(tmp_path, program, keys, disk):
    arguments = ['-t', '-e', '0', '-f', 'raw', *psk('t', keys.psk, 'server'), '--tls-creds', 't', disk]
    node = ['--image-opts', f'driver=nbd,path={tmp_path}/nbd.sock,tls-creds=c,reconnect-delay=60']
    with background(program, tmp_path, *arguments):
        words = [PLATTER, 'io', *psk('c', keys.psk, more=',username=alice'), *node]
        process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)
        process.stdin.write('read 0 4k\n')
        process.stdin.flush()
        line = ''
        while 'read 4096/4096' not in line:
            line = process.stdout.readline()
            assert line
    with background(program, tmp_path, *arguments):
        out, _ = process.communicate('read 4k 4k\nquit\n', timeout=TIMEOUT)
    assert 'read 4096/4096 bytes at offset 4096' in out and process.returncode == 0, out


# ---- the protocol ----

def refused(code, call, *arguments):
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value.message


def test_nothing_before_tls(served):
    with Client(raw_connection(served.address)).greet() as c:
        for option, data in ((OPT_LIST, b''), (OPT_LIST, b'x'), (OPT_INFO, Client.go_data('')),
                             (OPT_STRUCTURED_REPLY, b''), (OPT_SET_META, Client.meta_data('', ['base:allocation'])),
                             (99, b'zz'), (0, b'')):
            message = refused(ERR_TLS_REQD, c.opt, option, data)
            assert message == f'Option 0x{option:x} not permitted before TLS'.encode()
        refused(ERR_INVALID, c.opt, OPT_STARTTLS, b'data')
        assert c.opt(OPT_ABORT) == []
        c.expect_eof()
    with Client(raw_connection(served.address)).greet() as c:
        c.opt_send(OPT_EXPORT_NAME)
        c.expect_eof()


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize('mode', [STRUCTURED, EXTENDED])
def test_after_tls_all_begins_anew(served, keys, disk, version, mode):
    with starttls(served.address, keys, version=version) as c:
        refused(ERR_INVALID, c.opt, OPT_STARTTLS)
        assert c.list() == [('', '')]
        c.negotiate(mode)
        c.meta(OPT_SET_META, '', ['base:allocation'])
        c.go()
        data = disk.read_bytes()
        for offset, length in ((0, 1), (0, 4 * MIB), (511, 70000), (1, 16384), (4096, 16383)):
            assert c.pread(offset, length) == data[offset:offset + length]
        c.pwrite(3, b'q' * 100001)
        c.pwrite(2 * MIB, b'r' * (2 * MIB))
        assert c.pread(0, 100010) == data[:3] + b'q' * 100001 + data[100004:100010]
        cookies = [c.submit(CMD_READ, i * 4096, 4096) for i in range(100)]
        for cookie in reversed(cookies):
            assert c.wait(cookie).error == 0
        assert c.pread(2 * MIB, 2 * MIB) == b'r' * (2 * MIB)


def test_bytes_in_the_clear_behind_the_option_are_not_taken(served):
    """What came before the handshake must not be read as if it had come after."""
    with Client(raw_connection(served.address)).greet() as c:
        c.send(b'IHAVEOPT' + struct.pack('>II', OPT_STARTTLS, 0) + b'IHAVEOPT' + struct.pack('>II', OPT_LIST, 0))
        assert c.opt_replies(OPT_STARTTLS) == []
        c.expect_eof()


def test_a_client_that_does_not_read_and_then_does(served, keys):
    """The server goes on taking requests while replies wait, as far as its bounds go."""
    with starttls(served.address, keys) as c:
        c.go()
        cookies = [c.submit(CMD_READ, 0, 512 * 1024) for _ in range(40)]
        for cookie in cookies:
            assert c.wait(cookie).error == 0


# ---- hostile clients ----

GARBAGE = [b'GET / HTTP/1.0\r\n\r\n', b'\x16\x03\x01\xff\xff' + b'x' * 70000, bytes(100),
           b'\x80\x80\x01\x03\x01' + b'y' * 200, b'\x16\x03\x01\x40\x00\x01\xff\xff\xff' + b'z' * 17000,
           b'\x15\x03\x03\x00\x02\x02\x28', b'\x17\x03\x03\x00\x10' + b'w' * 16]


def begun(served):
    c = Client(raw_connection(served.address), timeout=TIMEOUT).greet()
    assert c.opt(OPT_STARTTLS) == []
    return c


def works(served, keys):
    with starttls(served.address, keys) as c:
        c.go()
        assert len(c.pread(0, 4096)) == 4096


def test_garbage_instead_of_a_hello(served, keys):
    for text in GARBAGE:
        with begun(served) as c:
            try:
                c.send(text)
                c.s.shutdown(socket.SHUT_WR)
            except (Disconnected, OSError):
                pass
            try:
                while c.s.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    works(served, keys)


def hello(keys):
    """The first flight of a client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = client_context(keys).wrap_bio(incoming, outgoing, server_hostname='localhost')
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


def test_half_a_handshake(served, keys):
    """Many that stop within, at every kind of place, and go."""
    first = hello(keys)
    for cut in (0, 1, 4, 5, 6, len(first) // 2, len(first) - 1, len(first)):
        with begun(served) as c:
            c.send(first[:cut])
    works(served, keys)


def test_a_slow_handshake_disturbs_nobody_and_ends(served, keys):
    first = hello(keys)
    with begun(served) as slow, begun(served) as silent:
        slow.send(first[:len(first) // 2])
        for _ in range(3):
            works(served, keys)
        slow.expect_eof()  # at the time that any negotiation has
        silent.expect_eof()


def test_an_end_without_farewell(served, keys):
    for _ in range(3):
        c = starttls(served.address, keys)
        c.go()
        c.submit(CMD_READ, 0, 65536)
        os.close(c.s.detach())
    works(served, keys)


def test_records_that_are_no_records(served, keys):
    """In transmission: plain bytes, and records that are too long or changed, end that client only."""
    for text in (b'\x17\x03\x03\x00\x20' + b'x' * 32, b'\x17\x03\x03\xff\xff' + b'x' * 70000,
                 struct.pack('>IHHQQI', 0x25609513, 0, 0, 1, 0, 512)):
        c = starttls(served.address, keys)
        c.go()
        with socket.socket(fileno=c.s.detach()) as plain:
            plain.settimeout(TIMEOUT)
            try:
                plain.sendall(text)
                while plain.recv(4096):
                    pass
            except (ConnectionResetError, BrokenPipeError):
                pass
    works(served, keys)


# ---- the daemon ----

def test_daemon(tmp_path, keys, disk):
    creds = {'qom-type': 'tls-creds-x509', 'dir': str(keys.server), 'endpoint': 'server'}
    where = {'type': 'unix', 'data': {'path': str(tmp_path / 'nbd.sock')}}
    node = ['--image-opts', f'driver=nbd,path={tmp_path}/nbd.sock,tls-creds=c']
    with Daemon(tmp_path, [PLATTER, 'daemon'], '--blockdev',
                f'driver=file,node-name=d,filename={disk}') as daemon, daemon.client() as qmp:
        off = ',verify-peer=off'

        def fails(text, command, **arguments):
            qmp.fails(command, text, **arguments)

        for _ in range(2):
            qmp.call('object-add', id='t', **creds)
            qmp.call('object-add', **{'qom-type': 'authz-list'}, id='a',
                     rules=[{'match': keys.alice, 'policy': 'allow'}])
            qmp.call('object-add', **{'qom-type': 'tls-creds-x509'}, id='c', dir=str(keys.client))
            fails("No TLS credentials with id 'x'", 'nbd-server-start', addr=where, **{'tls-creds': 'x'})
            fails("Object with id 'a' is not TLS credentials", 'nbd-server-start', addr=where, **{'tls-creds': 'a'})
            fails('Expected TLS credentials for a server endpoint', 'nbd-server-start', addr=where,
                  **{'tls-creds': 'c'})
            fails("No authorization object with id 'x'", 'nbd-server-start', addr=where,
                  **{'tls-creds': 't', 'tls-authz': 'x'})
            fails("'tls-authz' needs 'tls-creds'", 'nbd-server-start', addr=where, **{'tls-authz': 'a'})
            assert qmp.call('qom-get', path='/objects/t', property='endpoint') == 'server'
            assert qmp.call('qom-get', path='/objects/t', property='verify-peer') is True
            assert qmp.call('qom-get', path='/objects/a', property='policy') == 'deny'
            fails("Property 'dir' of object 't' cannot be changed", 'qom-set', path='t', property='dir', value='/')
            qmp.call('nbd-server-start', addr=where, **{'tls-creds': 't', 'tls-authz': 'a'})
            qmp.call('block-export-add', type='nbd', id='e', **{'node-name': 'd'}, name='')
            assert run([PLATTER, 'info', *x509('c', keys.client, more=off), *node]).returncode == 0
            assert run([PLATTER, 'info', *x509('c', keys.stranger, more=off), *node]).returncode == 1
            fails("object 't' is in use", 'object-del', id='t')
            fails("object 'a' is in use", 'object-del', id='a')
            qmp.call('nbd-server-stop')
            for name in 'tac':
                qmp.call('object-del', id=name)


def test_daemon_from_the_command_line(tmp_path, keys, disk):
    with Daemon(tmp_path, [PLATTER, 'daemon'], '--blockdev', f'driver=file,node-name=d,filename={disk}',
                *psk('t', keys.psk, 'server'), '--nbd-server',
                f'addr.type=unix,addr.path={tmp_path}/nbd.sock,tls-creds=t', '--export', 'nbd,id=e,node-name=d,name='):
        done = run([PLATTER, 'info', *psk('c', keys.psk, more=',username=bob'), '--image-opts',
                    f'driver=nbd,path={tmp_path}/nbd.sock,tls-creds=c'])
        assert done.returncode == 0, done.stderr


# ---- what is refused, in the words of the reference ----

REFUSED = [
    'x509 dir=/nonexist,endpoint=server', 'x509 dir=EMPTY,endpoint=server', 'x509 endpoint=server',
    'x509 dir=NOBODY,endpoint=server', 'x509 dir=CLIENT', 'x509 dir=SERVER,endpoint=sErver',
    'x509 dir=SERVER,endpoint=server,verify-peer=maybe', 'x509 dir=SERVER,endpoint=server,passwordid=none',
    'x509 dir=SERVER,endpoint=server,foo=1', 'x509 dir=EXPIRED,endpoint=server', 'x509 dir=BAD,endpoint=server',
    'x509 dir=BAD,endpoint=server,sanity-check=off', 'x509 dir=MIXED,endpoint=server',
    'x509 dir=FOREIGN,endpoint=server', 'x509 dir=FUTURE,endpoint=server', 'x509 dir=ISCA,endpoint=server',
    'psk dir=/nonexist,endpoint=server', 'psk dir=PSK,endpoint=client', 'psk dir=PSK,endpoint=client,username=eve',
    'psk endpoint=server', 'psk dir=PSK,endpoint=server,username=alice', 'anon endpoint=client',
]


@pytest.fixture(scope='session')
def faulty(keys, tmp_path_factory):
    """Folders by the words above."""
    top = tmp_path_factory.mktemp('faulty')
    folders = {'EMPTY': top / 'empty', 'NOBODY': keys.nobody, 'CLIENT': keys.client, 'SERVER': keys.server,
               'PSK': keys.psk, 'BAD': top / 'bad', 'MIXED': top / 'mixed', 'FOREIGN': top / 'foreign'}
    for name in ('EMPTY', 'BAD', 'MIXED', 'FOREIGN'):
        folders[name].mkdir()
    for name in ('BAD', 'MIXED', 'FOREIGN'):
        for file in ('ca-cert.pem', 'server-cert.pem', 'server-key.pem'):
            (folders[name] / file).write_bytes((keys.server / file).read_bytes())
    (folders['BAD'] / 'server-cert.pem').write_text('junk', encoding='ascii')
    (folders['MIXED'] / 'server-key.pem').write_bytes((keys.client / 'client-key.pem').read_bytes())
    (folders['FOREIGN'] / 'ca-cert.pem').write_bytes((keys.mistrust / 'ca-cert.pem').read_bytes())
    folders['EXPIRED'] = keys.ca.issue(top / 'expired', 'server', 'cn = localhost',
                                       'activation_date = "2020-01-01 00:00:00"\nexpiration_date = "2020-02-01 00:00:00"\n')
    folders['FUTURE'] = keys.ca.issue(top / 'future', 'server', 'cn = localhost',
                                      'activation_date = "2090-01-01 00:00:00"\nexpiration_date = "2091-02-01 00:00:00"\n')
    folders['ISCA'] = keys.ca.issue(top / 'isca', 'server', 'cn = localhost\nca\ncert_signing_key')
    return folders


@pytest.mark.parametrize('row', REFUSED)
def test_refused_as_by_the_reference(tmp_path, program, disk, faulty, row):
    kind, options = row.split()
    for word, folder in faulty.items():
        options = options.replace(f'={word}', f'={folder}')
    words = ['--object', f'tls-creds-{kind},id=t,{options}', '-k', tmp_path / 's', '--tls-creds', 't', '-f', 'raw', disk]
    ours, theirs = run([program, *words]), run(['qemu-nbd', *words])
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr) and ours.returncode == 1


@pytest.mark.parametrize('words', [
    ['--tls-creds', 't', 'DISK'], ['--object', 'secret,id=t,data=x', '--tls-authz', 't', 'DISK'],
    ['--tls-hostname', 't', 'DISK'], ['--tls-hostname', 't', '-L'],
    ['--tls-hostname', 't', '--tls-authz', 'u', 'DISK'], ['--tls-hostname', 't', '--tls-authz', 'u', '-L'],
    ['--object', 'tls-creds-anon,id=t,endpoint=server', '--tls-creds', 't', '--tls-hostname', 'x', 'DISK'],
    ['--object', 'tls-creds-anon,id=t,endpoint=server', '--tls-creds', 't', '-L'],
    ['--object', 'tls-creds-anon,id=t', '--tls-creds', 't', '--tls-authz', 'x', '-L'],
    ['--object', 'tls-creds-anon,id=t', '--tls-creds', 't', '-c', '/dev/nbd0', 'DISK'],
])
def test_command_lines_refused_as_by_the_reference(tmp_path, program, disk, words):
    line = ['-k', tmp_path / 's', '-f', 'raw', *[str(disk) if w == 'DISK' else w for w in words]]
    if '-L' in words:
        line = ['-k', tmp_path / 's', *words]
    ours, theirs = run([program, *line]), run(['qemu-nbd', *line])
    assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr) and ours.returncode == 1


def test_what_libnbd_cannot_do_is_refused(served, keys):
    assert run([PLATTER, 'info', *image(served, x509('c', keys.client))]).returncode == 0  # it serves, and can be ended
    for creds, text in ((x509('c', keys.client, more=',priority=NORMAL'), "'priority' cannot be honoured"),
                        (['--object', 'tls-creds-anon,id=c'], 'not anonymously')):
        done = run([PLATTER, 'info', *image(served, creds)])
        assert done.returncode == 1 and text in done.stderr, done.stderr


def test_an_encrypted_key(tmp_path, program, keys, disk):
    folder = tmp_path / 'encrypted'
    shutil.copytree(keys.server, folder)
    certtool('--to-p8', '--password', 'geheim', '--load-privkey', keys.server / 'server-key.pem', '--outfile',
             folder / 'server-key.pem')
    secret = ['--object', 'secret,id=p,data=geheim', '--object', 'secret,id=q,data=other']
    with serve(program, disk, [*secret, *x509('t', folder, 'server', ',passwordid=p')]) as served:
        assert run([PLATTER, 'info', *image(served, x509('c', keys.client))]).returncode == 0
        done = run([PLATTER, 'info', *secret, *image(served, x509('c', keys.client, more=',passwordid=p'))])
        assert done.returncode == 1 and 'libnbd reads no encrypted key' in done.stderr, done.stderr
    for more in ('', ',passwordid=q', ',passwordid=none', ',passwordid=d'):
        words = ['-k', tmp_path / 's', '-f', 'raw', *secret, *psk('d', keys.psk, 'server'),
                 *x509('t', folder, 'server', more), '--tls-creds', 't', disk]
        ours, theirs = run([program, *words]), run(['qemu-nbd', *words])
        assert (ours.returncode, ours.stderr) == (theirs.returncode, theirs.stderr) and ours.returncode == 1


def test_a_revoked_certificate(tmp_path, program, keys, disk):
    folder, template = tmp_path / 'revoking', tmp_path / 'crl.template'
    shutil.copytree(keys.server, folder)
    template.write_text('crl_next_update = 30\ncrl_number = 1\n', encoding='ascii')
    certtool('--generate-crl', '--load-ca-privkey', keys.ca.key, '--load-ca-certificate', keys.ca.cert,
             '--load-certificate', keys.client / 'client-cert.pem', '--template', template,
             '--outfile', folder / 'ca-crl.pem')
    other = keys.ca.issue(tmp_path / 'other', 'client', 'cn = bob\ntls_www_client')
    with serve(program, disk, x509('t', folder, 'server')) as served:
        assert run([PLATTER, 'info', *image(served, x509('c', other))]).returncode == 0
        assert run([PLATTER, 'info', *image(served, x509('c', keys.client))]).returncode == 1


def test_an_authorization_without_identities_is_refused(tmp_path, program, disk):
    done = run([program, '-k', tmp_path / 's', '-f', 'raw', '--object', 'tls-creds-anon,id=t,endpoint=server',
                '--object', 'authz-simple,id=a,identity=x', '--tls-creds', 't', '--tls-authz', 'a', disk])
    assert done.returncode == 1 and "'t' give a client no identity" in done.stderr, done.stderr
