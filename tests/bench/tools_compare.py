#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The commands beside qemu-img: time, CPU and peak memory, in turn on the same images.

Each row is one command line that both programs take. Told are the shortest time and the least CPU (user and system)
of the rounds, the median of the peak memory, and the ratios (above 1: platter is ahead). Exit status 1 with --check
when a row is not ahead: time and CPU at least 0.95 (what the clock of a busy machine allows), memory at least 0.95,
twice as fast where it compresses. Images are in the page cache: what is measured is the work, not the disk below.
--instructions counts with callgrind instead (user space only, but the same on a busy machine). Images are made once and
kept when --folder is given.

usage: tools_compare.py BUILD [--rounds N] [--folder DIR] [--rows WORD,...] [--check] [--instructions] [--json FILE]
"""
import argparse
import json
import math
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from bench_images import Images

LEVEL = 0.95


class Row(NamedTuple):
    name: str
    # {image} is an image of bench_images.py, {my_image} a fresh copy of it each time, {out} a new file.
    command: str
    # What the other side does where it has no such command.
    theirs: str = ''
    time_goal: float = LEVEL
    status: int = 0


ROWS = [
    Row('convert raw to qcow2, 1 GiB', 'convert -f raw -O qcow2 {raw} {out}'),
    Row('convert qcow2 to raw, 1 GiB', 'convert -f qcow2 -O raw {qcow2} {out}'),
    Row('convert a chain of 10, 1 GiB', 'convert -f qcow2 -O qcow2 {chain} {out}'),
    Row('convert sparse 1 TiB with 1 GiB', 'convert -f raw -O qcow2 {sparse} {out}'),
    Row('convert -c with zlib, 256 MiB', 'convert -c -f raw -O qcow2 {raw_small} {out}', time_goal=2),
    Row('convert -c with zstd, 256 MiB', 'convert -c -f raw -O qcow2 -o compression_type=zstd {raw_small} {out}',
        time_goal=2),
    Row('convert compressed to raw, 256 MiB', 'convert -f qcow2 -O raw {compressed} {out}'),
    Row('dd raw to qcow2, 256 MiB', 'dd -f raw -O qcow2 bs=1M if={raw_small} of={out}'),
    Row('check, 1,000,000 clusters', 'check -f qcow2 {million}'),
    Row('check, the same with 3 snapshots', 'check -f qcow2 {million_snapshots}'),
    Row('check, the same in random order', 'check -f qcow2 {million_scattered}'),
    Row('check, clusters of 512 bytes', 'check -f qcow2 {million_512}'),
    Row('check, clusters of 4 KiB', 'check -f qcow2 {million_4k}'),
    Row('check, extended L2', 'check -f qcow2 {million_extended}'),
    Row('check -r leaks, 500,000 leaks', 'check -r leaks -f qcow2 {my_million_leaked}'),
    Row('check -r all, 500,000 leaks', 'check -r all -f qcow2 {my_million_leaked}'),
    Row('map, 1,000,000 clusters', 'map -f qcow2 {million}'),
    Row('map, the same in random order', 'map -f qcow2 {million_scattered}'),
    Row('map --output=json, random order', 'map --output=json -f qcow2 {million_scattered}'),
    Row('map --output=json, 500,000 holes', 'map --output=json -f qcow2 {million_holes}'),
    Row('map --output=json, extended L2', 'map --output=json -f qcow2 {million_extended}'),
    Row('map, chain of 10, 1,000,000 extents', 'map -f qcow2 {fine_chain}'),
    Row('map --output=json, the same', 'map --output=json -f qcow2 {fine_chain}'),
    Row('map --output=json, sparse raw 1 TiB', 'map --output=json -f raw {sparse}'),
    Row('measure, sparse raw 1 TiB', 'measure -f raw -O qcow2 {sparse}'),
    Row('measure, qcow2 of 1,000,000 clusters', 'measure -f qcow2 -O qcow2 {million_scattered}'),
    Row('measure -O raw, the same', 'measure -f qcow2 -O raw {million_scattered}'),
    Row('measure -l, a snapshot of it', 'measure -f qcow2 -O qcow2 -l b {million_snapshots}'),
    Row('measure, chain of 10', 'measure -f qcow2 -O qcow2 {fine_chain}'),
    Row('compare raw with qcow2, 1 GiB', 'compare -f raw -F qcow2 {raw} {qcow2}'),
    Row('compare, differing in the last byte', 'compare -f raw -F raw {raw} {raw_tail}', status=1),
    Row('compare sparse 1 TiB with its qcow2', 'compare -f raw -F qcow2 {sparse} {sparse_qcow2}'),
    Row('snapshot -c, 1,000,000 clusters', 'snapshot -c s {my_million}'),
    Row('snapshot -a', 'snapshot -a b {my_million_snapshots}'),
    Row('snapshot -d', 'snapshot -d b {my_million_snapshots}'),
    Row('snapshot -l', 'snapshot -l {million_snapshots}'),
    Row('rebase, 1 GiB, a quarter differs', 'rebase -f qcow2 -b new -F qcow2 {my_rebase}'),
    Row('rebase to none, chain of 10', 'rebase -f qcow2 -b "" {my_chain}'),
    Row('rebase -u, 1,000,000 clusters', 'rebase -u -f qcow2 -b other -F qcow2 {my_million}'),
    Row('commit, 256 MiB into 1 TiB', 'commit -f qcow2 {my_overlay}'),
    Row('resize, 1,000,000 clusters grow', 'resize -f qcow2 {my_million} +1T'),
    Row('resize, the same shrink by half', 'resize -f qcow2 --shrink {my_million} 31250M'),
    Row('resize --preallocation=metadata', 'resize -f qcow2 --preallocation=metadata {my_million} +1T'),
    Row('info', 'info -f qcow2 {million_snapshots}'),
    Row('info --backing-chain, 10', 'info --backing-chain -f qcow2 {fine_chain}'),
    Row('create, 1 TiB', 'create -f qcow2 {out} 1T'),
    Row('create, 1 TiB, metadata', 'create -f qcow2 -o preallocation=metadata {out} 1T'),
    Row('create, 10 GiB, falloc', 'create -f qcow2 -o preallocation=falloc {out} 10G'),
    Row('create, 1 GiB, full', 'create -f qcow2 -o preallocation=full {out} 1G'),
    Row('bitmap --add, 1 TiB', 'bitmap --add {my_tib} b'),
    Row('bitmap --add, granularity 4 KiB', 'bitmap --add -g 4k {my_tib} b'),
    Row('bitmap --merge', 'bitmap --merge one {my_tib_bitmaps} two'),
    Row('bitmap --clear', 'bitmap --clear {my_tib_bitmaps} one'),
    Row('bitmap --remove', 'bitmap --remove {my_tib_bitmaps} one'),
    Row('amend to version 2', 'amend -f qcow2 -o compat=0.10 {my_million}'),
    Row('amend lazy_refcounts', 'amend -f qcow2 -o lazy_refcounts=on {my_million}'),
    Row('amend refcount_bits', 'amend -f qcow2 -o refcount_bits=64 {my_million}'),
    Row('bench read, qcow2', 'bench -f qcow2 -c 100000 {qcow2}'),
    Row('bench write, qcow2', 'bench -w -f qcow2 -c 100000 -t unsafe {my_qcow2}'),
    Row('checksum, qcow2 of 1 GiB', 'checksum -f qcow2 {qcow2}',
        'sh -c "qemu-img convert -f qcow2 -O raw {qcow2} {out} && sha256sum {out}"'),
]


def run(command, status):
    """(seconds, CPU seconds, peak memory in MiB). time(1) stands between because what the system tells of peak memory
    counts the program that forked, which had better be small."""
    with tempfile.NamedTemporaryFile('r') as peak:
        start = time.monotonic()
        process = subprocess.Popen(['time', '-q', '-f', '%M', '-o', peak.name, *command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, code, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(code)
        if process.returncode != status:
            sys.exit(f'{shlex.join(command)} ended with {process.returncode}, not {status}')
        return seconds, usage.ru_utime + usage.ru_stime, int(peak.read()) / 1024


def instructions(command, status):
    """Millions, in user space."""
    done = subprocess.run(['valgrind', '--tool=callgrind', '--trace-children=yes', '--callgrind-out-file=/dev/null',
                           *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != status:
        sys.exit(f'{shlex.join(command)} ended with {done.returncode}:\n{done.stderr}')
    return (sum(int(n) for n in re.findall(r'Collected : (\d+)', done.stderr)) / 1e6,)


def arranged(images, folder, text):
    """The command line with its images, copies of them and its new file in place."""
    def place(found):
        name = found.group(1)
        if name == 'out':
            out = os.path.join(folder, 'out')
            if os.path.exists(out):
                os.unlink(out)
            return out
        if name.startswith('my_'):
            return images.copy(name[3:], os.path.join(folder, 'copy'))
        return images.path(name)
    return shlex.split(re.sub(r'\{(\w+)\}', place, text))


def measure(arguments, images, folder, row):
    """For platter and for qemu-img: what the rounds told."""
    seen = ([], [])
    ours = arguments.platter
    if not row.theirs: # under the name that guesses formats, as the other side does
        ours = os.path.join(os.path.abspath(folder), 'qemu-img')
        if not os.path.lexists(ours):
            os.symlink(arguments.platter, ours)
    sides = (f'{shlex.quote(ours)} {row.command}', row.theirs or f'qemu-img {row.command}')
    for _ in range(1 if arguments.instructions else arguments.rounds):
        for side, text in enumerate(sides):
            command = arranged(images, folder, text)
            seen[side].append((instructions if arguments.instructions else run)(command, row.status))
    return seen


def judged(row, seen):
    """The figures of both sides by kind, and what is missed."""
    figures = {'time': [min(x[0] for x in side) for side in seen],
               'CPU': [min(x[1] for x in side) for side in seen],
               'memory': [statistics.median(x[2] for x in side) for side in seen]}
    goals = {'time': row.time_goal, 'CPU': LEVEL, 'memory': LEVEL}
    missed = [what for what, (ours, theirs) in figures.items() if theirs / ours < goals[what]]
    return figures, missed


def compare(arguments, images, folder, row):
    seen = measure(arguments, images, folder, row)
    if arguments.instructions:
        ours, theirs = seen[0][0][0], seen[1][0][0]
        print(f'{row.name:38}{ours:12.1f}{theirs:12.1f}{theirs / ours:8.2f}', flush=True)
        return {'row': row.name, 'instructions': [ours, theirs]}, theirs >= ours
    figures, missed = judged(row, seen)
    told = ''.join(f'{ours:9.{digits}f}{theirs:8.{digits}f}{theirs / ours:7.2f}'
                   for (ours, theirs), digits in zip(figures.values(), (3, 3, 1)))
    print(f'{row.name:38}{told}{"   behind: " + ", ".join(missed) if missed else ""}', flush=True)
    return {'row': row.name, **figures}, not missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--folder', help='where images are made and kept; a temporary folder when not given. 10 GiB')
    parser.add_argument('--rows', help='only those in whose name one of the words is')
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--instructions', action='store_true')
    parser.add_argument('--json', help='write the figures there too')
    arguments = parser.parse_args()
    arguments.platter = os.path.abspath(os.path.join(arguments.build, 'src/tools/platter'))
    words = arguments.rows.split(',') if arguments.rows else ['']
    rows = [row for row in ROWS if any(w in row.name for w in words)]
    if arguments.instructions:
        print(f'{"":38}{"Minstr.":>12}{"qemu":>12}{"ratio":>8}')
    else:
        print(f'{"":38}{"seconds":>9}{"qemu":>8}{"ratio":>7}{"CPU s":>9}{"qemu":>8}{"ratio":>7}'
              f'{"MiB":>9}{"qemu":>8}{"ratio":>7}')
    scratch = tempfile.mkdtemp(dir=arguments.folder)
    try:
        images = Images(os.path.abspath(arguments.folder) if arguments.folder else scratch)
        results = [compare(arguments, images, scratch, row) for row in rows]
    finally:
        shutil.rmtree(scratch)
    for what in ('instructions',) if arguments.instructions else ('time', 'CPU', 'memory'):
        mean = math.exp(statistics.mean(math.log(r[what][1] / r[what][0]) for r, _ in results))
        print(f'geometric mean of the ratios of {what}: {mean:.2f}')
    if arguments.json:
        with open(arguments.json, 'w', encoding='utf-8') as f:
            json.dump([r for r, _ in results], f, indent=1)
    if arguments.check and not all(good for _, good in results):
        sys.exit(1)


if __name__ == '__main__':
    main()
