# SPDX-License-Identifier: MIT
"""Hostile NBD clients (gate G8): each gets the specified error or is dropped; an honest one beside
them is served; memory stays bounded; the server ends well."""
import os
import random
import resource
import socket
import struct
import threading
import time

import pytest
from nbd_client import *  # noqa: F401,F403
from nbd_client import Client, Disconnected, Refused, connect
from nbd_common import SERVE, make_disk, serve, until

pytestmark = pytest.mark.skipif(not SERVE, reason="PLATTER_NBD_SERVE is not set")

SIZE = 4 << 20
MIB = 1024


@pytest.fixture(name="srv")
def srv_fixture(tmp_path):
    with serve(tmp_path, make_disk(tmp_path, SIZE), args=["-H", "600", "-S", "1000"]) as s:
        yield s
        with connect(s.address) as c:  # still well
            c.pwrite(0, b"honest")
            assert c.pread(0, 6) == b"honest"
            c.disconnect()


def raw(address):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(address)
    return s


def drain(s):
    """Read until the server ends the connection."""
    try:
        while s.recv(65536):
            pass
    except ConnectionResetError:
        pass


# ---- N01 ----

def test_2000_sockets_opened_and_left(srv):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    first = srv.fds()
    before = srv.rss_kib()
    honest = connect(srv.address)
    socks, most = [], 0
    try:
        for i in range(2000):
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            for _ in range(500):
                try:
                    s.connect(srv.address)
                    break
                except BlockingIOError:  # its queue is full: it takes them one after the other
                    time.sleep(0.002)
            socks.append(s)
            if i % 100 == 0:
                assert honest.pread(0, 4096) == bytes(4096)
                most = max(most, srv.fds() - first)
        with connect(srv.address) as late:  # comes after all of them
            assert late.pread(0, 4096) == bytes(4096)
        most = max(most, srv.fds() - first)
        assert most <= 1 + 1 + 2 * 64 + 8
        assert srv.rss_kib() - before < 64 * MIB
        until(lambda: srv.fds() - first <= 2)  # dropped when the time of a handshake is over
        assert honest.pread(0, 4096) == bytes(4096)
        honest.disconnect()
    finally:
        for s in socks:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- N02 ----

def test_one_byte_at_a_time_is_cut_off(srv):
    s = raw(srv.address)
    data = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", OPT_GO, 6) + bytes(6)
    honest = connect(srv.address)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # before the option is whole
        for b in data:
            s.send(bytes([b]))
            assert honest.pread(0, 512) == bytes(512)
            time.sleep(0.05)
    honest.close()


def test_one_byte_at_a_time_within_time(srv):
    with Client(srv.address) as c:
        for b in struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", OPT_GO, 6) + bytes(6):
            c.send(bytes([b]))
        assert c.recv(18)
        assert c.opt_replies(OPT_GO)
        for b in c.header(CMD_WRITE, 0, 3, 0, 9) + b"abc":
            c.send(bytes([b]))
        c.pending = {9: [(CMD_WRITE, 0, 3)]}
        assert c.wait(9).error == 0
        for b in c.header(CMD_READ, 0, 3, 0, 10):
            c.send(bytes([b]))
        c.pending = {10: [(CMD_READ, 0, 3)]}
        assert c.wait(10).read(0, 3) == b"abc"
        assert c.request(CMD_WRITE_ZEROES, 0, 3).error == 0


