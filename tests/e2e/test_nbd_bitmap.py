# SPDX-License-Identifier: MIT
"""Dirty bitmaps of exports on the wire: contexts, bounds of answers, hostile requests."""
import os
import struct

import pytest

from nbd_client import (CMD_BLOCK_STATUS, EXTENDED, OPT_LIST_META, OPT_SET_META, PAYLOAD_LEN,
                        REQ_ONE, STRUCTURED, Client, Refused, connect)
from nbd_tool import background
from tools_common import called, needs, qemu

pytestmark = needs('qcow2')
SIZE = 8 << 20
GRANULE = 512
EINVAL = 22
B0, B1 = 'qemu:dirty-bitmap:b0', 'qemu:dirty-bitmap:b1'
DEPTH = 'qemu:allocation-depth'


@pytest.fixture(scope='module', name='server')
def fixture_server(tmp_path_factory):
    """b0 is dirty in every other granule, b1 nowhere."""
    folder = tmp_path_factory.mktemp('bitmaps')
    link, disk = folder / 'qemu-nbd', folder / 'disk.qcow2'
    os.symlink(os.environ['PLATTER_BIN'], link)
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', disk, str(SIZE)).returncode == 0
    assert qemu('qemu-img', 'bitmap', '--add', '-g', str(GRANULE), disk, 'b0').returncode == 0
    with background(link, folder, '-t', '-f', 'qcow2', '-B', 'b0', disk) as server, \
            connect(str(server.socket)) as c:
        for at in range(0, SIZE, 2 * GRANULE):
            c.pwrite(at, b'x' * GRANULE)
    assert qemu('qemu-img', 'bitmap', '--add', '-g', str(GRANULE), disk, 'b1').returncode == 0
    with background(link, folder, '-t', '-e', '9', '-r', '-A', '-f', 'qcow2', '-B', 'b1', '-B',
                    'b0', disk) as server:
        yield str(server.socket)


@pytest.mark.parametrize('queries, found', [
    ([], {'base:allocation', DEPTH, B0, B1}),
    (['qemu:'], {DEPTH, B0, B1}),
    (['qemu:dirty-bitmap:'], {B0, B1}),
    ([B1], {B1}), ([B1, B1, 'base:'], {'base:allocation', B1}),
    (['qemu:dirty-bitmap'], set()), (['qemu:dirty-bitmap:b'], set()), ([B0 + ':'], set()),
    (['qemu:dirty-bitmap:' + 'x' * 3000], set()), (['qemu:x'], set()),
])
def test_listing(server, queries, found):
    with Client(server).greet().negotiate(STRUCTURED) as c:
        assert set(c.meta(OPT_LIST_META, '', queries)) == found


def test_choosing_knows_no_wildcards(server):
    with Client(server).greet().negotiate(STRUCTURED) as c:
        assert not c.meta(OPT_SET_META, '', ['qemu:', 'qemu:dirty-bitmap:'])
        with pytest.raises(Refused):
            c.meta(OPT_SET_META, '', ['qemu'])
        assert set(c.meta(OPT_SET_META, '', [B0, DEPTH])) == {B0, DEPTH}


@pytest.mark.parametrize('program', ['qemu-nbd', None])
def test_asked_for_twice(program, tmp_path):
    """Both are listed, by the reference too; the name means the first."""
    disk = tmp_path / 'disk.qcow2'
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', disk, '1M').returncode == 0
    for name in ('b0', 'b1'):
        assert qemu('qemu-img', 'bitmap', '--add', '--disable', disk, name).returncode == 0
    with background(program or called(tmp_path, 'qemu-nbd'), tmp_path, '-t', '-r', '-f', 'qcow2', '-B', 'b0',
                    '-B', 'b1', '-B', 'b0', disk) as server, \
            Client(str(server.socket)).greet().negotiate(STRUCTURED) as c:
        for queries, found in (([], ['base:allocation', B0, B1, B0]), (['qemu:'], [B0, B1, B0]), ([B0], [B0]),
                               ([B1, B0], [B0, B1])):
            assert [data[4:].decode() for _, data in c.opt(OPT_LIST_META, c.meta_data('', queries))] == found
        c.meta(OPT_SET_META, '', [B0, B1])
        assert c.go()
        assert c.request(CMD_BLOCK_STATUS, 0, 1 << 20).extents == {c.contexts[name]: [(1 << 20, 0)] for name in (B0, B1)}


@pytest.mark.parametrize('mode', [STRUCTURED, EXTENDED])
@pytest.mark.parametrize('names', [[B0], [B0, B1], ['base:allocation', DEPTH, B1, B0]])
def test_bits_come_in_bounded_parts(server, mode, names):
    """Whoever goes on where the answer ends has seen every bit."""
    with connect(server, mode, contexts=names) as c:
        at, parts, seen = 0, 0, []
        while at < SIZE:
            extents = c.request(CMD_BLOCK_STATUS, at, SIZE - at).extents
            assert set(extents) == {c.contexts[name] for name in names}
            assert sum(map(len, extents.values())) <= 8192
            mine = extents[c.contexts[B0]]
            assert len(mine) <= 4096
            seen += mine
            at += sum(n for n, _ in mine)
            parts += 1
        assert seen == [(GRANULE, 1), (GRANULE, 0)] * (SIZE // GRANULE // 2)
        assert parts > 1
        if B1 in names:
            assert c.request(CMD_BLOCK_STATUS, 0, SIZE).extents[c.contexts[B1]] == [(SIZE, 0)]


@pytest.mark.parametrize('offset, length, flags, want', [
    (0, SIZE, REQ_ONE, [(GRANULE, 1)]), (GRANULE, SIZE - GRANULE, REQ_ONE, [(GRANULE, 0)]),
    (1, 1, 0, [(1, 1)]), (511, 2, 0, [(1, 1), (1, 0)]), (SIZE - 1, 1, 0, [(1, 0)]),
])
def test_odd_ranges(server, offset, length, flags, want):
    with connect(server, STRUCTURED, contexts=[B0]) as c:
        assert c.request(CMD_BLOCK_STATUS, offset, length, flags).extents == {c.contexts[B0]: want}


def test_hostile_requests(server):
    with connect(server, EXTENDED, contexts=[B0, B1]) as c:
        b0, b1 = c.contexts[B0], c.contexts[B1]

        def status(ids, effect=SIZE, offset=0):
            payload = struct.pack('>Q', effect) + b''.join(struct.pack('>I', i) for i in ids)
            return c.request(CMD_BLOCK_STATUS, offset, 0, PAYLOAD_LEN, payload)
        assert set(status([b1]).extents) == {b1}
        assert set(status([b0, b1], GRANULE).extents) == {b0, b1}
        for ids in ([b0, b0], [1], [2], [0], [b1 + 1], [62], [63], [64], [65], [0xffffffff], []):
            assert status(ids).error == EINVAL, ids
        for offset, length in ((0, 0), (SIZE, 1), (SIZE - 1, 2), (1 << 63, 1), (1, (1 << 64) - 1)):
            assert c.request(CMD_BLOCK_STATUS, offset, length).error == EINVAL
        assert status([b0], 0).error == EINVAL and status([b0], SIZE + 1).error == EINVAL
        assert c.pread(0, 2)


def test_many_questions_at_once(server):
    """Each answer is bounded; so is what waits for a client that reads slowly."""
    with connect(server, STRUCTURED, contexts=[B0, B1]) as c:
        cookies = [c.submit(CMD_BLOCK_STATUS, 0, SIZE) for _ in range(60)]
        for cookie in cookies:
            assert len(c.wait(cookie).extents[c.contexts[B0]]) == 4096
