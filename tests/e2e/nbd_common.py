# SPDX-License-Identifier: MIT
"""Starting a server for a test and ending it by its own process id."""
import os
import signal
import subprocess
import time
from contextlib import contextmanager

SERVE = os.environ.get("PLATTER_NBD_SERVE")


def sanitized():
    with open(SERVE, "rb") as f:
        text = f.read()
    return b"__asan_init" in text or b"__tsan_init" in text


# Bounds on memory are those of a plain build; a sanitizer needs several times as much.
RSS_FACTOR = 8 if SERVE and sanitized() else 1


class Server:
    def __init__(self, proc, uri, address, log):
        self.proc = proc
        self.uri = uri
        self.address = address
        self.log = log

    def rss_kib(self):
        with open(f"/proc/{self.proc.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) // RSS_FACTOR
        return 0

    def fds(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def stop(self, timeout=60):
        """SIGTERM; returns the exit status."""
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
        try:
            return self.proc.wait(timeout)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
            raise


def make_disk(tmp_path, size=1 << 20, name="disk.img", data=None):
    path = os.path.join(tmp_path, name)
    with open(path, "wb") as f:
        f.truncate(size)
        if data:
            f.write(data)
    return path


@contextmanager
def serve(tmp_path, *disks, args=(), tcp=False, sock=True, check=True):
    """The bare server of the tests: it has every setting of the library."""
    path = os.path.join(tmp_path, "nbd.sock")
    log = os.path.join(tmp_path, "server.log")
    where = ["-p", "0"] if tcp else ["-k", path] if sock else []
    with open(log, "ab") as err:
        proc = subprocess.Popen([SERVE, *args, *where, *map(str, disks)], stdout=subprocess.PIPE,
                                stderr=err, stdin=subprocess.DEVNULL)
    uri = proc.stdout.readline().decode().strip()
    if not uri:
        proc.wait()
        with open(log, encoding="utf-8") as f:
            raise RuntimeError(f"the server did not start: {f.read()}")
    address = path
    if tcp:
        host, port = uri.split("/")[2].rsplit(":", 1)
        address = (host, int(port))
    server = Server(proc, uri, address, log)
    try:
        yield server
    finally:
        alive = proc.poll() is None
        status = server.stop()
        proc.stdout.close()
    if check:
        with open(log, encoding="utf-8", errors="replace") as f:
            text = f.read()
        assert alive and status == 0, f"the server ended with {status}: {text}"
        assert "ERROR" not in text and "runtime error" not in text, text


def until(cond, timeout=60, step=0.02):
    deadline = time.monotonic() + timeout
    while not cond():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(step)