def test_silence_in_the_handshake(srv):
    socks = []
    for data in (b"", b"\0\0", struct.pack(">I", 3), struct.pack(">I", 3) + b"IHAVE",
                 struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", OPT_GO, 6)):
        s = raw(srv.address)
        s.send(data)
        socks.append(s)
    for s in socks:
        drain(s)
        s.close()


@pytest.mark.parametrize("cut", [1, 27, 28, 29, 1000, 60000, 300000])
def test_half_a_request_and_silence(srv, cut):
    c = connect(srv.address)
    message = c.header(CMD_WRITE, 8192, 500000, 0, 1) + b"h" * 500000
    c.send(message[:cut])
    with connect(srv.address) as honest:
        assert honest.pread(8192, 4096) == bytes(4096)
        c.close()
        assert honest.pread(8192, 4096) == bytes(4096)  # nothing of it was written


def test_never_reading_replies(srv):
    """Many clients ask and never read: each stops itself, memory stays bounded."""
    before = srv.rss_kib()
    clients = []
    for _ in range(20):
        c = connect(srv.address)
        c.s.setblocking(False)
        message = b"".join(c.header(CMD_READ, 0, 1 << 20, 0, i) for i in range(64))
        try:
            for _ in range(200):
                c.s.send(message)
        except BlockingIOError:
            pass
        clients.append(c)
    with connect(srv.address) as honest:
        for _ in range(50):
            assert honest.pread(0, 65536) == bytes(65536)
    assert srv.rss_kib() - before < 300 * MIB
    for c in clients:
        c.close()


def test_never_reading_structured_data(tmp_path):
    """The same with data instead of holes, and with writes behind the reads."""
    disk = make_disk(tmp_path, 32 << 20, data=os.urandom(32 << 20))
    with serve(tmp_path, disk, args=["-S", "500"], check=False) as s:
        before = s.rss_kib()
        clients = []
        for _ in range(4):
            c = connect(s.address)
            c.s.setblocking(False)
            message = b"".join(c.header(CMD_READ, i << 20, 1 << 20, 0, i) for i in range(32))
            message += c.header(CMD_WRITE, 0, 4096, 0, 99) + bytes(4096)
            try:
                for _ in range(100):
                    c.s.send(message)
            except BlockingIOError:
                pass
            clients.append(c)
        with connect(s.address) as honest:
            for i in range(20):
                assert len(honest.pread(i << 20, 1 << 20)) == 1 << 20
        assert s.rss_kib() - before < (4 * 64 + 40) * MIB
        # the server ends although they still do not read
        assert s.stop() == 0
        for c in clients:
            c.close()


# ---- N03 ----

@pytest.mark.parametrize("magic", [b"\0" * 8, b"IHAVEOPX", b"NBDMAGIC"])
def test_wrong_option_magic(srv, magic):
    with Client(srv.address).greet() as c:
        c.opt_send(OPT_LIST, magic=magic)
        c.expect_eof()


@pytest.mark.parametrize("mode", [SIMPLE, STRUCTURED, EXTENDED])
def test_wrong_request_magic(srv, mode):
    for magic in (0, 0x25609514, 0x12560953, 0x67446698, 0xFFFFFFFF):
        with connect(srv.address, mode) as c:
            c.send(c.header(CMD_READ, 0, 512, 0, 1, magic=magic or 1))
            c.expect_eof()


def test_compact_request_with_extended_headers(srv):
    with connect(srv.address, EXTENDED) as c:
        c.send(struct.pack(">IHHQQIII", 0x25609513, 0, 0, 1, 0, 512, 0, 0))
        c.expect_eof()


@pytest.mark.parametrize("option", [OPT_LIST, OPT_GO, OPT_SET_META, 99, OPT_EXPORT_NAME])
def test_option_length_of_4_gib(srv, option):
    before = srv.rss_kib()
    with Client(srv.address).greet() as c:
        c.opt_send(option, b"", length=0xFFFFFFFF)
        if option != OPT_EXPORT_NAME:
            assert c.opt_recv(option)[0] == ERR_TOO_BIG
        c.expect_eof()
    assert srv.rss_kib() - before < 16 * MIB


def test_option_length_that_is_skipped(srv):
    with Client(srv.address).greet() as c:
        with pytest.raises(Refused) as e:
            c.opt(99, b"x" * (1 << 20))
        assert e.value.code == ERR_TOO_BIG
        c.go()


def test_33_options(srv):
    with Client(srv.address).greet() as c:
        for _ in range(32):
            c.list()
        with pytest.raises(Refused) as e:
            c.list()
        assert e.value.code == ERR_POLICY
        c.expect_eof()


def test_pipelined_options(srv):
    with Client(srv.address).greet() as c:
        for _ in range(10):
            c.opt_send(OPT_LIST)
        c.opt_send(OPT_GO, Client.go_data(""))
        c.send(c.header(CMD_READ, 0, 512, 0, 7))
        for _ in range(10):
            assert len(c.opt_replies(OPT_LIST)) == 1
        c.opt_replies(OPT_GO)
        c.pending[7] = [(CMD_READ, 0, 512)]
        assert c.wait(7).read(0, 512) == bytes(512)


def test_many_meta_queries(srv):
    with Client(srv.address).greet().structured() as c:
        assert set(c.meta(OPT_SET_META, "", ["base:allocation"] * 3000)) == {"base:allocation"}
        with pytest.raises(Refused) as e:
            c.meta(OPT_SET_META, "", ["base:allocation"] * 30000)
        assert e.value.code == ERR_TOO_BIG
        c.go()


def test_random_bytes(srv):
    seed = int(os.environ.get("PLATTER_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(150):
        s = raw(srv.address)
        data = rng.randbytes(rng.randrange(1, 400))
        stage = rng.randrange(4)
        if stage > 0:
            data = struct.pack(">I", 3) + data
        if stage == 2:
            data = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(
                ">II", rng.randrange(12), rng.choice([0, 1, 5, 30, 300])) + data
        if stage == 3:
            data = (struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", OPT_GO, 6) + bytes(6)
                    + struct.pack(">IHHQQI", 0x25609513, rng.randrange(64), rng.randrange(10), 1,
                                  rng.randrange(1 << 23), rng.randrange(1 << 16)) + data)
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            drain(s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        s.close()


def test_mutated_sessions(srv):
    """A good session with one byte changed never hurts anybody."""
    seed = int(os.environ.get("PLATTER_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    rng = random.Random(seed)
    good = (struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 8, 0)
            + b"IHAVEOPT" + struct.pack(">II", 10, 31) + Client.meta_data("", ["base:allocation"])
            + b"IHAVEOPT" + struct.pack(">II", OPT_GO, 8) + Client.go_data("", [3]))
    for i, cmd in enumerate((CMD_READ, CMD_BLOCK_STATUS, CMD_WRITE_ZEROES, CMD_TRIM, CMD_FLUSH)):
        good += struct.pack(">IHHQQI", 0x25609513, 0, cmd, i, 0, 0 if cmd == CMD_FLUSH else 4096)
    good += struct.pack(">IHHQQI", 0x25609513, 0, CMD_WRITE, 9, 0, 64) + bytes(64)
    good += struct.pack(">IHHQQI", 0x25609513, 0, CMD_DISC, 10, 0, 0)
    for _ in range(200):
        data = bytearray(good)
        data[rng.randrange(len(data))] = rng.randrange(256)
        s = raw(srv.address)
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            drain(s)
        except (BrokenPipeError, ConnectionResetError):
            pass
        s.close()


# ---- N05, N07 ----

def test_same_cookie_twice(srv):
    with connect(srv.address) as c:
        for _ in range(50):
            c.submit(CMD_READ, 0, 512, cookie=5)
        for _ in range(50):
            assert c.wait(5).error == 0


def test_100000_pipelined(srv):
    with connect(srv.address) as c:
        n, got = 100000, []
        message = b"".join(c.header(CMD_READ, 0, 512, 0, i) for i in range(1000))

        def send():
            for _ in range(n // 1000):
                c.send(message)
        thread = threading.Thread(target=send)
        thread.start()
        size = 20 + 8 + 512
        for _ in range(n // 1000):
            got.append(c.recv(size * 1000))
        thread.join()
        data = b"".join(got)
        seen = [0] * 1000
        for at in range(0, len(data), size):
            magic, flags, kind, cookie, length = struct.unpack_from(">IHHQI", data, at)
            assert (magic, flags, kind, length) == (0x668E33EF, 1, RT_DATA, 520)
            seen[cookie] += 1
        assert seen == [n // 1000] * 1000


@pytest.mark.parametrize("cmd", [CMD_READ, CMD_WRITE])
def test_disc_with_requests_in_flight(srv, cmd):
    """proto: "The server MUST handle all outstanding requests"."""
    for _ in range(20):
        with connect(srv.address) as c:
            payload = b"z" * 65536 if cmd == CMD_WRITE else b""
            cookies = [c.submit(cmd, i * 65536, 65536, payload=payload) for i in range(32)]
            c.send(c.header(CMD_DISC) + b"trailing rubbish")
            for k in cookies:
                assert c.wait(k).error == 0
            c.expect_eof()


def test_gone_with_requests_in_flight(srv):
    for _ in range(50):
        c = connect(srv.address)
        c.s.setblocking(False)
        sent = 0
        try:
            for i in range(64):
                c.submit(CMD_READ, i * 4096, 65536)
                if i % 4 == 0:
                    c.submit(CMD_WRITE, i * 4096, 4096, payload=bytes(4096))
                sent += 1
        except BlockingIOError:
            pass  # who reads no replies is not read from for ever
        assert sent >= 4
        c.close()


def test_half_closed_client_gets_its_answers(srv):
    with connect(srv.address) as c:
        cookies = [c.submit(CMD_READ, i * 65536, 65536) for i in range(32)]
        c.s.shutdown(socket.SHUT_WR)
        for k in cookies:
            assert c.wait(k).error == 0
        c.expect_eof()


def test_payload_of_refused_writes_is_skipped(srv):
    with connect(srv.address) as c:
        for n in (1, 4096, 65536, 65537, 300000, 1 << 25):
            assert c.request(CMD_WRITE, SIZE, n, payload=bytes(n)).error == ENOSPC
            assert c.pread(0, 512) == bytes(512)


def test_connections_come_and_go(srv):
    first = srv.fds()
    for i in range(300):
        c = connect(srv.address, (SIMPLE, STRUCTURED, EXTENDED)[i % 3])
        assert c.pread(0, 1) == b"\0"
        c.close() if i % 2 else c.disconnect()
    until(lambda: srv.fds() <= first)


def test_more_clients_than_places(tmp_path):
    with serve(tmp_path, make_disk(tmp_path, SIZE), args=["-e", "3", "-H", "500"]) as s:
        cs = [connect(s.address) for _ in range(3)]
        with Client(s.address).greet() as d:
            d.opt_send(OPT_GO, Client.go_data(""))
            d.expect_eof()  # no place within the time of a handshake
        for c in cs:
            assert c.pread(0, 512) == bytes(512)
        cs[0].disconnect()
        cs[0] = connect(s.address)
        for c in cs:
            assert c.pread(0, 512) == bytes(512)
            c.close()


# ---- shutdown ----

def test_shutdown_answers_what_is_in_flight(tmp_path):
    with serve(tmp_path, make_disk(tmp_path, SIZE), check=False) as s:
        c, idle = connect(s.address), connect(s.address)
        shaking = Client(s.address).greet()
        cookies = [c.submit(CMD_WRITE, i * 65536, 65536, payload=b"s" * 65536) for i in range(32)]
        s.proc.terminate()
        answered = refused = 0
        try:
            for k in cookies:
                error = c.wait(k).error
                assert error in (0, ESHUTDOWN)
                answered += error == 0
                refused += error == ESHUTDOWN
        except Disconnected:
            pass
        assert answered + refused > 0
        idle.expect_eof()
        try:
            shaking.opt_send(OPT_LIST)
            shaking.expect_eof()
        except (Disconnected, AssertionError):
            pass
        assert s.proc.wait(60) == 0
        assert not os.path.exists(s.address)
    data = open(os.path.join(tmp_path, "disk.img"), "rb").read()
    assert data.count(b"s" * 65536) >= answered


def test_socket_file(tmp_path):
    path = os.path.join(tmp_path, "nbd.sock")
    disk = make_disk(tmp_path, SIZE)
    # a dead socket is replaced
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.close()
    with serve(tmp_path, disk) as srv:
        assert os.stat(path).st_mode & 0o777 == 0o600
        connect(srv.address).disconnect()
        # a living one is not
        with pytest.raises(RuntimeError, match="another process serves"):
            with serve(tmp_path, disk, args=["-r"]):
                pass
        connect(srv.address).disconnect()
    assert not os.path.exists(path)
    # what is no socket is left alone
    with open(path, "w", encoding="ascii") as f:
        f.write("precious")
    with pytest.raises(RuntimeError, match="not a socket"):
        with serve(tmp_path, disk):
            pass
    assert open(path, encoding="ascii").read() == "precious"
    os.unlink(path)
    os.symlink("/tmp/nowhere", path)
    with pytest.raises(RuntimeError, match="symbolic link"):
        with serve(tmp_path, disk):
            pass
    with pytest.raises(RuntimeError, match="107"):
        with serve(tmp_path, disk, args=["-k", "/" + "x" * 200], sock=False):
            pass
