# SPDX-License-Identifier: MIT
"""An NBD client of the tests, written from the protocol document alone.

It says exactly what it is told to, right or wrong, in simple, structured or extended headers, and
checks the layout of everything the server answers.
"""
import socket
import struct

INIT_MAGIC = b"NBDMAGIC"
OPT_MAGIC = b"IHAVEOPT"
REP_MAGIC = 0x3E889045565A9

C_FIXED_NEWSTYLE, C_NO_ZEROES = 1, 2

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_INFO, OPT_GO = 1, 2, 3, 5, 6, 7
OPT_STRUCTURED_REPLY, OPT_LIST_META, OPT_SET_META, OPT_EXTENDED_HEADERS = 8, 9, 10, 11

REP_ACK, REP_SERVER, REP_INFO, REP_META = 1, 2, 3, 4
ERR = 1 << 31
ERR_UNSUP, ERR_POLICY, ERR_INVALID, ERR_UNKNOWN = ERR + 1, ERR + 2, ERR + 3, ERR + 6
ERR_TLS_REQD, ERR_SHUTDOWN, ERR_TOO_BIG, ERR_EXT_HEADER_REQD = ERR + 5, ERR + 7, ERR + 9, ERR + 10

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE = 0, 1, 2, 3, 4, 5
CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = 6, 7

FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN = 1, 2, 4, 8, 16, 32

EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN = 1, 5, 12, 22, 28, 75, 95, 108

T_HAS_FLAGS, T_READ_ONLY, T_FLUSH, T_FUA, T_TRIM, T_ZEROES, T_DF = 1, 2, 4, 8, 32, 64, 128
T_MULTI_CONN, T_CACHE, T_FAST_ZERO, T_STATUS_PAYLOAD = 256, 1024, 2048, 4096

SIMPLE, STRUCTURED, EXTENDED = "simple", "structured", "extended"

RT_NONE, RT_DATA, RT_HOLE, RT_STATUS, RT_STATUS_EXT = 0, 1, 2, 5, 6
RT_ERROR, RT_ERROR_OFFSET = 0x8001, 0x8002


class Disconnected(Exception):
    """The server ended the connection."""


class Refused(Exception):
    """An option was answered with an error."""

    def __init__(self, code, message):
        super().__init__(f"{code:#x} {message!r}")
        self.code = code
        self.message = message


class Result:
    """The whole reply to one request."""

    def __init__(self):
        self.error = 0
        self.message = b""
        self.data = []  # (offset, bytes)
        self.holes = []  # (offset, length)
        self.extents = {}  # context id -> [(length, flags)]
        self.chunks = 0

    def read(self, offset, length):
        """The bytes that the chunks describe; they must cover the range exactly once."""
        buf = bytearray(length)
        seen = bytearray(length)
        for off, data in self.data + [(o, bytes(n)) for o, n in self.holes]:
            at = off - offset
            assert 0 <= at and at + len(data) <= length and len(data) > 0
            assert not seen.count(1, at, at + len(data)), "chunks overlap"
            buf[at:at + len(data)] = data
            seen[at:at + len(data)] = b"\1" * len(data)
        assert not seen.count(0), "chunks do not cover the request"
        return bytes(buf)


