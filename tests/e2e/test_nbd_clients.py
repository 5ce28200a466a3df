# SPDX-License-Identifier: MIT
"""Real clients against the NBD server: libnbd's tools, fio with verify, qemu-img, qemu-io."""
import hashlib
import json
import os
import random
import shutil
import subprocess

import pytest
from nbd_common import SERVE, make_disk, serve

pytestmark = pytest.mark.skipif(not SERVE, reason="PLATTER_NBD_SERVE is not set")

SIZE = 32 << 20
WAYS = [[], ["-t", "2"], ["-E", "threads"]]


def need(*programs):
    for p in programs:
        if not shutil.which(p):
            pytest.skip(f"{p} is not installed")


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True,
                          timeout=120, **kwargs).stdout


def digest(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


@pytest.fixture(name="image")
def image_fixture(tmp_path):
    """A disk with data, holes and zeroes."""
    path = make_disk(tmp_path, SIZE, "source.img")
    rng = random.Random(7)
    with open(path, "r+b") as f:
        for _ in range(40):
            f.seek(rng.randrange(SIZE - (1 << 20)) & ~4095)
            f.write(rng.randbytes(rng.randrange(1, 1 << 20)))
    return path


def test_nbdinfo(tmp_path):
    need("nbdinfo")
    with serve(tmp_path, make_disk(tmp_path, SIZE)) as s:
        info = json.loads(run("nbdinfo", "--json", s.uri))
        assert info["protocol"] == "newstyle-fixed" and info["structured"] is True
        export = info["exports"][0]
        assert export["export-size"] == SIZE and export["contexts"] == ["base:allocation"]
        assert export["can_multi_conn"] and export["can_fast_zero"] and export["can_df"]
        assert json.loads(run("nbdinfo", "--map", "--json", s.uri)) == [
            {"offset": 0, "length": SIZE, "type": 3, "description": "hole,zero"}]
        assert run("nbdinfo", "--size", s.uri).strip() == str(SIZE)
        run("nbdinfo", "--can", "trim", s.uri)
        run("nbdinfo", "--list", s.uri)


@pytest.mark.parametrize("way, connections", [(WAYS[0], 1)] + [(way, 4) for way in WAYS])
def test_nbdcopy_both_ways(tmp_path, image, way, connections):
    need("nbdcopy")
    disk = make_disk(tmp_path, SIZE)
    back = tmp_path / "back.img"
    with serve(tmp_path, disk, args=way) as s:
        run("nbdcopy", "--connections", connections, "--flush", image, s.uri)
        run("nbdcopy", "--connections", connections, s.uri, back)
    assert digest(disk) == digest(image) == digest(back)
    assert os.stat(disk).st_blocks <= os.stat(image).st_blocks + 4096


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_fio_verify(tmp_path, way):
    need("fio")
    with serve(tmp_path, make_disk(tmp_path, SIZE), args=way) as s:
        run("fio", "--name=v", "--ioengine=nbd", f"--uri={s.uri}", "--rw=randwrite", "--bs=4k",
            "--iodepth=32", "--size=12m", "--verify=crc32c", "--verify_fatal=1", cwd=tmp_path)


def test_qemu_img(tmp_path, image):
    need("qemu-img")
    disk = make_disk(tmp_path, SIZE)
    with serve(tmp_path, disk) as s:
        info = json.loads(run("qemu-img", "info", "--output=json", "-f", "raw", s.uri))
        assert info["virtual-size"] == SIZE
        run("qemu-img", "convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", image, s.uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, s.uri)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", s.uri, tmp_path / "back.img")
        extents = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", s.uri))
        assert sum(e["length"] for e in extents) == SIZE and any(e["zero"] for e in extents)
    assert digest(image) == digest(disk) == digest(tmp_path / "back.img")


def test_qemu_io(tmp_path):
    need("qemu-io")
    with serve(tmp_path, make_disk(tmp_path, SIZE)) as s:
        out = run("qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "write -f -P 8 2M 512",
                  "-c", "read -P 7 1M 64k", "-c", "read -P 8 2M 512", "-c", "write -z 1M 32k",
                  "-c", "read -P 0 1M 32k", "-c", "read -P 7 1081344 32k", "-c", "discard 2M 1M",
                  "-c", "write -z -u 3M 1M", "-c", "aio_write -P 9 5M 1M", "-c", "aio_flush",
                  "-c", "read -P 9 5M 1M", "-c", "flush", s.uri)
        assert "verification failed" not in out and "rror" not in out


def test_qemu_io_read_only(tmp_path):
    need("qemu-io")
    with serve(tmp_path, make_disk(tmp_path, SIZE), args=["-r"]) as s:
        out = run("qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", s.uri)
        assert "read 4096/4096" in out
        proc = subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 4k", s.uri],
                              capture_output=True, text=True, timeout=60, check=False)
        assert proc.returncode != 0


def test_libnbd_python(tmp_path):
    nbd = pytest.importorskip("nbd")
    with serve(tmp_path, make_disk(tmp_path, SIZE), args=["-D"]) as s:
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        h.add_meta_context("qemu:allocation-depth")
        h.connect_uri(s.uri)
        h.set_strict_mode(0)
        h.pwrite(b"x" * 4096, 4096)
        assert h.pread(4096, 4096) == bytearray(b"x" * 4096)
        seen = {}
        h.block_status(SIZE, 0, lambda name, off, entries, err: seen.update({name: entries}))
        assert set(seen) == {"base:allocation", "qemu:allocation-depth"}
        pieces = []
        h.pread_structured(SIZE // 2, 0,
                           lambda buf, off, status, err: pieces.append((off, len(buf), status)))
        assert sum(n for _, n, _ in pieces) == SIZE // 2 and len(pieces) > 1
        for call in (lambda: h.pread(512, SIZE), lambda: h.trim(512, SIZE)):
            with pytest.raises(nbd.Error) as e:
                call()
            assert e.value.errno == "EINVAL"
        with pytest.raises(nbd.Error) as e:
            h.pwrite(b"x", SIZE)
        assert e.value.errno == "ENOSPC"
        h.shutdown()
