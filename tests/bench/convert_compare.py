#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""convert beside qemu-img: time, CPU and peak memory, in turn on the same disks.

Each cell is one `convert` command line that both programs take, into a new file each time. Prints the median of the
rounds and the ratios (above 1: platter is ahead). Exit status 1 with --check when a goal is missed: level in each cell
(0.95, what the clock of a busy machine allows), ahead in the geometric mean, twice as fast where it compresses. The
disks are in the page cache: what is measured is the work, not the disk below.

usage: convert_compare.py BUILD [--rounds N] [--folder DIR] [--cells WORD,...] [--check]
"""
import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40


def peak_kib(pid):
    """Resident memory at the most, so far. (What wait4 tells counts this program before it became that one.)"""
    try:
        with open(f'/proc/{pid}/status', encoding='ascii') as f:
            return next((int(line.split()[1]) for line in f if line.startswith('VmHWM')), 0)
    except OSError:
        return 0


def timed(command):
    """(wall seconds, CPU seconds, peak memory in MiB)"""
    start = time.monotonic()
    peak = 0
    with subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL) as process:
        while True:
            peak = max(peak, peak_kib(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid != 0:
                break
            time.sleep(0.002)
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f'{command} failed')
    return wall, usage.ru_utime + usage.ru_stime, peak / 1024


def sh(*command):
    subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def text_like(rng, size):
    """Bytes that compress to about a half: words of a small vocabulary, numbers between them."""
    words = [rng.randbytes(rng.randrange(4, 16)) for _ in range(2000)]
    out = bytearray()
    while len(out) < size:
        out += words[min(int(rng.expovariate(1 / 300)), 1999)] + rng.randbytes(3)
    return bytes(out[:size])


def make_raw(folder):
    path = f'{folder}/plain.raw'
    if not os.path.exists(path):
        piece = text_like(random.Random(1), 8 * MIB)
        with open(path, 'wb') as f:
            for i in range(128):
                f.write(piece[i * 512:] + piece[:i * 512])
    return path


def make_small(folder):
    path = f'{folder}/small.raw'
    if not os.path.exists(path):
        with open(make_raw(folder), 'rb') as source, open(path, 'wb') as f:
            f.write(source.read(256 * MIB))
    return path


def make_qcow2(folder):
    path = f'{folder}/plain.qcow2'
    if not os.path.exists(path):
        sh('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', make_raw(folder), path)
    return path


def make_chain(folder):
    """10 layers, each with a tenth of the megabytes of 1 GiB."""
    top = f'{folder}/layer9.qcow2'
    if not os.path.exists(top):
        for i in range(10):
            path = f'{folder}/layer{i}.qcow2'
            over = ['-b', f'{folder}/layer{i - 1}.qcow2', '-F', 'qcow2'] if i else []
            sh('qemu-img', 'create', '-q', '-f', 'qcow2', *over, path, GIB)
            sh('qemu-io', *(x for k in range(i, 1024, 10) for x in ('-c', f'write -q -P {i + 1} {k}M 1M')), path)
    return top


def make_sparse(folder):
    """1 TiB with 1 GiB of data, a MiB at a time."""
    path = f'{folder}/sparse.raw'
    if not os.path.exists(path):
        rng = random.Random(2)
        piece = text_like(rng, MIB)
        with open(path, 'wb') as f:
            f.truncate(TIB)
            for at in rng.sample(range(TIB // MIB), 1024):
                f.seek(at * MIB)
                f.write(piece)
    return path


# name: (source, its format, options, goal)
CELLS = {
    'raw to qcow2, 1 GiB': (make_raw, 'raw', ['-O', 'qcow2'], 0.95),
    'qcow2 to raw, 1 GiB': (make_qcow2, 'qcow2', ['-O', 'raw'], 0.95),
    'chain of 10 to qcow2, 1 GiB': (make_chain, 'qcow2', ['-O', 'qcow2'], 0.95),
    'sparse 1 TiB with 1 GiB to qcow2': (make_sparse, 'raw', ['-O', 'qcow2'], 0.95),
    'compress with zlib, 256 MiB': (make_small, 'raw', ['-c', '-O', 'qcow2'], 2),
    'compress with zstd, 256 MiB': (make_small, 'raw', ['-c', '-O', 'qcow2', '-o', 'compression_type=zstd'], 2),
}


def run_cell(arguments, folder, name):
    make, fmt, options, goal = CELLS[name]
    source = make(folder)
    sides = {'platter': arguments.platter, 'qemu': 'qemu-img'}
    seen = {side: [] for side in sides}
    for round_ in range(arguments.rounds + 1):
        for side, program in sides.items():
            out = f'{folder}/out'
            one = timed([program, 'convert', '-f', fmt, *options, source, out])
            if round_ > 0: # the first warms up
                seen[side].append(one)
            os.unlink(out)
    wall, cpu, memory = ([statistics.median(x[i] for x in seen[side]) for side in sides] for i in range(3))
    ratio = wall[1] / wall[0]
    print(f'{name:34}{wall[0]:8.2f}{wall[1]:8.2f}{ratio:7.2f}{cpu[0]:9.2f}{cpu[1]:8.2f}{cpu[1] / cpu[0]:7.2f}'
          f'{memory[0]:9.1f}{memory[1]:8.1f}{"" if ratio >= goal else "   below the goal"}', flush=True)
    return ratio, ratio >= goal


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--folder', help='where 3 GiB are free; a temporary folder when not given')
    parser.add_argument('--cells', help='only those in whose name one of the words is')
    parser.add_argument('--check', action='store_true')
    arguments = parser.parse_args()
    arguments.platter = os.path.join(arguments.build, 'src/tools/platter')
    words = arguments.cells.split(',') if arguments.cells else ['']
    print(f'{"":34}{"seconds":>8}{"qemu":>8}{"ratio":>7}{"CPU s":>9}{"qemu":>8}{"ratio":>7}{"MiB":>9}{"qemu":>8}')
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = [run_cell(arguments, folder, name) for name in CELLS if any(w in name for w in words)]
    mean = math.exp(statistics.mean(math.log(ratio) for ratio, _ in results))
    print(f'geometric mean of the ratios of time: {mean:.2f}')
    if arguments.check and (mean <= 1 or not all(good for _, good in results)):
        sys.exit(1)


if __name__ == '__main__':
    main()
