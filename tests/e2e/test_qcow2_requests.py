# SPDX-License-Identifier: MIT
"""Reads, writes, zeroes, discards and compressed writes of qcow2 beside the reference.

Random programs of requests, run by platter io and qemu-io in turn on one image: after each turn both
must read what a model in memory holds, qemu-img check must find nothing, and both maps must be the
same. Programs of plain writes, run by each on a copy: the files must be the same, byte by byte.

Each shape of image has its own seed. PLATTER_SEED=N runs others, PLATTER_ROUNDS=N more of them.
"""
import json
import os
import random
import shutil

import pytest

from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

SHAPES = ['cluster_size=64k', 'cluster_size=512', 'cluster_size=4k,compat=0.10',
          'cluster_size=4k,lazy_refcounts=on,refcount_bits=1', 'cluster_size=2M',
          'cluster_size=16k,extended_l2=on', 'cluster_size=64k,extended_l2=on,compression_type=zstd',
          'cluster_size=4k,data_file=DATA', 'cluster_size=4k,data_file=DATA,data_file_raw=on']
SEED = int(os.environ.get('PLATTER_SEED', '1'))
ROUNDS = int(os.environ.get('PLATTER_ROUNDS', '1'))
UNIT = {'512': 512, '4k': 4096, '16k': 16384, '64k': 65536, '2M': 2 << 20}


def ok(done):
    text = f'{done.args}\n{done.stdout}{done.stderr}'
    assert done.returncode == 0 and 'failed' not in text, text
    return done


def commands(texts):
    return [word for text in texts for word in ('-c', text)]


def extents(done):
    """A map, joined; how zero data is found below, and how deep what nobody holds is, is left out."""
    out = []
    for extent in json.loads(ok(done).stdout):
        extent.pop('compressed', None)
        extent['zero'] |= extent['data']
        if not extent['present']:
            extent['depth'] = 0
        if extent.get('offset') == 0 and not extent['data']:  # the reference takes 0 for none
            del extent['offset']
        last = out[-1] if out else None
        same = last and all(last[k] == extent[k] for k in ('depth', 'present', 'zero', 'data'))
        if same and last.get('offset', -1) == extent.get('offset', -1) - (
                last['length'] if 'offset' in last else 0):
            last['length'] += extent['length']
        else:
            out.append(extent)
    return out


