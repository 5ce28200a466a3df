# SPDX-License-Identifier: MIT
"""Random programs of operations on one qcow2 image, run by platter and by QEMU's tools in turn.

After each step the disk's content is compared with a model in plain memory by both readers, and both
checkers must call the image clean. Operations that one side refuses must be refused by the other, which
is asked on a copy. A program is a function of its seed alone:

    tests/e2e/qcow2_program.py [--seed N] [--programs N] [--steps N] [--verbose]     (PLATTER_BIN set)
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile

from tools_common import guessing

SECTOR = 512
TOOL_SECONDS = 120
# What images are made with; one of each group by chance.
CLUSTERS = [512, 1024, 4096, 16384, 65536, 65536, 65536, 2 << 20]


class Failure(Exception):
    pass


class Side:
    """One of the two implementations, by its command lines."""

    def __init__(self, name):
        self.name = name
        self.compresses_anywhere = name == 'platter'  # the reference: only where nothing is allocated
        self.platter = os.environ.get('PLATTER_BIN')

    def command(self, tool, *arguments):
        if self.name == 'qemu':
            return [f'qemu-{tool}' if tool == 'io' else 'qemu-img', *(() if tool == 'io' else (tool,)), *arguments]
        return [self.platter, *guessing(tool, *arguments)]

    def run(self, tool, *arguments):
        done = subprocess.run(self.command(tool, *map(str, arguments)), capture_output=True, text=True,
                              check=False, timeout=TOOL_SECONDS, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout + done.stderr


OURS, THEIRS = Side('platter'), Side('qemu')


class Disk:
    """What the disk must hold."""

    def __init__(self, size):
        self.now = bytearray(size)

    def fill(self, offset, length, pattern):
        self.now[offset:offset + length] = bytes([pattern]) * length

    def runs(self):
        """(offset, length, pattern) of equal bytes."""
        at = 0
        while at < len(self.now):
            byte = self.now[at]
            end = at + 1
            step = 1
            while end < len(self.now) and self.now[end] == byte:
                # double while a whole piece is equal
                piece = self.now[end:end + step]
                if piece == bytes([byte]) * len(piece):
                    end += len(piece)
                    step *= 2
                elif step > 1:
                    step = 1
                else:
                    break
            yield at, end - at, byte
            at = end


class Program:
    def __init__(self, seed, folder, steps, verbose=False):
        self.seed = seed
        self.rng = random.Random(seed)
        self.folder = folder
        self.steps = steps
        self.verbose = verbose
        self.log = []
        self.snapshots = {}
        self.bitmaps = set()
        self.names = 0

    # ---- making the image ----

    def path(self, name):
        return os.path.join(self.folder, name)

    def make(self):
        rng = self.rng
        cluster = rng.choice(CLUSTERS)
        options = {'cluster_size': cluster}
        clusters = rng.randint(3, 80) if cluster < 65536 else rng.randint(3, 24)
        if cluster == 2 << 20:
            clusters = rng.randint(2, 3)
        size = cluster * clusters + rng.choice([0, 0, 0, SECTOR, max(SECTOR, cluster // 2)])
        self.compat = '0.10' if rng.random() < 0.15 else '1.1'
        options['compat'] = self.compat
        self.external = self.raw = False
        if self.compat == '1.1':
            options['refcount_bits'] = rng.choice([1, 2, 4, 8, 16, 16, 16, 32, 64])
            if rng.random() < 0.25:
                options['lazy_refcounts'] = 'on'
            if cluster >= 16384 and rng.random() < 0.3:
                options['extended_l2'] = 'on'
            if rng.random() < 0.3:
                options['compression_type'] = 'zstd'
            if rng.random() < 0.12:
                self.external = True
                options['data_file'] = self.path('data.raw')
                self.raw = rng.random() < 0.5
                if self.raw:
                    options['data_file_raw'] = 'on'
        self.refcount_bits = options.get('refcount_bits', 16)
        self.zstd = options.get('compression_type') == 'zstd'
        self.backing = None
        if rng.random() < 0.5 and not self.raw:
            self.backing = rng.choice(['raw', 'qcow2'])
        elif rng.random() < 0.3:
            options['preallocation'] = rng.choice(['metadata', 'falloc', 'full'])
        self.cluster = cluster
        self.disk = Disk(size)
        self.image = self.path('image.qcow2')
        if self.backing:
            self.make_backing(size, options)
        text = ','.join(f'{k}={v}' for k, v in options.items())
        side = rng.choice([OURS, THEIRS])
        self.must(side, 'create', '-q', '-f', 'qcow2', '-o', text, self.image, size)

    def make_backing(self, size, options):
        rng = self.rng
        other = max(SECTOR, size + rng.choice([0, 0, -1, 1]) * rng.randint(1, 4) * self.cluster)
        path = self.path('base.' + self.backing)
        self.base = Disk(other)
        self.must(THEIRS, 'create', '-q', '-f', self.backing, path, other)
        commands = []
        for _ in range(rng.randint(0, 4)):
            offset, length = self.range_of(self.base, False)
            pattern = rng.randint(1, 255)
            self.base.fill(offset, length, pattern)
            commands += ['-c', f'write -P {pattern} {offset} {length}']
        if commands:
            self.must(THEIRS, 'io', '-f', self.backing, *commands, path)
        self.disk.now[:other] = self.base.now[:size]
        options['backing_file'] = path
        options['backing_fmt'] = self.backing

    # ---- running ----

    def note(self, text):
        self.log.append(text)
        if self.verbose:
            print(text, flush=True)

    def run_side(self, side, tool, *arguments):
        code, text = side.run(tool, *arguments)
        self.note(f'{" ".join(side.command(tool, *map(str, arguments)))}  -> {code}')
        return code, text

    def must(self, side, tool, *arguments):
        code, text = self.run_side(side, tool, *arguments)
        if code != 0:
            raise Failure(f'{side.name} {tool} failed ({code}): {text.strip()}')
        return text

    def both_say(self, side, tool, *arguments):
        """Run by side; the other one, on a copy, must agree whether it can be done."""
        other = THEIRS if side is OURS else OURS
        copies = {}
        for name in os.listdir(self.folder):
            path = self.path(name)
            if os.path.isfile(path):
                copies[path] = path + '.copy'
                shutil.copyfile(path, path + '.copy')
                shutil.copyfile(path, path + '.before')
        code, text = self.run_side(side, tool, *arguments)
        for path, copy in copies.items():  # the other works on the files as they were
            done = path + '.done'
            os.rename(path, done)
            os.rename(copy, path)
        other_code, other_text = self.run_side(other, tool, *arguments)
        for path in copies:
            # What the reference cannot do leaves leaks behind.
            undo = side is THEIRS and code != 0
            os.rename(path + ('.before' if undo else '.done'), path)
            os.remove(path + ('.done' if undo else '.before'))
        if (code == 0) != (other_code == 0):
            raise Failure(f'{tool} {arguments}: {side.name} says {code} ({text.strip()}), {other.name} '
                          f'{other_code} ({other_text.strip()})')
        return code == 0

    # ---- steps ----

    def range_of(self, disk, whole_clusters):
        rng = self.rng
        size = len(disk.now)
        if whole_clusters:
            count = (size + self.cluster - 1) // self.cluster
            first = rng.randrange(count)
            last = min(count, first + rng.choice([1, 1, 1, 2, 5]))
            return first * self.cluster, min(size, last * self.cluster) - first * self.cluster
        grain = rng.choice([SECTOR, SECTOR, 4096, self.cluster])
        offset = min(rng.randrange(size) // grain * grain, size - 1)
        length = rng.choice([SECTOR, 4096, self.cluster, 3 * self.cluster, rng.randint(1, 2 * self.cluster)])
        return offset, max(1, min(length, size - offset))

    def io_commands(self, side):
        rng = self.rng
        commands = []
        for _ in range(rng.randint(1, 8)):
            what = rng.random()
            if what < 0.5:
                offset, length = self.range_of(self.disk, False)
                pattern = rng.randint(0, 255)
                self.disk.fill(offset, length, pattern)
                commands.append(f'write -P {pattern} {offset} {length}')
            elif what < 0.68:
                offset, length = self.range_of(self.disk, rng.random() < 0.6)
                self.disk.fill(offset, length, 0)
                commands.append(f'write -z{rng.choice(["", "u"])} {offset} {length}')
            elif what < 0.82:
                offset, length = self.range_of(self.disk, True)
                if self.compat == '1.1' or not self.backing:
                    self.disk.fill(offset, length, 0)
                commands.append(f'discard {offset} {length}')
            elif what < 0.95 and not self.external and side.compresses_anywhere:
                offset, length = self.range_of(self.disk, True)
                pattern = rng.randint(0, 255)
                self.disk.fill(offset, length, pattern)
                commands.append(f'write -c -P {pattern} {offset} {length}')
            else:
                commands.append('flush')
        return [word for command in commands for word in ('-c', command)]

    def step_io(self, side):
        commands = self.io_commands(side)
        text = self.must(side, 'io', '-f', 'qcow2', '-d', 'unmap', *commands, self.image)
        if 'failed' in text:
            raise Failure(f'{side.name}: {text}')

    def step_compressed(self, side):
        """One cluster, which may be refused."""
        if self.external:
            return
        offset, length = self.range_of(self.disk, True)
        length = min(length, self.cluster)
        pattern = self.rng.randint(0, 255)
        command = f'write -c -P {pattern} {offset} {length}'
        if side.compresses_anywhere:
            self.must(side, 'io', '-f', 'qcow2', '-c', command, self.image)
        elif self.run_side(side, 'io', '-f', 'qcow2', '-c', command, self.image)[0] != 0:
            return
        self.disk.fill(offset, length, pattern)

    def step_snapshot(self, side):
        rng = self.rng
        what = rng.random()
        if not self.snapshots or what < 0.5:
            self.names += 1
            name = f's{self.names}'
            if self.both_say(side, 'snapshot', '-c', name, self.image):
                self.snapshots[name] = bytes(self.disk.now)
        elif what < 0.75:
            name = rng.choice(sorted(self.snapshots))
            if self.snapshots[name] is None:
                return
            if self.both_say(side, 'snapshot', '-a', name, self.image):
                self.disk.now = bytearray(self.snapshots[name])
        else:
            name = rng.choice(sorted(self.snapshots))
            if self.both_say(side, 'snapshot', '-d', name, self.image):
                del self.snapshots[name]

    def step_resize(self, side):
        size = len(self.disk.now)
        new = max(SECTOR, size + self.rng.randint(-4, 6) * self.cluster + self.rng.choice([0, 0, SECTOR]))
        shrink = ['--shrink'] if new < size else []
        if self.both_say(side, 'resize', '-q', '-f', 'qcow2', *shrink, self.image, new):
            self.disk.now[new:] = b''
            self.disk.now.extend(bytes(new - len(self.disk.now)))

    def step_bitmap(self, side):
        rng = self.rng
        if not self.bitmaps or rng.random() < 0.5:
            self.names += 1
            name = f'b{self.names}'
            if self.both_say(side, 'bitmap', '--add', '-f', 'qcow2', self.image, name):
                self.bitmaps.add(name)
            return
        name = rng.choice(sorted(self.bitmaps))
        what = rng.choice(['--remove', '--clear', '--enable', '--disable'])
        done = self.both_say(side, 'bitmap', what, '-f', 'qcow2', self.image, name)
        if done and what == '--remove':
            self.bitmaps.discard(name)

    def step_amend(self, side):
        option = self.rng.choice(['lazy_refcounts=on', 'lazy_refcounts=off', 'refcount_bits=16', 'refcount_bits=64',
                                  'refcount_bits=8', 'compat=1.1', 'compat=0.10'])
        if option == 'compat=0.10' and self.bitmaps:
            return  # the reference drops what says that they can be trusted; platter refuses
        if option == 'compat=0.10' and self.zstd:
            return  # version 2 cannot say what its clusters are compressed with; platter refuses
        if option.startswith('refcount') and self.cluster == 2 << 20:
            return  # the reference counts all that a block of so many counts could hold: minutes
        if self.both_say(side, 'amend', '-q', '-f', 'qcow2', '-o', option, self.image):
            if option.startswith('compat'):
                self.compat = option.partition('=')[2]

    def step_commit(self, side):
        if not self.backing or self.external:
            return
        if self.both_say(side, 'commit', '-q', '-f', 'qcow2', self.image):
            size = len(self.disk.now)
            if len(self.base.now) < size:
                self.base.now.extend(bytes(size - len(self.base.now)))
            self.base.now[:size] = self.disk.now
            # What snapshots show of the backing file has changed under them.
            self.snapshots = dict.fromkeys(self.snapshots)

    def verify(self):
        # A program's argument list has an end: many runs go in several calls.
        reads = [f'read -P {pattern} {offset} {length}' for offset, length, pattern in self.disk.runs()]
        for side in (OURS, THEIRS):
            for first in range(0, len(reads), 400):
                commands = [word for read in reads[first:first + 400] for word in ('-c', read)]
                code, text = side.run('io', '-r', '-f', 'qcow2', *commands, self.image)
                if code != 0 or 'failed' in text:
                    bad = [line for line in text.splitlines() if 'failed' in line or 'rror' in line][:3]
                    raise Failure(f'{side.name} reads other content: {bad or text[-300:]}')
            code, text = side.run('check', '-q', '-f', 'qcow2', self.image)
            if code != 0:
                code, text = side.run('check', '-f', 'qcow2', self.image)
                raise Failure(f'{side.name} check says {code}: {text.strip()[:600]}')

    def run(self):
        try:
            self.make()
            self.verify()
            for _ in range(self.steps):
                side = self.rng.choice([OURS, OURS, THEIRS])
                step = self.rng.choices([self.step_io, self.step_compressed, self.step_snapshot, self.step_resize,
                                         self.step_bitmap, self.step_amend, self.step_commit],
                                        [52, 10, 14, 8, 7, 4, 5])[0]
                step(side)
                self.verify()
        except (Failure, subprocess.TimeoutExpired) as e:
            raise Failure(f'seed {self.seed}: {e}\n  ' + '\n  '.join(self.log)) from None


def run_program(seed, steps, folder, verbose=False):
    Program(seed, folder, steps, verbose).run()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n', maxsplit=1)[0])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--programs', type=int, default=100)
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--keep-going', action='store_true')
    parser.add_argument('--verbose', action='store_true')
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.programs):
        with tempfile.TemporaryDirectory(prefix='platter-program') as folder:
            try:
                run_program(seed, arguments.steps, folder, arguments.verbose)
            except Failure as e:
                failed += 1
                print(e, flush=True)
                if not arguments.keep_going:
                    break
    print(f'{arguments.programs} programs from seed {arguments.seed}, {failed} failed')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
