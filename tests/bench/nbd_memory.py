#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Resident memory of `platter serve` and of qemu-nbd under the same load, one after the other:

    tests/bench/nbd_memory.py --platter build/src/tools/platter [--requests 80000] [--check]

A sparse raw disk of 1 TiB; fio with 4 connections, each 4 KiB random reads and writes at depth 64.
Printed for each: the resident size (all of it, and what is no file's pages) before clients come, the
most under load, and afterwards; then the ratios. --check fails when platter needs more than qemu-nbd
under load.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DISK_BYTES = 1 << 40
CONNECTIONS = 4


def resident(pid):
    """Kilobytes: (all, anonymous)."""
    fields = {}
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            key, _, value = line.partition(":")
            fields[key] = value.split()
    return int(fields["VmRSS"][0]), int(fields["RssAnon"][0])


def start(command, sock):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not os.path.exists(sock):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{command[0]} did not start")
        time.sleep(0.02)
    return process


def load(uri, requests, folder):
    return subprocess.Popen(
        ["fio", "--name=m", "--ioengine=nbd", f"--uri={uri}", "--rw=randrw", "--bs=4k",
         "--iodepth=64", f"--numjobs={CONNECTIONS}", f"--number_ios={requests // CONNECTIONS}",
         "--size=1t", "--norandommap", "--randrepeat=1", "--group_reporting"],
        stdout=subprocess.DEVNULL, cwd=folder)


def measure(name, command, folder, requests):
    sock = os.path.join(folder, f"{name}.sock")
    disk = os.path.join(folder, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(DISK_BYTES)
    process = start([w.format(sock=sock, disk=disk) for w in command], sock)
    try:
        before = resident(process.pid)
        fio = load(f"nbd+unix:///?socket={sock}", requests, folder)
        most = (0, 0)
        while fio.poll() is None:
            most = max(most, resident(process.pid))
            time.sleep(0.02)
        if fio.returncode != 0:
            raise SystemExit(f"fio failed against {name}")
        after = resident(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    os.unlink(disk)
    print(f"{name:10} idle {before[0]:7} ({before[1]:6})   under load {most[0]:7} ({most[1]:6})   "
          f"after {after[0]:7} ({after[1]:6}) KiB", flush=True)
    return before, most, after


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--platter", required=True)
    parser.add_argument("--requests", type=int, default=80000)
    parser.add_argument("--folder", default="/dev/shm" if os.path.isdir("/dev/shm") else None,
                        help="where the disk is made (memory, when the system has it)")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    for program in ("fio", "qemu-nbd"):
        if not shutil.which(program):
            raise SystemExit(f"{program} is not installed")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print("resident size, in brackets the part that is no file's pages")
        qemu = measure("qemu-nbd", ["qemu-nbd", "-f", "raw", "-t", "-e", "16", "-k", "{sock}",
                                    "{disk}"], folder, args.requests)
        ours = measure("platter", [os.path.abspath(args.platter), "serve", "-f", "raw", "-k",
                                   "{sock}", "{disk}"], folder, args.requests)
    ratio = [ours[i][0] / qemu[i][0] for i in range(3)]
    print(f"platter / qemu-nbd: idle x{ratio[0]:.2f}   under load x{ratio[1]:.2f}   "
          f"after x{ratio[2]:.2f}")
    return 1 if args.check and ratio[1] > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
