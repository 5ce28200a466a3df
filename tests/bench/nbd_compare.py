#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""NBD servers side by side: requests per second and server CPU per request.

The same fio job (--ioengine=nbd) runs against platter, qemu-nbd and nbdkit's file plugin on the
same memory-backed disk, one after the other within each round, so that noise of the machine meets
all of them. Prints the median of the rounds and platter's ratio to each peer. CPU is utime + stime
of the server's process. Exit status 1 with --check when a cell is not ahead.

usage: nbd_compare.py [--platter PROGRAM] [--serve NBD_SERVE] [--rounds N] [--seconds S]
                      [--size MIB] [--cells NAME,...] [--servers NAME,...] [--json FILE] [--check]
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

CELLS = {
    "4k randread  depth 1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    "4k randread  depth 64": ["--rw=randread", "--bs=4k", "--iodepth=64"],
    "4k randread  4 x depth 32": ["--rw=randread", "--bs=4k", "--iodepth=32", "--numjobs=4"],
    "4k randwrite depth 64": ["--rw=randwrite", "--bs=4k", "--iodepth=64"],
    "1M read      depth 16": ["--rw=read", "--bs=1m", "--iodepth=16"],
    "1M write     depth 16": ["--rw=write", "--bs=1m", "--iodepth=16"],
}
EXTRA = {
    "1M read      depth 1": ["--rw=read", "--bs=1m", "--iodepth=1"],
    "1M write     depth 1": ["--rw=write", "--bs=1m", "--iodepth=1"],
    "4k randwrite depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
}


def server_command(name, args, disk, sock):
    if name == "qemu-nbd":
        return ["qemu-nbd", "-f", "raw", "-t", "-e", "8", "-k", sock, "--cache=writeback",
                "--aio=io_uring", disk]
    if name == "nbdkit":
        return ["nbdkit", "-f", "-U", sock, "file", disk]
    if "/" in name:
        return [name, *args.serve_args.split(), "-k", sock, disk]
    if args.serve:
        return [args.serve, *args.serve_args.split(), "-k", sock, disk]
    return [args.platter, "serve", "-f", "raw", "-k", sock, disk]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(path, proc):
    deadline = time.monotonic() + 10
    while not os.path.exists(path):
        if proc.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the server did not start: {proc.args}")
        time.sleep(0.02)
    time.sleep(0.1)


def run_cell(args, name, cell, disk, work):
    sock = os.path.join(work, "s")
    with open(os.path.join(work, "log"), "wb") as log:
        proc = subprocess.Popen(server_command(name, args, disk, sock), stdout=log, stderr=log,
                                stdin=subprocess.DEVNULL)
    try:
        wait_for(sock, proc)
        before = cpu_seconds(proc.pid)
        out = subprocess.run(
            ["fio", "--name=cell", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={sock}",
             "--time_based", f"--runtime={args.seconds}", f"--size={args.size}m", "--thread",
             "--group_reporting", "--output-format=json", *cell],
            check=True, capture_output=True, text=True, cwd=work)
        cpu = cpu_seconds(proc.pid) - before
    finally:
        proc.send_signal(signal.SIGTERM)
        try:
            proc.wait(timeout=10)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()
        if os.path.exists(sock):
            os.unlink(sock)
    job = json.loads(out.stdout[out.stdout.index("{"):])["jobs"][0]
    requests = job["read"]["total_ios"] + job["write"]["total_ios"]
    rate = job["read"]["iops"] + job["write"]["iops"]
    return rate, cpu / requests * 1e6


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--platter", default=os.environ.get("PLATTER_BIN", "platter"))
    p.add_argument("--serve", help="the bare server of the tests instead of 'platter serve'")
    p.add_argument("--serve-args", default="")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--size", type=int, default=256, help="MiB")
    p.add_argument("--cells", default="")
    p.add_argument("--extra", action="store_true", help="more cells")
    p.add_argument("--servers", default="platter,nbdkit,qemu-nbd",
                   help="the first is compared with the others; a path is a bare server")
    p.add_argument("--json")
    p.add_argument("--check", action="store_true")
    args = p.parse_args()
    servers = args.servers.split(",")
    cells = {**CELLS, **EXTRA} if args.extra or args.cells else CELLS
    if args.cells:
        cells = {k: v for k, v in cells.items() if any(c in k for c in args.cells.split(","))}

    work = tempfile.mkdtemp(prefix="nbd-compare-", dir="/dev/shm")
    disk = os.path.join(work, "disk")
    results = {}
    ahead = True
    try:
        with open(disk, "wb") as f:
            block = os.urandom(1 << 20)
            for _ in range(args.size):
                f.write(block)
        print(f"{'cell':27} {'server':9} {'requests/s':>11} {'cpu us/req':>11}   ratio rate, cpu")
        for cell, fio in cells.items():
            runs = {s: [] for s in servers}
            for _ in range(args.rounds):
                for s in servers:
                    runs[s].append(run_cell(args, s, fio, disk, work))
            med = {s: (statistics.median(r[0] for r in runs[s]),
                       statistics.median(r[1] for r in runs[s])) for s in servers}
            results[cell] = med
            for s in servers:
                rate, cpu = med[s]
                note = ""
                if s != servers[0]:
                    ours = med[servers[0]]
                    note = f"   x{ours[0] / rate:.2f}, x{cpu / ours[1]:.2f}"
                    if ours[0] <= rate or ours[1] >= cpu:
                        ahead = False
                        note += "  BEHIND"
                print(f"{cell:27} {s[-9:]:9} {rate:11.0f} {cpu:11.2f}{note}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if args.json:
        with open(args.json, "w", encoding="ascii") as f:
            json.dump(results, f, indent=1)
    return 0 if ahead or not args.check else 1


if __name__ == "__main__":
    sys.exit(main())