class Client:
    def __init__(self, address, timeout=60):
        if isinstance(address, socket.socket):
            self.s = address
        elif isinstance(address, tuple):
            self.s = socket.create_connection(address)
        else:
            self.s = socket.socket(socket.AF_UNIX)
            self.s.connect(address)  # blocking: waits while the server's queue is full
        self.s.settimeout(timeout)
        self.mode = SIMPLE
        self.cookie = 1000
        self.pending = {}
        self.size = self.flags = None
        self.contexts = {}

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # ---- bytes ----

    def send(self, data):
        try:
            self.s.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Disconnected from e

    def recv(self, n):
        parts = []
        while n > 0:
            try:
                part = self.s.recv(min(n, 1 << 20))
            except ConnectionResetError as e:
                raise Disconnected from e
            if not part:
                raise Disconnected
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def expect_eof(self):
        try:
            rest = self.s.recv(1)
        except ConnectionResetError:
            return
        assert rest == b"", f"the server sent {rest!r} instead of ending"

    # ---- handshake ----

    def greet(self, flags=C_FIXED_NEWSTYLE | C_NO_ZEROES):
        assert self.recv(8) == INIT_MAGIC
        assert self.recv(8) == OPT_MAGIC
        self.handshake_flags, = struct.unpack(">H", self.recv(2))
        assert self.handshake_flags == 3
        self.send(struct.pack(">I", flags))
        return self

    def opt_send(self, option, data=b"", length=None, magic=OPT_MAGIC):
        self.send(magic + struct.pack(">II", option, len(data) if length is None else length)
                  + data)

    def opt_recv(self, option):
        magic, opt, kind, length = struct.unpack(">QIII", self.recv(20))
        assert magic == REP_MAGIC
        assert opt == option
        assert length < 1 << 20
        return kind, self.recv(length)

    def opt(self, option, data=b""):
        """Replies before the ACK; raises Refused."""
        self.opt_send(option, data)
        return self.opt_replies(option)

    def opt_replies(self, option):
        replies = []
        while True:
            kind, data = self.opt_recv(option)
            if kind == REP_ACK:
                assert data == b""
                return replies
            if kind & ERR:
                data.decode()
                raise Refused(kind, data)
            replies.append((kind, data))

    def structured(self):
        assert self.opt(OPT_STRUCTURED_REPLY) == []
        self.mode = STRUCTURED
        return self

    def extended(self):
        assert self.opt(OPT_EXTENDED_HEADERS) == []
        self.mode = EXTENDED
        return self

    def negotiate(self, mode):
        return {SIMPLE: lambda: self, STRUCTURED: self.structured, EXTENDED: self.extended}[mode]()

    def list(self):
        names = []
        for kind, data in self.opt(OPT_LIST):
            assert kind == REP_SERVER
            n, = struct.unpack_from(">I", data)
            names.append((data[4:4 + n].decode(), data[4 + n:].decode()))
        return names

    @staticmethod
    def meta_data(name, queries):
        def string(s):
            s = s.encode() if isinstance(s, str) else s
            return struct.pack(">I", len(s)) + s
        return string(name) + struct.pack(">I", len(queries)) + b"".join(map(string, queries))

    def meta(self, option, name, queries):
        found = {}
        for kind, data in self.opt(option, self.meta_data(name, queries)):
            assert kind == REP_META
            ident, = struct.unpack_from(">I", data)
            assert data[4:].decode() not in found
            found[data[4:].decode()] = ident
        if option == OPT_SET_META:
            assert len(set(found.values())) == len(found)
            self.contexts = found
        return found

    @staticmethod
    def go_data(name, infos=()):
        name = name.encode() if isinstance(name, str) else name
        return (struct.pack(">I", len(name)) + name + struct.pack(">H", len(infos))
                + b"".join(struct.pack(">H", i) for i in infos))

    def go(self, name="", infos=(), option=OPT_GO):
        ret = {}
        for kind, data in self.opt(option, self.go_data(name, infos)):
            assert kind == REP_INFO
            info, = struct.unpack_from(">H", data)
            assert info not in ret
            if info == INFO_EXPORT:
                assert len(data) == 12
                self.size, self.flags = struct.unpack_from(">QH", data, 2)
                ret[info] = (self.size, self.flags)
            elif info == INFO_BLOCK_SIZE:
                assert len(data) == 14
                ret[info] = struct.unpack_from(">III", data, 2)
            else:
                ret[info] = data[2:].decode()
        assert INFO_EXPORT in ret
        return ret

    def export_name(self, name="", no_zeroes=True):
        self.opt_send(OPT_EXPORT_NAME, name.encode())
        self.size, self.flags = struct.unpack(">QH", self.recv(10))
        if not no_zeroes:
            assert self.recv(124) == bytes(124)
        return self.size, self.flags

    # ---- transmission ----

    def header(self, cmd, offset=0, length=0, flags=0, cookie=0, magic=None):
        if self.mode == EXTENDED:
            return struct.pack(">IHHQQQ", magic or 0x21E41C71, flags, cmd, cookie, offset, length)
        return struct.pack(">IHHQQI", magic or 0x25609513, flags, cmd, cookie, offset, length)

    def submit(self, cmd, offset=0, length=0, flags=0, payload=b"", cookie=None):
        if cookie is None:
            self.cookie += 1
            cookie = self.cookie
        if cmd == CMD_WRITE and self.mode == EXTENDED:
            flags |= PAYLOAD_LEN
        if payload and not length:
            length = len(payload)
        self.pending.setdefault(cookie, []).append((cmd, offset, length))
        self.send(self.header(cmd, offset, length, flags, cookie) + payload)
        return cookie

    def reply_part(self, results):
        """One message from the server. Returns the cookie when its reply is complete."""
        magic, = struct.unpack(">I", self.recv(4))
        if magic == 0x67446698:
            assert self.mode != EXTENDED
            error, cookie = struct.unpack(">IQ", self.recv(12))
            cmd, offset, length = self.pending[cookie][0]
            res = results.setdefault(cookie, Result())
            assert res.chunks == 0
            assert not (cmd == CMD_READ and self.mode == STRUCTURED)
            res.error = error
            if cmd == CMD_READ and not error and length:
                res.data.append((offset, self.recv(length)))
            return self.finish(cookie)
        if magic == 0x6E8A278C:
            assert self.mode == EXTENDED
            flags, kind, cookie, req_offset, length = struct.unpack(">HHQQQ", self.recv(28))
            assert req_offset == self.pending[cookie][0][1]
        else:
            assert magic == 0x668E33EF and self.mode == STRUCTURED
            flags, kind, cookie, length = struct.unpack(">HHQI", self.recv(16))
        assert length <= (1 << 25) + 8 and flags & ~1 == 0
        self.chunk(results.setdefault(cookie, Result()), kind, cookie, self.recv(length), flags)
        return self.finish(cookie) if flags & 1 else None

    def finish(self, cookie):
        self.pending[cookie].pop(0)
        if not self.pending[cookie]:
            del self.pending[cookie]
        return cookie

    def chunk(self, res, kind, cookie, data, flags):
        cmd, _, _ = self.pending[cookie][0]
        res.chunks += 1
        if kind == RT_NONE:
            assert data == b"" and flags & 1
        elif kind == RT_DATA:
            assert cmd == CMD_READ and len(data) >= 9
            res.data.append((struct.unpack_from(">Q", data)[0], data[8:]))
        elif kind == RT_HOLE:
            assert cmd == CMD_READ and len(data) == 12
            res.holes.append(struct.unpack(">QI", data))
        elif kind == RT_STATUS:
            assert cmd == CMD_BLOCK_STATUS and len(data) > 4 and (len(data) - 4) % 8 == 0
            ident, = struct.unpack_from(">I", data)
            assert ident not in res.extents
            res.extents[ident] = list(struct.iter_unpack(">II", data[4:]))
        elif kind == RT_STATUS_EXT:
            assert cmd == CMD_BLOCK_STATUS and self.mode == EXTENDED
            ident, count = struct.unpack_from(">II", data)
            assert len(data) == 8 + 16 * count and count > 0 and ident not in res.extents
            res.extents[ident] = list(struct.iter_unpack(">QQ", data[8:]))
        elif kind in (RT_ERROR, RT_ERROR_OFFSET):
            res.error, n = struct.unpack_from(">IH", data)
            assert res.error and n <= 4096 and n <= len(data) - 6
            res.message = data[6:6 + n]
            res.message.decode()
        else:
            raise AssertionError(f"chunk type {kind}")

    def wait(self, cookie):
        """The reply to cookie; replies to others that come first are kept."""
        if not hasattr(self, "done"):
            self.done, self.partial = {}, {}
        while cookie not in self.done:
            c = self.reply_part(self.partial)
            if c is not None:
                self.done[c] = self.partial.pop(c)
        return self.done.pop(cookie)

    def request(self, *args, **kwargs):
        return self.wait(self.submit(*args, **kwargs))

    def pread(self, offset, length, flags=0):
        res = self.request(CMD_READ, offset, length, flags)
        assert res.error == 0, res.message
        return res.read(offset, length)

    def pwrite(self, offset, data, flags=0):
        res = self.request(CMD_WRITE, offset, len(data), flags, data)
        assert res.error == 0, res.message

    def disconnect(self):
        self.send(self.header(CMD_DISC))
        self.expect_eof()
        self.close()


def connect(address, mode=STRUCTURED, export="", contexts=(), timeout=60):
    c = Client(address, timeout).greet().negotiate(mode)
    if contexts:
        c.meta(OPT_SET_META, export, list(contexts))
    c.go(export)
    return c
