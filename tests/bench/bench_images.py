# SPDX-License-Identifier: MIT
"""Large images for tools_compare.py, made cheaply: mostly metadata, in sparse files.

Each is a folder FOLDER/NAME with the file `disk`, and beside it the files that this one names by relative names, so a
copy of the folder is whole. Made by the installed tools, so that no program is measured on its own images. What those
cannot make quickly (a million mapped clusters out of order, leaks) is made by changing entries of a preallocated image.
"""
import array
import os
import random
import shutil
import struct
import subprocess

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MILLION = 1_000_000


def sh(*command):
    subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def create(path, size, *options, backing=None):
    over = ['-b', backing, '-F', 'qcow2'] if backing else []
    sh('qemu-img', 'create', '-q', '-f', 'qcow2', *over, *(['-o', ','.join(options)] if options else []), path, size)


def write(path, *pieces):
    """Each piece: (pattern, offset, length)."""
    for at in range(0, len(pieces), 500):
        sh('qemu-io', '-f', 'qcow2', *(x for p in pieces[at:at + 500] for x in ('-c', 'write -q -P %d %d %d' % p)), path)


def text_like(rng, size):
    """Bytes that compress to about a half: words of a small vocabulary, numbers between them."""
    words = [rng.randbytes(rng.randrange(4, 16)) for _ in range(2000)]
    out = bytearray()
    while len(out) < size:
        out += words[min(int(rng.expovariate(1 / 300)), 1999)] + rng.randbytes(3)
    return bytes(out[:size])


def edit_entries(path, change):
    """change(entries) alters the mapped entries of the L2 tables, in guest order; they go back in that order."""
    with open(path, 'r+b') as f:
        head = f.read(72)
        bits, = struct.unpack_from('>I', head, 20)
        l1_count, l1_at = struct.unpack_from('>IQ', head, 36)
        f.seek(l1_at)
        tables = [t & 0x00fffffffffffe00 for t in struct.unpack(f'>{l1_count}Q', f.read(8 * l1_count))]
        entries = array.array('Q')
        for table in tables:
            f.seek(table)
            entries.frombytes(f.read(1 << bits))
        entries.byteswap()
        count = next((i for i, e in enumerate(entries) if e == 0), len(entries))
        mapped = entries[:count]
        change(mapped)
        entries[:count] = mapped
        entries.byteswap()
        for i, table in enumerate(tables):
            f.seek(table)
            f.write(entries[i << (bits - 3):(i + 1) << (bits - 3)].tobytes())


