# SPDX-License-Identifier: MIT
"""Certificates and keys of the tests, made by certtool of GnuTLS."""
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import contextmanager

import pytest

from nbd_client import OPT_STARTTLS, Client

KEY = '00112233445566778899aabbccddeeff'


def certtool(*words):
    if not shutil.which('certtool'):
        pytest.skip('certtool is not installed')
    subprocess.run(['certtool', *map(str, words)], check=True, capture_output=True, timeout=60)


class Authority:
    """A CA in a folder of its own."""

    def __init__(self, folder, name='Test CA'):
        self.folder = folder
        folder.mkdir(parents=True)
        self.key, self.cert = folder / 'ca-key.pem', folder / 'ca-cert.pem'
        template = folder / 'ca.template'
        template.write_text(f'cn = {name}\nca\ncert_signing_key\nexpiration_days = 30\n', encoding='ascii')
        certtool('--generate-privkey', '--key-type', 'ecdsa', '--outfile', self.key)
        certtool('--generate-self-signed', '--load-privkey', self.key, '--template', template,
                 '--outfile', self.cert)

    def issue(self, folder, side, text, dates='expiration_days = 30\n'):
        """A folder with a certificate for side and its key, and the CA's certificate."""
        folder.mkdir(parents=True, exist_ok=True)
        template, key = folder / 'template', folder / f'{side}-key.pem'
        template.write_text(f'{text}\nsigning_key\n{dates}', encoding='ascii')
        certtool('--generate-privkey', '--key-type', 'ecdsa', '--outfile', key)
        certtool('--generate-certificate', '--load-ca-certificate', self.cert, '--load-ca-privkey', self.key,
                 '--load-privkey', key, '--template', template, '--outfile', folder / f'{side}-cert.pem')
        shutil.copy(self.cert, folder)
        return folder


class Keys:
    """What the tests use: folders for a server, clients, strangers."""

    def __init__(self, folder):
        self.ca = Authority(folder / 'ca')
        self.server = self.ca.issue(folder / 'server', 'server',
                                    'cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server')
        self.client = self.ca.issue(folder / 'client', 'client',
                                    'cn = alice\norganization = Acme\ncountry = GB\ntls_www_client')
        self.alice = 'C=GB,O=Acme,CN=alice'
        other = Authority(folder / 'other', 'Other CA')
        self.stranger = other.issue(folder / 'stranger', 'client', 'cn = alice\ntls_www_client')
        shutil.copy(self.ca.cert, self.stranger)  # knows the server, is not known by it
        self.mistrust = other.issue(folder / 'mistrust', 'client', 'cn = alice\ntls_www_client')  # neither
        self.nobody = folder / 'nobody'
        self.nobody.mkdir()
        shutil.copy(self.ca.cert, self.nobody)
        self.psk = folder / 'psk'
        self.psk.mkdir()
        (self.psk / 'keys.psk').write_text(f'alice:{KEY}\nbob:{KEY[::-1]}\n', encoding='ascii')
        self.wrong_psk = folder / 'wrong-psk'
        self.wrong_psk.mkdir()
        (self.wrong_psk / 'keys.psk').write_text(f'alice:{KEY[::-1]}\ncarol:{KEY}\n', encoding='ascii')


def x509(name, folder, endpoint='client', more=''):
    if folder.name == 'stranger':  # which the other side is to find out
        more += ',sanity-check=off'
    return ['--object', f'tls-creds-x509,id={name},dir={folder},endpoint={endpoint}{more}']


def psk(name, folder, endpoint='client', more=''):
    return ['--object', f'tls-creds-psk,id={name},dir={folder},endpoint={endpoint}{more}']


class Listening:
    def __init__(self, port):
        self.port = port
        self.address = ('127.0.0.1', port)

    def uri(self, folder):
        """For libnbd's own tools, with the certificates of folder."""
        return f'nbds://127.0.0.1:{self.port}/?tls-certificates={folder}'


# Becomes the server, with the socket where sd_listen_fds(3) says.
ACTIVATE = 'import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ["LISTEN_PID"] = str(os.getpid()); ' \
           'os.execvp(sys.argv[2], sys.argv[2:])'


@contextmanager
def listening(*command):
    """qemu-nbd, or platter nbd, with a TCP socket that listens already: there is no port to guess."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        with subprocess.Popen(['/usr/bin/python3', '-c', ACTIVATE, str(listener.fileno()), *map(str, command)],
                              pass_fds=[listener.fileno()], env=dict(os.environ, LISTEN_FDS='1'),
                              stdin=subprocess.DEVNULL) as server:
            try:
                yield Listening(listener.getsockname()[1])
                assert server.poll() is None, 'the server has ended'
            finally:
                server.terminate()
        assert server.returncode == 0, 'the server did not end well'


def raw_connection(address):
    return socket.create_connection(address, timeout=60)


def client_context(keys, folder=None, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(keys.ca.cert)
    folder = folder or keys.client
    context.load_cert_chain(folder / 'client-cert.pem', folder / 'client-key.pem')
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def starttls(address, keys, folder=None, version=None):
    """A client of the protocol's bytes that has begun TLS."""
    plain = Client(raw_connection(address)).greet()
    assert plain.opt(OPT_STARTTLS) == []
    secure = client_context(keys, folder, version).wrap_socket(plain.s, server_hostname='localhost')
    client = Client(secure)
    client.handshake_flags = 3
    return client
