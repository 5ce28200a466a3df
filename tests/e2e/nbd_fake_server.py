# SPDX-License-Identifier: MIT
"""A small NBD server whose answers a test bends: for clients that must not believe everything."""
import socket
import struct
import threading
from contextlib import contextmanager

OPTION_REPLY = 0x3e889045565a9
ACK, INFO, META_CONTEXT, UNSUPPORTED = 1, 3, 4, 0x80000001
GO, STRUCTURED, SET_META = 7, 8, 10
READ, DISCONNECT, STATUS = 0, 2, 7
FLAGS = 1 | 4 | 8 | 32 | 64  # flush, FUA, trim, zeroes


def receive(conn, length):
    data = b''
    while len(data) < length:
        more = conn.recv(length - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


class FakeServer:
    """What the members say is what the client is told."""
    size = 1 << 20
    flags = FLAGS
    block_sizes = (1, 4096, 1 << 25)
    greeting = b'NBDMAGIC' + b'IHAVEOPT' + struct.pack('>H', 3)

    def chunk(self, cookie, kind, payload, final=1, length=None):
        length = len(payload) if length is None else length
        return struct.pack('>IHHQI', 0x668e33ef, final, kind, cookie, length) + payload

    def read(self, cookie, offset, length):
        return self.chunk(cookie, 1, struct.pack('>Q', offset) + b'\5' * length)

    def status(self, cookie, offset, length):
        return self.chunk(cookie, 5, struct.pack('>III', 1, length, 0))

    def other(self, cookie):
        return self.chunk(cookie, 0, b'')

    def option(self, conn, option, data):
        def reply(kind, payload=b''):
            conn.sendall(struct.pack('>QIII', OPTION_REPLY, option, kind, len(payload)) + payload)

        if option == STRUCTURED:
            reply(ACK)
        elif option == SET_META:
            reply(META_CONTEXT, struct.pack('>I', 1) + b'base:allocation')
            reply(ACK)
        elif option == GO:
            reply(INFO, struct.pack('>HQH', 0, self.size, self.flags))
            reply(INFO, struct.pack('>HIII', 3, *self.block_sizes))
            reply(ACK)
        else:
            reply(UNSUPPORTED)
        return option == GO

    def talk(self, conn):
        conn.sendall(self.greeting)
        receive(conn, 4)
        done = False
        while not done:
            _, option, length = struct.unpack('>QII', receive(conn, 16))
            done = self.option(conn, option, receive(conn, length))
        while True:
            _, _, kind, cookie, offset, length = struct.unpack('>IHHQQI', receive(conn, 28))
            if kind == DISCONNECT:
                return
            if kind == 1:
                receive(conn, length)
            conn.sendall(self.read(cookie, offset, length) if kind == READ else
                         self.status(cookie, offset, length) if kind == STATUS else
                         self.other(cookie))

    def serve(self, listener):
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                try:
                    self.talk(conn)
                except OSError:
                    pass


@contextmanager
def fake_serving(path, server):
    """Serves one client after the other on a unix socket; gives the URI."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield f'nbd+unix:///?socket={path}'
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)
            assert not thread.is_alive()