class Images:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        """The image of that name, made when it is first asked for."""
        where = os.path.join(self.folder, name)
        disk = os.path.join(where, 'disk')
        if not os.path.exists(where):
            os.makedirs(where + '.part')
            getattr(self, 'make_' + name)(os.path.join(where + '.part', 'disk'))
            os.rename(where + '.part', where)
        return disk

    def copy(self, name, where):
        """A copy that is on the disk, so that a flush of who works on it finds only its own work."""
        source = os.path.dirname(self.path(name))
        shutil.rmtree(where, ignore_errors=True)
        sh('cp', '-r', source, where)
        for entry in os.scandir(where):
            with open(entry.path, 'rb') as f:
                os.fsync(f.fileno())
        return os.path.join(where, 'disk')

    def copy_of(self, name, disk):
        sh('cp', self.path(name), disk)

    # Plain data

    def make_raw(self, disk):
        piece = text_like(random.Random(1), 8 * MIB)
        with open(disk, 'wb') as f:
            for i in range(128):
                f.write(piece[i * 512:] + piece[:i * 512])

    def make_raw_tail(self, disk):
        """Differs from raw in the last byte."""
        self.copy_of('raw', disk)
        with open(disk, 'r+b') as f:
            f.seek(-1, os.SEEK_END)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_END)
            f.write(bytes([byte ^ 1]))

    def make_raw_small(self, disk):
        with open(self.path('raw'), 'rb') as source, open(disk, 'wb') as f:
            f.write(source.read(256 * MIB))

    def make_qcow2(self, disk):
        sh('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', self.path('raw'), disk)

    def make_compressed(self, disk):
        sh('qemu-img', 'convert', '-c', '-f', 'raw', '-O', 'qcow2', self.path('raw_small'), disk)

    def make_sparse(self, disk):
        """1 TiB with 1 GiB of data, a MiB at a time."""
        rng = random.Random(2)
        piece = text_like(rng, MIB)
        with open(disk, 'wb') as f:
            f.truncate(TIB)
            for at in rng.sample(range(TIB // MIB), 1024):
                f.seek(at * MIB)
                f.write(piece)

    def make_sparse_qcow2(self, disk):
        sh('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', self.path('sparse'), disk)

    # Chains

    def make_chain(self, disk):
        """10 layers, each with a tenth of the megabytes of 1 GiB."""
        folder = os.path.dirname(disk)
        for i in range(10):
            path = disk if i == 9 else f'{folder}/layer{i}'
            create(path, GIB, backing=f'layer{i - 1}' if i else None)
            write(path, *((i + 1, k * MIB, MIB) for k in range(i, 1024, 10)))

    def make_fine_chain(self, disk):
        """10 layers, a million extents of 4 KiB: each maps what the others do not."""
        folder = os.path.dirname(disk)
        for i in range(10):
            def only_mine(entries, mine=i):
                for k, _ in enumerate(entries):
                    if k % 10 != mine:
                        entries[k] = 0
            path = disk if i == 9 else f'{folder}/layer{i}'
            create(path, MILLION * 4 * KIB, 'cluster_size=4k', 'preallocation=metadata')
            edit_entries(path, only_mine)
            if i:
                sh('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-b', f'layer{i - 1}', '-F', 'qcow2', path)

    def make_overlay(self, disk):
        """256 MiB in an overlay over a sparse TiB."""
        folder = os.path.dirname(disk)
        create(f'{folder}/base', TIB)
        create(disk, TIB, backing='base')
        write(disk, *((k % 255 + 1, k * 4 * GIB, MIB) for k in range(256)))

    def make_rebase(self, disk):
        """An empty overlay over `old`; a quarter of `new` differs."""
        folder = os.path.dirname(disk)
        sh('cp', self.path('qcow2'), f'{folder}/old')
        sh('cp', self.path('qcow2'), f'{folder}/new')
        write(f'{folder}/new', *((7, k * 4 * MIB, MIB) for k in range(256)))
        create(disk, GIB, backing='old')

    # A million clusters

    def make_million(self, disk):
        create(disk, MILLION * 64 * KIB, 'preallocation=metadata')

    def make_million_512(self, disk):
        create(disk, MILLION * 512, 'cluster_size=512', 'preallocation=metadata')

    def make_million_4k(self, disk):
        create(disk, MILLION * 4 * KIB, 'cluster_size=4k', 'preallocation=metadata')

    def make_million_extended(self, disk):
        create(disk, MILLION * 64 * KIB, 'extended_l2=on', 'preallocation=metadata')

    def make_million_snapshots(self, disk):
        self.copy_of('million', disk)
        for name in 'abc':
            sh('qemu-img', 'snapshot', '-c', name, disk)

    def make_million_scattered(self, disk):
        """Mapped in random order: no two neighbours are one extent."""
        def shuffle(entries):
            mixed = list(entries)
            random.Random(3).shuffle(mixed)
            entries[:] = array.array('Q', mixed)
        self.copy_of('million', disk)
        edit_entries(disk, shuffle)

    def make_million_leaked(self, disk):
        """Each second cluster is mapped no more but still counted."""
        def forget(entries):
            for k in range(0, len(entries), 2):
                entries[k] = 0
        self.copy_of('million', disk)
        edit_entries(disk, forget)

    def make_million_holes(self, disk):
        self.copy_of('million_leaked', disk)
        subprocess.run(['qemu-img', 'check', '-r', 'leaks', disk], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def make_million_bitmap(self, disk):
        self.copy_of('million', disk)
        sh('qemu-img', 'bitmap', '--add', disk, 'b')

    def make_tib(self, disk):
        create(disk, TIB)

    def make_tib_bitmaps(self, disk):
        """1 TiB with two bitmaps of 64 KiB, 1 GiB of data written since."""
        create(disk, TIB)
        for name in ('one', 'two'):
            sh('qemu-img', 'bitmap', '--add', disk, name)
        write(disk, *((k % 255 + 1, k * GIB, MIB) for k in range(1024)))