class Program:
    def __init__(self, folder, shape, seed):
        self.folder, self.seed = folder, seed
        self.image = folder / 'image.qcow2'
        self.random = random.Random(f'{shape} {seed}')
        self.unit = UNIT[shape.split(',')[0].split('=')[1]]
        self.external = 'data_file=' in shape
        self.version_2 = 'compat=0.10' in shape
        self.size = min(self.random.randrange(1, 60) * max(self.unit, 65536), 24 << 20)
        self.size = min(self.size, 4096 * self.unit)
        if self.random.random() < .5:
            self.size -= self.random.randrange(min(self.unit, self.size) // 512) * 512
        self.model = bytearray(self.size)
        self.log = [f'{shape} seed {seed} size {self.size}']
        below = [] if 'data_file_raw' in shape or self.random.random() < .5 else self.backing()
        self.has_backing = bool(below)
        ok(qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o',
                shape.replace('DATA', str(folder / 'data.raw')), *below, self.image, self.size))

    def backing(self):
        kind = self.random.choice(['raw', 'qcow2'])
        size = self.random.choice([self.size, self.size // 1024 * 512 + 512, self.size + 70144])
        path = self.folder / f'base.{kind}'
        texts = []
        for _ in range(self.random.randrange(1, 6)):
            offset = self.random.randrange(size // 512) * 512
            length = min(self.random.randrange(1, 400) * 512, size - offset)
            byte = self.random.randrange(1, 255)
            texts.append(f'write -P {byte} {offset} {length}')
            end = max(offset, min(offset + length, self.size))
            self.model[offset:end] = bytes([byte]) * (end - offset)
        ok(qemu('qemu-img', 'create', '-q', '-f', kind, path, size))
        ok(qemu('qemu-io', '-f', kind, *commands(texts), path))
        self.log += texts + [f'above {kind} of {size}']
        return ['-b', path, '-F', kind]

    def range(self):
        r = self.random
        offset = r.randrange(self.size // 512) * 512
        if r.random() < .3:
            offset = offset // self.unit * self.unit
        few = max(2, min(self.size, 8 * self.unit) // 512)
        length = r.choice([512, 4096, r.randrange(1, 64) * 512, self.unit, r.randrange(1, few) * 512])
        if r.random() < .15:
            offset += r.randrange(512)
            length = max(1, length - r.randrange(511))
        return offset, min(length, self.size - offset)

    def whole(self, offset, length):
        """Whole clusters inside the range."""
        start = (offset + self.unit - 1) // self.unit * self.unit
        end = (offset + length) // self.unit * self.unit
        return start, max(0, end - start)

    def write(self, offset, length):
        byte = self.random.randrange(1, 255)
        self.model[offset:offset + length] = bytes([byte]) * length
        return f'write -P {byte} {offset} {length}'

    def request(self, ours):
        offset, length = self.range()
        kind = self.random.random()
        if kind < .5:
            return self.write(offset, length)
        if kind < .72:
            self.model[offset:offset + length] = bytes(length)
            return f'write -z{"u" if kind > .62 else ""} {offset} {length}'
        if kind < .8 and ours and not self.external:
            offset = offset // self.unit * self.unit
            length = min(self.unit * self.random.randrange(1, 4), self.size - offset)
            return self.write(offset, length).replace('write', 'write -c')
        offset, length = self.whole(offset, length)
        if kind < .92 and length:
            if not (self.version_2 and self.has_backing):
                self.model[offset:offset + length] = bytes(length)
            return f'discard {offset} {length}'
        return 'flush'

    def turn(self):
        ours = self.random.random() < .65
        texts = [self.request(ours) for _ in range(self.random.randrange(1, 14))]
        self.log += [('platter ' if ours else 'qemu-io ') + t for t in texts]
        arguments = ['-d', 'unmap', '-f', 'qcow2', *commands(texts), self.image]
        if ours:
            ok(platter('io', '--image-refs', 'follow', *arguments))
        else:
            ok(qemu('qemu-io', *arguments))

    def compare(self):
        raw = self.folder / 'disk.raw'
        ok(qemu('qemu-img', 'check', self.image))
        ok(qemu('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', self.image, raw))
        assert raw.read_bytes() == bytes(self.model)
        ok(platter('compare', '--image-refs', 'follow', '-f', 'qcow2', '-F', 'raw', self.image, raw))
        ours = extents(platter('map', '--image-refs', 'follow', '--output=json', '-f', 'qcow2',
                               self.image))
        assert ours == extents(qemu('qemu-img', 'map', '--output=json', '-f', 'qcow2', self.image))


@pytest.mark.parametrize('shape', SHAPES)
def test_random_programs_in_turn(tmp_path, shape):
    for seed in range(SEED, SEED + ROUNDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        program = Program(folder, shape, seed)
        try:
            for _ in range(program.random.randrange(2, 6)):
                program.turn()
                program.compare()
        except AssertionError:
            print('\n'.join(program.log))
            raise
        shutil.rmtree(folder)


@pytest.mark.parametrize('shape', [s for s in SHAPES if 'data_file' not in s])
def test_writes_lay_the_file_out_the_same(tmp_path, shape):
    for seed in range(SEED, SEED + ROUNDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        program = Program(folder, shape, seed)
        theirs = shutil.copy(program.image, folder / 'theirs.qcow2')
        texts = [program.write(*program.range()) for _ in range(program.random.randrange(1, 12))]
        ok(platter('io', '--image-refs', 'follow', '-f', 'qcow2', *commands(texts), program.image))
        ok(qemu('qemu-io', '-f', 'qcow2', *commands(texts), theirs))
        assert program.image.read_bytes() == (folder / 'theirs.qcow2').read_bytes(), \
            '\n'.join(program.log + texts)
        shutil.rmtree(folder)


@pytest.mark.parametrize('shape', ['cluster_size=64k', 'cluster_size=16k,extended_l2=on', 'cluster_size=4k,compat=0.10'])
@pytest.mark.parametrize('backing', [False, True])
def test_zeroes_of_a_part(tmp_path, shape, backing):
    """What is left of a cluster is looked at: zero already, or in a hole of the file below; the last one ends with the
    disk, which is no multiple of it."""
    size = 1049088
    writes = ['1048676 412', '1048600 100', '983140 412', '900000 5000', '65036 1000', '0 512', '4000 200', '70000 70000']
    with open(tmp_path / 'base.raw', 'wb') as f:
        f.truncate(size)
        f.seek(70000)
        f.write(b'x' * 5000)
    files = {}
    for name, run in (('ours', lambda *a: platter('io', '--image-refs=follow', *a, cwd=tmp_path)),
                      ('theirs', lambda *a: qemu('qemu-io', *a, cwd=tmp_path))):
        chain = ['-b', 'base.raw', '-F', 'raw'] if backing else []
        ok(qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', shape, *chain, name, str(size), cwd=tmp_path))
        for write in writes:
            ok(run('-f', 'qcow2', '-c', f'write -z {write}', name))
        ok(qemu('qemu-img', 'check', '-q', '-f', 'qcow2', name, cwd=tmp_path))
        files[name] = extents(qemu('qemu-img', 'map', '--output=json', '-f', 'qcow2', name, cwd=tmp_path))
    assert files['ours'] == files['theirs']
    ok(qemu('qemu-img', 'compare', '-q', 'ours', 'theirs', cwd=tmp_path))
