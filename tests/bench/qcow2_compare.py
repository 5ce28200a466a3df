#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""qcow2 beside qemu-img: operations per second and CPU per operation, in turn on equal images.

Each cell is one `bench` command line that both programs take, on an image made anew for each run where it is
written. Prints the median of the rounds, platter's ratios and their geometric mean. Three more cells have no
peer command: two queues against one, a sequential fill against dd, and compression against
`qemu-img convert -c` with one coroutine. Exit status 1 with --check when a goal is missed: level in each cell (0.97,
what the clock of a busy machine allows), ahead in the geometric mean, 1.7 times with two queues, 0.9 of dd, twice the
compression at 1.03 of the size.

usage: qcow2_compare.py BUILD [--rounds N] [--folder DIR] [--cells WORD,...] [--data FILE] [--check]
"""
import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

GIB = 1 << 30


class Run:
    """Wall and CPU seconds of a command."""

    def __init__(self, command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        self.wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.out = done.stdout
        if done.returncode != 0:
            sys.exit(f'{" ".join(command)} failed:\n{done.stdout}{done.stderr}')


def sh(*command):
    subprocess.run([str(c) for c in command], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def fresh(path, *options, size=8 * GIB):
    sh('qemu-img', 'create', '-q', '-f', 'qcow2', *options, path, size)


def make_fresh(folder):
    fresh(f'{folder}/disk.qcow2')
    return f'{folder}/disk.qcow2'


def make_overlay(folder):
    base = f'{folder}/base.raw'
    if not os.path.exists(base):
        with open(base, 'wb') as f:
            for _ in range(512):
                f.write(os.urandom(1 << 20))
    fresh(f'{folder}/over.qcow2', '-o', f'backing_file={base},backing_fmt=raw', size=512 << 20)
    return f'{folder}/over.qcow2'


def make_allocated(folder):
    path = f'{folder}/full.qcow2'
    if not os.path.exists(path):
        fresh(path, size=GIB)
        sh('qemu-img', 'bench', '-w', '-f', 'qcow2', '-c', 1024, '-d', 8, '-s', '1M', path)
    return path


def make_wide(folder):
    """Metadata for 64 GiB, no data: a read of each 512 MiB is in another L2 table."""
    path = f'{folder}/wide.qcow2'
    if not os.path.exists(path):
        fresh(path, '-o', 'preallocation=metadata', size=64 * GIB)
    return path


# name: (image, what goes before and after, requests)
CELLS = {
    'read allocated 4k, depth 64': (make_allocated, ['-d', '64', '-s', '4k'], 200000),
    'write allocated 4k, depth 64': (make_allocated, ['-w', '-d', '64', '-s', '4k'], 150000),
    'allocate 4k sequential, depth 64': (make_fresh, ['-w', '-d', '64', '-s', '4k'], 100000),
    'allocate 64k sequential, depth 16': (make_fresh, ['-w', '-d', '16', '-s', '64k'], 16000),
    'allocate 4k of each 64k, depth 32': (make_fresh, ['-w', '-d', '32', '-s', '4k', '-S', '64k'], 16000),
    'copy-on-write 4k of each 64k, depth 32': (make_overlay, ['-w', '-d', '32', '-s', '4k', '-S', '64k'], 8000),
    'copy-on-write 4k of each 320k, depth 32': (make_overlay, ['-w', '-d', '32', '-s', '4k', '-S', '320k'], 1600),
    'read, L2 cache of 256k for 64 GiB': (make_wide, ['-d', '32', '-s', '4k', '-S', '513M'], 20000),
}


def bench(program, words, image, small_cache):
    options = f'driver=qcow2,file.driver=file,file.filename={image},file.aio=io_uring'
    if small_cache:
        options += ',l2-cache-size=256k'
    return [*program, 'bench', *words, '--image-opts', options]


def run_cell(arguments, folder, name):
    make, words, requests = CELLS[name]
    sides = {'platter': [arguments.platter], 'qemu': ['qemu-img']}
    rates = {side: [] for side in sides}
    cpus = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, program in sides.items():
            image = make(folder)
            run = Run(bench(program, ['-c', str(requests), *words], image, 'L2 cache' in name))
            rates[side].append(requests / run.wall)
            cpus[side].append(run.cpu / requests * 1e6)
    rate = {side: statistics.median(rates[side]) for side in sides}
    cpu = {side: statistics.median(cpus[side]) for side in sides}
    ratios = rate['platter'] / rate['qemu'], cpu['qemu'] / cpu['platter']
    print(f'{name:42}{rate["platter"]:10.0f}{rate["qemu"]:10.0f}{ratios[0]:7.2f}{cpu["platter"]:9.2f}{cpu["qemu"]:9.2f}'
          f'{ratios[1]:7.2f}', flush=True)
    return ratios


def seconds(command):
    return float(Run(command).out.split()[0])


def queues(arguments, folder):
    image = make_allocated(folder)
    one, two = [], []
    for _ in range(arguments.rounds):
        one.append(seconds([arguments.bench, 'queues', image, '1', '400000']))
        two.append(seconds([arguments.bench, 'queues', image, '2', '400000']))
    ratio = 2 * statistics.median(one) / statistics.median(two)
    print(f'two queues / one queue, cached 4k reads: x{ratio:.2f}', flush=True)
    return ratio >= 1.7


def fill(arguments, folder):
    ours, dd = [], []
    size = 2 * GIB
    for _ in range(arguments.rounds):
        plain = f'{folder}/plain'
        run = Run(['dd', 'if=/dev/zero', f'of={plain}', 'bs=1M', f'count={size >> 20}', 'conv=fdatasync'])
        dd.append(size / run.wall)
        os.unlink(plain)
        fresh(f'{folder}/fill.qcow2')
        ours.append(size / seconds([arguments.bench, 'fill', f'{folder}/fill.qcow2', str(size)]))
        os.unlink(f'{folder}/fill.qcow2')
    ratio = statistics.median(ours) / statistics.median(dd)
    print(f'sequential fill: {statistics.median(ours) / 1e6:.0f} MB/s, dd {statistics.median(dd) / 1e6:.0f} MB/s: '
          f'x{ratio:.2f}', flush=True)
    return ratio >= 0.9


def compress(arguments, folder):
    raw = arguments.data
    if not raw:
        raw = f'{folder}/data.raw'
        with open(raw, 'wb') as f:
            subprocess.run('tar cf - /usr/lib /usr/bin 2>/dev/null | head -c 200M', shell=True, stdout=f, check=True)
            f.truncate(200 << 20)
    size = os.path.getsize(raw)
    good = True
    for kind in ('zlib', 'zstd'):
        ours, theirs = f'{folder}/ours.qcow2', f'{folder}/theirs.qcow2'
        fresh(ours, '-o', f'compression_type={kind}', size=size)
        run = Run([arguments.bench, 'compress', raw, ours, '1'])
        mine = run.wall
        other = Run(['qemu-img', 'convert', '-c', '-m', '1', '-f', 'raw', '-O', 'qcow2', '-o',
                     f'compression_type={kind}', raw, theirs]).wall
        ratio, bytes_ratio = other / mine, os.path.getsize(ours) / os.path.getsize(theirs)
        print(f'compress {kind}: {size / mine / 1e6:.0f} MB/s, convert -c -m 1 {size / other / 1e6:.0f} MB/s: '
              f'x{ratio:.2f}, size x{bytes_ratio:.3f}', flush=True)
        sh('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', ours, theirs)
        good = good and bytes_ratio <= 1.03 and (ratio >= 2 or kind != 'zlib')
    return good


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('build')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--folder')
    parser.add_argument('--cells', help='words of the cells to run; also queues, fill, compress')
    parser.add_argument('--data', help='raw file to compress; a tar of /usr/lib when not given')
    parser.add_argument('--check', action='store_true')
    arguments = parser.parse_args()
    arguments.platter = os.path.join(arguments.build, 'src/tools/platter')
    arguments.bench = os.path.join(arguments.build, 'tests/bench/bench_qcow2')
    words = arguments.cells.split(',') if arguments.cells else None

    def wanted(name):
        return words is None or any(word in name for word in words)

    good, ratios = True, []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(f'{"":42}{"platter/s":>10}{"qemu/s":>10}{"ratio":>7}{"us each":>9}{"qemu":>9}{"ratio":>7}')
        for name in filter(wanted, CELLS):
            ratios += run_cell(arguments, folder, name)
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f'geometric mean of the ratios: x{mean:.2f}')
            good = min(ratios) >= 0.97 and mean > 1
        for name, cell in (('queues', queues), ('fill', fill), ('compress', compress)):
            if wanted(name):
                good = cell(arguments, folder) and good
    sys.exit(1 if arguments.check and not good else 0)


main()
