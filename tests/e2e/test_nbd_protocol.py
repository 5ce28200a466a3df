# SPDX-License-Identifier: MIT
"""The NBD server against the specification, section by section, in all three kinds of headers."""
import os
import random
import struct

import pytest
from nbd_client import *  # noqa: F401,F403
from nbd_client import Client, Disconnected, Refused, connect
from nbd_common import SERVE, make_disk, serve

pytestmark = pytest.mark.skipif(not SERVE, reason="PLATTER_NBD_SERVE is not set")

SIZE = 4 << 20
MODES = [SIMPLE, STRUCTURED, EXTENDED]
CHUNKED = [STRUCTURED, EXTENDED]


@pytest.fixture(name="srv", scope="module")
def srv_fixture(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("nbd")
    with serve(tmp, make_disk(tmp, SIZE), args=["-D"]) as s:
        yield s


@pytest.fixture(name="ro", scope="module")
def ro_fixture(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("nbdro")
    disk = make_disk(tmp, SIZE, data=b"unchanged")
    before = open(disk, "rb").read()
    with serve(tmp, disk, args=["-r"]) as s:
        yield s
    assert open(disk, "rb").read() == before


def refused(code, call, *args):
    with pytest.raises(Refused) as e:
        call(*args)
    assert e.value.code == code
    return e.value.message


# ---- handshake ----

def test_go_tells_size_flags_and_blocks(srv):
    with Client(srv.address).greet() as c:
        c.structured()
        info = c.go("", [INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE])
        assert info[INFO_EXPORT][0] == SIZE
        assert info[INFO_NAME] == "" and info[INFO_DESCRIPTION] == "a disk for tests"
        assert info[INFO_BLOCK_SIZE] == (1, 4096, 1 << 25)
        want = T_HAS_FLAGS | T_FLUSH | T_FUA | T_TRIM | T_ZEROES | T_DF | T_CACHE | T_FAST_ZERO \
            | T_MULTI_CONN
        assert c.flags == want
        c.disconnect()


def test_flags_without_structured_replies(srv):
    with connect(srv.address, SIMPLE) as c:
        assert not c.flags & T_DF


def test_flags_of_extended_headers(srv):
    with connect(srv.address, EXTENDED) as c:
        assert not c.flags & T_STATUS_PAYLOAD
    with connect(srv.address, EXTENDED, contexts=["base:allocation"]) as c:
        assert c.flags & T_STATUS_PAYLOAD


def test_read_only_flags(ro):
    with connect(ro.address) as c:
        assert c.flags & T_READ_ONLY
        assert not c.flags & (T_TRIM | T_ZEROES | T_FAST_ZERO)


@pytest.mark.parametrize("no_zeroes", [True, False])
def test_export_name(srv, no_zeroes):
    with Client(srv.address).greet(C_FIXED_NEWSTYLE | (C_NO_ZEROES if no_zeroes else 0)) as c:
        assert c.export_name("", no_zeroes)[0] == SIZE
        assert c.pread(0, 512) == bytes(512)
        c.disconnect()


def test_export_name_from_plain_newstyle(srv):
    with Client(srv.address).greet(0) as c:
        assert c.export_name("", False)[0] == SIZE


def test_export_name_unknown_ends(srv):
    with Client(srv.address).greet() as c:
        c.opt_send(OPT_EXPORT_NAME, b"nothing")
        c.expect_eof()


def test_export_name_after_extended_headers_ends(srv):
    with Client(srv.address).greet().extended() as c:
        c.opt_send(OPT_EXPORT_NAME)
        c.expect_eof()


def test_unknown_client_flag_ends(srv):
    with Client(srv.address).greet(1 | 4) as c:
        c.expect_eof()


def test_abort(srv):
    for data in (b"", b"ignored"):
        with Client(srv.address).greet() as c:
            assert c.opt(OPT_ABORT, data) == []
            c.expect_eof()


def test_list(srv):
    with Client(srv.address).greet() as c:
        assert c.list() == [("", "a disk for tests")]
        refused(ERR_INVALID, c.opt, OPT_LIST, b"x")
        assert len(c.list()) == 1


def test_starttls_is_refused(srv):
    with Client(srv.address).greet() as c:
        refused(ERR_POLICY, c.opt, OPT_STARTTLS)
        refused(ERR_INVALID, c.opt, OPT_STARTTLS, b"x")
        c.go()


@pytest.mark.parametrize("option", [4, 12, 77, 0xFFFFFFFF, 0])
def test_unknown_option(srv, option):
    with Client(srv.address).greet() as c:
        refused(ERR_UNSUP, c.opt, option, b"some data")
        assert c.go()[INFO_EXPORT][0] == SIZE


def test_options_without_data(srv):
    with Client(srv.address).greet() as c:
        refused(ERR_INVALID, c.opt, OPT_STRUCTURED_REPLY, b"x")
        refused(ERR_INVALID, c.opt, OPT_EXTENDED_HEADERS, b"x")
        c.go()
        assert c.pread(0, 16) == bytes(16)  # still simple replies


def test_structured_after_extended(srv):
    with Client(srv.address).greet().extended() as c:
        refused(ERR_EXT_HEADER_REQD, c.opt, OPT_STRUCTURED_REPLY)
        c.go()
        assert c.pread(0, 16) == bytes(16)


def test_extended_after_structured(srv):
    with Client(srv.address).greet().structured().extended() as c:
        c.go()
        assert c.pread(0, 16) == bytes(16)


def test_info_then_go(srv):
    with Client(srv.address).greet() as c:
        a = c.go(option=OPT_INFO, infos=[INFO_BLOCK_SIZE])
        assert c.go(infos=[INFO_BLOCK_SIZE]) == a


@pytest.mark.parametrize("option", [OPT_INFO, OPT_GO])
def test_bad_info_requests(srv, option):
    good = Client.go_data("x", [3])
    bad = [good[:n] for n in range(len(good))] + [good + b"\0", struct.pack(">I", 0xFFFFFFFF)]
    for data in bad[:15]:
        with Client(srv.address).greet() as c:
            refused(ERR_INVALID, c.opt, option, data)
            refused(ERR_UNKNOWN, c.go, "nothing")
            c.go()


@pytest.mark.parametrize("name", [b"x" * 4097, b"\xff", b"a\0b", b"\xc0\x80", b"\xed\xa0\x80"])
def test_bad_names(srv, name):
    with Client(srv.address).greet().structured() as c:
        refused(ERR_INVALID, c.go, name)
        refused(ERR_INVALID, c.meta, OPT_SET_META, name, ["base:allocation"])
        c.go()
    with Client(srv.address).greet() as c:
        c.opt_send(OPT_EXPORT_NAME, name)
        c.expect_eof()


def test_longest_name_is_only_unknown(srv):
    with Client(srv.address).greet() as c:
        refused(ERR_UNKNOWN, c.go, "x" * 4096)


# ---- metadata contexts ----

def test_meta_needs_structured_replies(srv):
    with Client(srv.address).greet() as c:
        refused(ERR_INVALID, c.meta, OPT_SET_META, "", ["base:allocation"])
        refused(ERR_INVALID, c.meta, OPT_LIST_META, "", [])


@pytest.mark.parametrize("mode", CHUNKED)
def test_meta_list(srv, mode):
    both = {"base:allocation", "qemu:allocation-depth"}
    with Client(srv.address).greet().negotiate(mode) as c:
        assert set(c.meta(OPT_LIST_META, "", [])) == both
        assert set(c.meta(OPT_LIST_META, "", ["base:"])) == {"base:allocation"}
        assert set(c.meta(OPT_LIST_META, "", ["qemu:"])) == {"qemu:allocation-depth"}
        assert set(c.meta(OPT_LIST_META, "", ["base:", "base:allocation", "qemu:"])) == both
        assert c.meta(OPT_LIST_META, "", ["x-unknown:y", "base:nothing"]) == {}
        refused(ERR_UNKNOWN, c.meta, OPT_LIST_META, "nothing", [])
        refused(ERR_INVALID, c.meta, OPT_LIST_META, "", ["no colon"])


def test_meta_set(srv):
    with Client(srv.address).greet().structured() as c:
        assert c.meta(OPT_SET_META, "", []) == {}
        assert c.meta(OPT_SET_META, "", ["base:"]) == {}
        assert len(c.meta(OPT_SET_META, "", ["base:allocation", "base:allocation"])) == 1
        assert len(c.meta(OPT_SET_META, "", ["base:allocation", "qemu:allocation-depth"])) == 2
        c.go()
        assert len(c.request(CMD_BLOCK_STATUS, 0, SIZE).extents) == 2


def test_meta_set_failure_forgets(srv):
    with Client(srv.address).greet().structured() as c:
        c.meta(OPT_SET_META, "", ["base:allocation"])
        refused(ERR_UNKNOWN, c.meta, OPT_SET_META, "nothing", ["base:allocation"])
        c.go()
        assert c.request(CMD_BLOCK_STATUS, 0, SIZE).error == EINVAL


def test_meta_bad_data(srv):
    good = Client.meta_data("", ["base:allocation"])
    with Client(srv.address).greet().structured() as c:
        for n in (0, 3, 4, 7, 8, 11, 12, len(good) - 1):
            refused(ERR_INVALID, c.opt, OPT_SET_META, good[:n])
        refused(ERR_INVALID, c.opt, OPT_SET_META, good + b"\0")
        refused(ERR_INVALID, c.opt, OPT_SET_META, struct.pack(">II", 0, 0xFFFFFFFF))
        c.go()


def test_depth_only_where_offered(ro):
    with Client(ro.address).greet().structured() as c:
        assert set(c.meta(OPT_LIST_META, "", [])) == {"base:allocation"}
        assert c.meta(OPT_SET_META, "", ["qemu:allocation-depth"]) == {}


# ---- several exports ----

def test_several_exports(tmp_path):
    disks = [make_disk(tmp_path, (i + 1) << 20, f"d{i}") for i in range(3)]
    with serve(tmp_path, *disks) as s:
        with Client(s.address).greet() as c:
            assert sorted(n for n, _ in c.list()) == ["disk0", "disk1", "disk2"]
            refused(ERR_UNKNOWN, c.go, "")
            assert c.go("disk2")[INFO_EXPORT][0] == 3 << 20
        # contexts belong to the export they were chosen for
        with Client(s.address).greet().structured() as c:
            c.meta(OPT_SET_META, "disk0", ["base:allocation"])
            c.go("disk1")
            assert c.request(CMD_BLOCK_STATUS, 0, 512).error == EINVAL
        a, b = connect(s.address, export="disk0"), connect(s.address, export="disk1")
        a.pwrite(0, b"a" * 512)
        assert b.pread(0, 512) == bytes(512)
        assert a.pread(0, 512) == b"a" * 512


# ---- data ----

@pytest.mark.parametrize("mode", MODES)
def test_random_operations(srv, mode):
    seed = int(os.environ.get("PLATTER_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    rng = random.Random(seed)
    with connect(srv.address, mode) as c:
        c.request(CMD_WRITE_ZEROES, 0, SIZE)
        model = bytearray(SIZE)
        for _ in range(300):
            length = rng.choice([1, 2, 511, 512, 4096, 4097, 65535, 65536, 70000, 300000])
            offset = rng.randrange(SIZE - length + 1)
            what = rng.randrange(5)
            if what == 0:
                assert c.pread(offset, length) == model[offset:offset + length]
            elif what in (1, 2):
                data = rng.randbytes(length)
                c.pwrite(offset, data, rng.choice([0, 0, 0, FUA]))
                model[offset:offset + length] = data
            elif what == 3:
                flags = rng.choice([0, NO_HOLE, FUA, NO_HOLE | FUA])
                assert c.request(CMD_WRITE_ZEROES, offset, length, flags).error == 0
                model[offset:offset + length] = bytes(length)
            else:
                assert c.request(CMD_FLUSH).error == 0
        assert c.pread(0, SIZE) == model
        c.disconnect()


@pytest.mark.parametrize("mode", MODES)
def test_zero_lengths(srv, mode):
    with connect(srv.address, mode) as c:
        for cmd in (CMD_READ, CMD_WRITE, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES):
            res = c.request(cmd, 512, 0)
            assert res.error == 0 or mode == EXTENDED
        assert c.request(CMD_READ, SIZE, 0).error == 0


@pytest.mark.parametrize("mode", MODES)
def test_fua_everywhere(srv, mode):
    with connect(srv.address, mode, contexts=() if mode == SIMPLE else ["base:allocation"]) as c:
        assert c.request(CMD_READ, 0, 512, FUA).error == 0
        assert c.request(CMD_WRITE, 0, 512, FUA, bytes(512)).error == 0
        assert c.request(CMD_TRIM, 0, 512, FUA).error == 0
        assert c.request(CMD_CACHE, 0, 512, FUA).error == 0
        assert c.request(CMD_WRITE_ZEROES, 0, 512, FUA).error == 0
        assert c.request(CMD_FLUSH, flags=FUA).error == 0
        if mode != SIMPLE:
            assert c.request(CMD_BLOCK_STATUS, 0, 512, FUA).error == 0


@pytest.mark.parametrize("mode", MODES)
def test_ranges(srv, mode):
    with connect(srv.address, mode, contexts=() if mode == SIMPLE else ["base:allocation"]) as c:
        for off, n in ((SIZE - 1, 2), (SIZE, 1), (1 << 63, 512), ((1 << 64) - 1, 1),
                       ((1 << 64) - 256, 512)):
            assert c.request(CMD_READ, off, n).error == EINVAL
            assert c.request(CMD_WRITE, off, n, payload=bytes(n)).error == ENOSPC
            assert c.request(CMD_TRIM, off, n).error == EINVAL
            assert c.request(CMD_WRITE_ZEROES, off, n).error == ENOSPC
            assert c.request(CMD_CACHE, off, n).error == EINVAL
            if mode != SIMPLE:
                assert c.request(CMD_BLOCK_STATUS, off, n).error == EINVAL
        assert c.pread(SIZE - 1, 1) == bytes(1)


def test_64_bit_lengths(srv):
    big = (1 << 64) - 1
    with connect(srv.address, EXTENDED, contexts=["base:allocation"]) as c:
        assert c.request(CMD_READ, 0, big).error == EINVAL
        assert c.request(CMD_TRIM, 0, big).error == EINVAL
        assert c.request(CMD_WRITE_ZEROES, 512, big).error == ENOSPC
        assert c.request(CMD_BLOCK_STATUS, 0, big).error == EINVAL


def test_64_bit_effects(tmp_path):
    size = 1 << 40
    with serve(tmp_path, make_disk(tmp_path, size)) as s:
        with connect(s.address, EXTENDED, contexts=["base:allocation"]) as c:
            c.pwrite(1 << 30, b"x" * 4096)
            ext = c.request(CMD_BLOCK_STATUS, 0, size).extents[c.contexts["base:allocation"]]
            assert sum(n for n, _ in ext) == size and ext[-1][0] > 1 << 32
            assert c.request(CMD_TRIM, 0, size).error == 0
            assert c.request(CMD_WRITE_ZEROES, 0, size).error == 0
            ext = c.request(CMD_BLOCK_STATUS, 0, size).extents[c.contexts["base:allocation"]]
            assert ext == [(size, 3)]
        with connect(s.address, STRUCTURED, contexts=["base:allocation"]) as c:
            ext = c.request(CMD_BLOCK_STATUS, 0, 0xFFFFFFFF).extents
            assert ext == {c.contexts["base:allocation"]: [(0xFFFFFFFF, 3)]}


@pytest.mark.parametrize("mode", MODES)
def test_read_only(ro, mode):
    with connect(ro.address, mode) as c:
        assert c.request(CMD_WRITE, 0, 512, payload=b"x" * 512).error == EPERM
        assert c.request(CMD_WRITE, 0, 1 << 20, payload=b"x" * (1 << 20)).error == EPERM
        assert c.request(CMD_TRIM, 0, 512).error == EPERM
        assert c.request(CMD_WRITE_ZEROES, 0, 512).error == EPERM
        assert c.request(CMD_FLUSH).error == 0
        assert c.pread(0, 9) == b"unchanged"


@pytest.mark.parametrize("mode", MODES)
def test_unknown_commands_and_flags(srv, mode):
    with connect(srv.address, mode) as c:
        for cmd in (8, 9, 255, 0xFFFF):
            assert c.request(cmd, 0, 512).error == EINVAL
        for bit in range(6, 16):
            assert c.request(CMD_READ, 0, 512, 1 << bit).error == EINVAL
        for cmd, flag in ((CMD_READ, NO_HOLE), (CMD_READ, REQ_ONE), (CMD_READ, FAST_ZERO),
                          (CMD_FLUSH, DF), (CMD_TRIM, NO_HOLE), (CMD_CACHE, DF),
                          (CMD_WRITE_ZEROES, REQ_ONE)):
            assert c.request(cmd, 0, 0 if cmd == CMD_FLUSH else 512, flag).error == EINVAL
        assert c.request(CMD_WRITE, 0, 512, NO_HOLE, b"x" * 512).error == EINVAL
        if mode == SIMPLE:
            assert c.request(CMD_READ, 0, 512, DF).error == EINVAL
        if mode != EXTENDED:
            assert c.request(CMD_TRIM, 0, 512, PAYLOAD_LEN).error == EINVAL
        assert c.request(CMD_FLUSH, 512, 0).error == EINVAL
        assert c.request(CMD_FLUSH, 0, 512).error == EINVAL
        assert c.request(CMD_BLOCK_STATUS, 0, 512).error == EINVAL
        assert len(c.pread(0, 512)) == 512


def test_payload_flag(srv):
    """Extended headers: payload where none is expected is consumed and refused."""
    with connect(srv.address, EXTENDED) as c:
        for cmd in (CMD_READ, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_FLUSH, 99):
            assert c.request(cmd, 0, 512, PAYLOAD_LEN, b"p" * 512).error == EINVAL
        cookie = 5
        c.pending[cookie] = [(CMD_WRITE, 0, 512)]
        c.send(c.header(CMD_WRITE, 0, 512, 0, cookie))
        assert c.wait(cookie).error == EINVAL
        assert len(c.pread(0, 512)) == 512


def test_fast_zero(srv):
    with connect(srv.address) as c:
        c.pwrite(0, b"x" * 65536)
        res = c.request(CMD_WRITE_ZEROES, 0, 65536, FAST_ZERO)
        assert res.error in (0, ENOTSUP)
        assert c.pread(0, 65536) == (bytes(65536) if res.error == 0 else b"x" * 65536)


def test_read_limit(tmp_path):
    with serve(tmp_path, make_disk(tmp_path, 80 << 20)) as s:
        with connect(s.address) as c:
            assert c.request(CMD_READ, 0, (1 << 25) + 1).error == EINVAL
            assert c.request(CMD_CACHE, 0, (1 << 25) + 1).error == EINVAL
            data = os.urandom(1 << 25)
            c.pwrite(12345, data)
            assert c.pread(12345, 1 << 25) == data
            res = c.request(CMD_READ, 12345, 1 << 25, DF)
            assert res.error == 0 and len(res.data) == 1
            assert c.request(CMD_TRIM, 0, 80 << 20).error == 0
        with connect(s.address) as c:  # a payload above the limit ends the session
            c.send(c.header(CMD_WRITE, 0, (1 << 25) + 1))
            c.expect_eof()


# ---- holes ----

@pytest.mark.parametrize("mode", CHUNKED)
def test_holes_on_read(tmp_path, mode):
    size = 8 << 20
    disk = make_disk(tmp_path, size)
    with open(disk, "r+b") as f:
        f.seek(1 << 20)
        f.write(b"d" * (1 << 20))
    with serve(tmp_path, disk) as s:
        with connect(s.address, mode) as c:
            res = c.request(CMD_READ, 0, size)
            assert res.read(0, size) == bytes(1 << 20) + b"d" * (1 << 20) + bytes(6 << 20)
            assert sum(n for _, n in res.holes) == 7 << 20
            res = c.request(CMD_READ, 0, size, DF)
            assert len(res.data) == 1 and not res.holes
            res = c.request(CMD_READ, 0, 4096)
            assert len(res.data) == 1 and not res.holes
            res = c.request(CMD_READ, (1 << 20) + 12345, 65536)
            assert len(res.data) == 1 and res.data[0][1] == b"d" * 65536
            # what is written shows, what is trimmed is a hole again
            c.pwrite(4 << 20, b"e" * 65536)
            assert c.pread(0, size)[4 << 20:(4 << 20) + 65536] == b"e" * 65536
            c.request(CMD_WRITE_ZEROES, 1 << 20, 1 << 20)
            res = c.request(CMD_READ, 0, size)
            assert sum(n for _, n in res.holes) == size - 65536
        with connect(s.address, SIMPLE) as c:
            assert c.pread(0, size)[4 << 20:(4 << 20) + 65536] == b"e" * 65536


# ---- block status ----

@pytest.mark.parametrize("mode", CHUNKED)
def test_block_status(tmp_path, mode):
    size = 8 << 20
    disk = make_disk(tmp_path, size)
    with open(disk, "r+b") as f:
        f.seek(2 << 20)
        f.write(b"d" * (1 << 20))
    both = ["base:allocation", "qemu:allocation-depth"]
    with serve(tmp_path, disk, args=["-D"]) as s, connect(s.address, mode, contexts=both) as c:
        alloc, depth = (c.contexts[x] for x in both)
        res = c.request(CMD_BLOCK_STATUS, 0, size)
        assert res.extents[alloc] == [(2 << 20, 3), (1 << 20, 0), (5 << 20, 3)]
        assert sum(n for n, _ in res.extents[depth]) == size
        res = c.request(CMD_BLOCK_STATUS, 0, size, REQ_ONE)
        assert res.extents[alloc] == [(2 << 20, 3)] and len(res.extents[depth]) == 1
        res = c.request(CMD_BLOCK_STATUS, 4096, 8192, REQ_ONE)
        assert res.extents[alloc] == [(8192, 3)]
        assert c.request(CMD_BLOCK_STATUS, 0, 0).error == EINVAL
        assert c.request(CMD_BLOCK_STATUS, 0, 512, DF).error == EINVAL
        assert c.request(CMD_BLOCK_STATUS, size - 1, 1).error == 0


def test_block_status_payload(srv):
    both = ["base:allocation", "qemu:allocation-depth"]
    with connect(srv.address, EXTENDED, contexts=both) as c:
        alloc, depth = (c.contexts[x] for x in both)

        def status(ids, effect=SIZE, offset=0):
            payload = struct.pack(">Q", effect) + b"".join(struct.pack(">I", i) for i in ids)
            return c.request(CMD_BLOCK_STATUS, offset, 0, PAYLOAD_LEN, payload)
        assert set(status([alloc]).extents) == {alloc}
        assert set(status([depth]).extents) == {depth}
        assert set(status([depth, alloc]).extents) == {alloc, depth}
        assert status([alloc, alloc]).error == EINVAL
        assert status([12345]).error == EINVAL
        assert status([]).error == EINVAL
        assert status([alloc], effect=0).error == EINVAL
        assert status([alloc], effect=SIZE + 1).error == EINVAL
        assert status([alloc], effect=(1 << 64) - 1, offset=512).error == EINVAL
        assert c.request(CMD_BLOCK_STATUS, 0, 0, PAYLOAD_LEN, b"x" * 13).error == EINVAL
        for n in (0, 4, 8, 10):  # no ids, no length, nothing at all
            assert c.request(CMD_BLOCK_STATUS, 0, 0, PAYLOAD_LEN, bytes(n)).error == EINVAL
        assert c.request(CMD_BLOCK_STATUS, 0, 0, PAYLOAD_LEN, bytes(8192)).error == EINVAL
        assert set(c.request(CMD_BLOCK_STATUS, 0, SIZE).extents) == {alloc, depth}


def test_block_status_is_bounded(tmp_path):
    """A disk in thousands of pieces: the answer is bounded and the client can go on."""
    size = 64 << 20
    disk = make_disk(tmp_path, size)
    with open(disk, "r+b") as f:
        for off in range(0, size, 8192):
            f.seek(off)
            f.write(b"x" * 4096)
    with serve(tmp_path, disk) as s, \
            connect(s.address, STRUCTURED, contexts=["base:allocation"]) as c:
        ident = c.contexts["base:allocation"]
        offset = total = 0
        while offset < size:
            ext = c.request(CMD_BLOCK_STATUS, offset, size - offset).extents[ident]
            assert len(ext) <= 4096
            offset += sum(n for n, _ in ext)
            total += len(ext)
        assert offset == size and total >= 2


# ---- replies ----

@pytest.mark.parametrize("mode", MODES)
def test_pipelined(srv, mode):
    with connect(srv.address, mode) as c:
        cookies = []
        for i in range(100):
            cookies.append(c.submit(CMD_WRITE, i * 4096, 4096, payload=bytes([i]) * 4096))
        for k in cookies:
            assert c.wait(k).error == 0
        cookies = [c.submit(CMD_READ, i * 4096, 4096) for i in range(100)]
        for i, k in enumerate(cookies):
            assert c.wait(k).read(i * 4096, 4096) == bytes([i]) * 4096


def test_flush_is_seen_on_other_connections(srv):
    a, b = connect(srv.address), connect(srv.address)
    with a, b:
        a.pwrite(0, b"m" * 4096, FUA)
        assert b.pread(0, 4096) == b"m" * 4096
        b.pwrite(0, b"n" * 4096)
        assert a.request(CMD_FLUSH).error == 0
        assert a.pread(0, 4096) == b"n" * 4096


def test_one_connection_means_no_multi_conn(tmp_path):
    with serve(tmp_path, make_disk(tmp_path), args=["-e", "1"]) as s:
        with connect(s.address) as c:
            assert not c.flags & T_MULTI_CONN
            with Client(s.address).greet() as d:  # may look, must wait to go
                d.go(option=OPT_INFO)
                d.opt_send(OPT_GO, Client.go_data(""))
                c.disconnect()
                assert [k for k, _ in d.opt_replies(OPT_GO)]


def test_tcp(tmp_path):
    with serve(tmp_path, make_disk(tmp_path), tcp=True) as s:
        with connect(s.address) as c:
            c.pwrite(0, b"t" * 100000)
            assert c.pread(0, 100000) == b"t" * 100000
            c.disconnect()


def test_many_threads(tmp_path):
    with serve(tmp_path, make_disk(tmp_path, 8 << 20), args=["-t", "3"]) as s:
        cs = [connect(s.address) for _ in range(9)]
        for rnd in range(20):
            ks = [c.submit(CMD_WRITE, i * 65536, 65536, payload=bytes([i + rnd]) * 65536)
                  for i, c in enumerate(cs)]
            for c, k in zip(cs, ks):
                assert c.wait(k).error == 0
            for i, c in enumerate(cs):
                other = (i + 1) % len(cs)
                assert c.pread(other * 65536, 65536) == bytes([other + rnd]) * 65536
        for c in cs:
            c.disconnect()
