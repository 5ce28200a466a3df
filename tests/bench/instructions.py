#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""User-space instructions per request of `platter bench` beside the installed `qemu-img bench`.

Counts are callgrind's, taken as the difference of two run lengths, so that start and end cancel out:
the same on a busy machine and an idle one. Fails when a count is above its budget.

    tests/bench/instructions.py PLATTER [--qemu-img PATH]
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

SHORT, LONG = 2000, 10000
NULL_READ = 400 # with accounting and an idle throttle group too
# name, budget, arguments after "bench", which image is needed
CASES = [
    ('read, null driver', NULL_READ, ['--image-opts', 'driver=null-co,size=1G'], None),
    ('read, raw file in page cache, io_uring', 900, ['-f', 'raw', '-i', 'io_uring'], 'raw'),
    ('write, raw file in page cache, io_uring', None, ['-f', 'raw', '-i', 'io_uring', '-w'], 'raw'),
    ('read, allocated qcow2, io_uring', 1100, ['-f', 'qcow2', '-i', 'io_uring'], 'qcow2'),
    ('write, allocated qcow2, io_uring', 1400, ['-f', 'qcow2', '-i', 'io_uring', '-w'], 'qcow2'),
]


def instructions(command):
    done = subprocess.run(['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null'] + command,
                          capture_output=True, text=True, check=False)
    found = re.search(r'Collected : (\d+)', done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f'{" ".join(command)} failed:\n{done.stdout}{done.stderr}')
    return int(found.group(1))


def per_request(program, arguments, image):
    # Options first, the image last: both programs read that.
    counts = []
    for count in (SHORT, LONG):
        command = [*program, 'bench', '-c', str(count), '-d', '64', '-s', '4096']
        if '--image-opts' in arguments:
            command += ['--image-opts', *[a for a in arguments if a != '--image-opts']]
        else:
            command += arguments
        counts.append(instructions(command + ([image] if image else [])))
    return (counts[1] - counts[0]) / (LONG - SHORT)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('platter')
    parser.add_argument('--qemu-img', default='qemu-img')
    parser.add_argument('--only-platter', action='store_true')
    parser.add_argument('--bench-backend', help='bench_backend of the same build: what a read costs '
                        'with accounting and an idle throttle group')
    options = parser.parse_args()
    over = False
    print(f'{"instructions per 4 KiB request, depth 64":44}{"platter":>9}{"budget":>8}'
          f'{"qemu-img":>10}{"ratio":>7}')
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        image = os.path.join(folder, 'disk.raw')
        with open(image, 'wb') as disk:
            for _ in range(64):
                disk.write(os.urandom(1 << 20))
        qcow2 = os.path.join(folder, 'disk.qcow2')
        subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, qcow2], check=True)
        images = {'raw': image, 'qcow2': qcow2, None: None}
        for name, budget, arguments, needs in CASES:
            ours = per_request([options.platter], arguments, images[needs])
            line = f'{name:44}{ours:9.0f}{budget if budget else "-":>8}'
            if not options.only_platter:
                theirs = per_request([options.qemu_img], arguments, images[needs])
                line += f'{theirs:10.0f}{theirs / ours:7.1f}'
            print(line, flush=True)
            over = over or (budget is not None and ours > budget)
        plain = 0
        for what in ('plain', 'accounting', 'throttle', 'both') if options.bench_backend else ():
            counts = [instructions([options.bench_backend, what, str(n)]) for n in (SHORT, LONG)]
            ours = (counts[1] - counts[0]) / (LONG - SHORT)
            plain = plain or ours
            print(f'{"null read at a backend, " + what:44}{ours:9.0f}{NULL_READ:>8}{ours - plain:+10.0f}',
                  flush=True)
            over = over or ours > NULL_READ
    sys.exit(1 if over else 0)


main()
