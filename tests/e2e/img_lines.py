# SPDX-License-Identifier: MIT
"""Random command lines of qemu-img, right and wrong ones, over images of many kinds."""
import os
import struct

from chance import Chance
from tools_common import run

MIB = 1 << 20

# name: format. What make() makes, and names that are not there.
IMAGES = {
    'plain.raw': 'raw', 'odd.raw': 'raw', 'empty.raw': 'raw', 'v2.qcow2': 'qcow2',
    'v3.qcow2': 'qcow2', 'ext.qcow2': 'qcow2', 'zstd.qcow2': 'qcow2', 'tiny.qcow2': 'qcow2',
    'data.qcow2': 'qcow2', 'marks.qcow2': 'qcow2', 'snaps.qcow2': 'qcow2', 'over.qcow2': 'qcow2',
    'top.qcow2': 'qcow2', 'named.qcow2': 'qcow2', 'dirty.qcow2': 'qcow2', 'corrupt.qcow2': 'qcow2',
    'leaks.qcow2': 'qcow2', 'orphan.qcow2': 'qcow2', 'cut.qcow2': 'qcow2', 'junk': 'raw',
    'missing.qcow2': 'qcow2', 'folder': 'raw',
}


def must(folder, *words):
    done = run(words, cwd=folder)
    assert done.returncode == 0, (words, done.stderr)


def create(folder, name, *options, size='1M', backing=None, backing_format='qcow2'):
    words = ['qemu-img', 'create', '-q', '-f', 'qcow2']
    for option in options:
        words += ['-o', option]
    if backing:
        words += ['-b', backing, '-F', backing_format]
    must(folder, *words, name, *([] if backing else [size]))


def io(folder, name, *commands):
    must(folder, 'qemu-io', '-f', IMAGES[name], *[w for c in commands for w in ('-c', c)], name)


def patch(folder, name, offset, data):
    with open(folder / name, 'r+b') as image:
        image.seek(offset)
        image.write(data)


def feature(folder, name, at, bit):
    """Set a bit of a feature word of the header."""
    data = (folder / name).read_bytes()
    patch(folder, name, at, struct.pack('>Q', struct.unpack_from('>Q', data, at)[0] | bit))


def make(folder):
    """All images, by the reference's programs."""
    with open(folder / 'plain.raw', 'wb') as plain:
        plain.write(bytes(range(256)) * 256)
        plain.truncate(MIB)
    (folder / 'odd.raw').write_bytes(b'odd' * 555)
    (folder / 'empty.raw').write_bytes(b'')
    (folder / 'junk').write_bytes(b'QFI\xfb' + b'junk' * 3000)
    (folder / 'folder').mkdir()
    create(folder, 'v2.qcow2', 'compat=0.10')
    create(folder, 'v3.qcow2')
    create(folder, 'ext.qcow2', 'extended_l2=on,cluster_size=128k')
    create(folder, 'zstd.qcow2', 'compression_type=zstd')
    create(folder, 'tiny.qcow2', 'cluster_size=512,refcount_bits=1')
    create(folder, 'data.qcow2', 'data_file=data.bin,data_file_raw=on')
    create(folder, 'marks.qcow2')
    create(folder, 'snaps.qcow2', 'lazy_refcounts=on')
    for name in ('v2', 'v3', 'ext', 'zstd', 'tiny', 'data', 'marks', 'snaps'):
        io(folder, f'{name}.qcow2', 'write -q -P 7 64k 128k', 'write -q -z 512k 64k')
    io(folder, 'zstd.qcow2', 'write -q -c -P 9 256k 64k')
    io(folder, 'v3.qcow2', 'write -q -c -P 9 256k 64k')
    must(folder, 'qemu-img', 'bitmap', '--add', '-g', '64k', 'marks.qcow2', 'b0')
    must(folder, 'qemu-img', 'bitmap', '--add', '--disable', 'marks.qcow2', 'b1')
    for name in ('first', '2'):
        must(folder, 'qemu-img', 'snapshot', '-c', name, 'snaps.qcow2')
        io(folder, 'snaps.qcow2', 'write -q -P 3 128k 64k')
    create(folder, 'over.qcow2', backing='v3.qcow2')
    create(folder, 'top.qcow2', backing='over.qcow2')
    create(folder, 'named.qcow2', backing='json:{"driver":"raw","offset":65536,"size":524288,'
                                          '"file":{"driver":"file","filename":"plain.raw"}}',
           backing_format='raw')
    create(folder, 'orphan.qcow2', backing='v2.qcow2')
    must(folder, 'qemu-img', 'rebase', '-u', '-b', 'gone.qcow2', '-F', 'qcow2', 'orphan.qcow2')
    io(folder, 'over.qcow2', 'write -q -P 5 0 64k', 'write -q -P 5 576k 64k')
    io(folder, 'top.qcow2', 'write -q -P 6 192k 64k')
    for name in ('dirty', 'corrupt', 'leaks', 'cut'):
        create(folder, f'{name}.qcow2', *(['lazy_refcounts=on'] if name == 'dirty' else []))
        io(folder, f'{name}.qcow2', 'write -q -P 7 0 128k')
    feature(folder, 'dirty.qcow2', 72, 1)
    feature(folder, 'corrupt.qcow2', 72, 2)
    refcounts = (folder / 'leaks.qcow2').read_bytes()
    block = struct.unpack_from('>Q', refcounts, struct.unpack_from('>Q', refcounts, 48)[0])[0]
    patch(folder, 'leaks.qcow2', block + 2 * 5, struct.pack('>H', 2))
    patch(folder, 'leaks.qcow2', block + 2 * 9, struct.pack('>H', 1))
    os.truncate(folder / 'cut.qcow2', 300000)


# Long options that have a value.
WITH_VALUE = ('--output', '--object', '--start-offset', '--max-length', '--size', '--preallocation',
              '--merge', '--flush-interval', '--pattern')


class Lines(Chance):
    """Makes lines; rng decides everything."""

    # ---- values ----

    def image(self):
        return self.pick(*IMAGES)

    def target(self):
        return self.pick('new.img', 'new.img', 'new.img', 'nowhere/new.img', *IMAGES)

    def size(self):
        return self.pick('1M', '1M', '512k', '2M', '0', '1', '511', '1000', '65537', '1.5M', '+64k',
                         '-64k', '+0', '1G', '0x100000', '1e6', '1Q', '', 'x', '-1', '1 M', '8E',
                         '16E', '1KB', ' 1M', '3T')

    def format(self):
        return self.pick('raw', 'qcow2', 'raw', 'qcow2', 'file', 'null-co', 'nosuch', '',
                         'blkdebug', 'throttle')

    def cache(self):
        return self.pick('none', 'writeback', 'writethrough', 'unsafe', 'directsync', 'off', 'foo',
                         '')

    def number(self):
        return self.pick('0', '1', '4', '16', '17', '-1', '512', '4k', '64k', '1M', 'x', '', '1.5',
                         '65536', '99999999999999999999')

    def spelled(self):
        """A number of bytes or blocks, in all spellings."""
        return self.pick('0', '1', '2', '3', '512', '512', '1k', '1K', '4k', '4K', '64k', '64K', '1M', '1m', '1.5k', '0.5M',
                         '.5k', '0x200', '0X200', '010', '1b', '512B', '512b', '1e3', '1kB', '1KiB', '4kk', '1,5', '1_0',
                         '+512', '-512', ' 512', '512 ', '', 'x', 'k', '0x', '0x1k', '0x10M', '1.5', '1.0', '0.4', '1e',
                         'inf', 'nan', '2G', '3T', '1P', '7E', '8E', '16E', '2147483647', '2147483648',
                         '9223372036854775807', '9223372036854775808', '18446744073709551615',
                         '18446744073709551616', '-0', '--1', '1 k')

    def rate(self):
        """None that takes long."""
        return self.pick('1G', '10M', '1.5M', '3T', '0x10M', '7E', '8E', '0', '', 'x', '-1', '1e9', '1KB', '16E')

    def name(self):
        return self.pick('b0', 'b1', 'first', '1', '2', 'new', '', 'none', 'x' * 300, 'a,b')

    def shown_snapshot(self):
        return self.pick('first', '1', '2', self.name(), 'snapshot.name=first', 'snapshot.id=2', 'snapshot.nosuch=1',
                         'snapshot.id=1,snapshot.name=2')

    def create_option(self):
        key = self.pick('size', 'compat', 'backing_file', 'backing_fmt', 'cluster_size', 'preallocation',
                        'lazy_refcounts', 'refcount_bits', 'extended_l2', 'compression_type',
                        'data_file', 'data_file_raw', 'nosuch', 'encryption', 'nocow',
                        'extent_size_hint')
        values = {
            'size': [self.size()], 'compat': ['0.10', '1.1', 'v2', 'v3', '2', ''],
            'backing_file': ['v3.qcow2', 'plain.raw', 'missing.qcow2', ''],
            'backing_fmt': ['qcow2', 'raw', 'nosuch', ''],
            'cluster_size': ['512', '4k', '64k', '128k', '2M', '4M', '1000', '0', 'x', '256'],
            'preallocation': ['off', 'metadata', 'falloc', 'full', 'foo', ''],
            'refcount_bits': ['1', '8', '16', '64', '3', '128', '0', 'x'],
            'compression_type': ['zlib', 'zstd', 'foo', ''],
            'data_file': ['new.bin', '', 'nowhere/x'],
            'extent_size_hint': ['0', '1M', 'x', '4095'],
        }.get(key, ['on', 'off', 'on', 'foo', '', 'yes', 'true'])
        return self.pick(key, f'{key}=') if self.chance(4) else f'{key}={self.rng.choice(values)}'

    def create_options(self):
        return ','.join(self.create_option() for _ in range(self.pick(1, 1, 2, 3)))

    def options_name(self, image):
        """An image as --image-opts has it."""
        fmt = IMAGES[image]
        return self.pick(f'driver={fmt},file.filename={image}', f'file.filename={image}',
                         f'driver={fmt},file.driver=file,file.filename={image}',
                         f'driver={fmt},file.filename={image},nosuch=1,aa=2', f'driver={fmt}',
                         f'driver=nosuch,file.filename={image}', image, 'driver=null-co,size=1M',
                         f'driver={fmt},file.filename={image},read-only=on',
                         f'driver={fmt},file.driver=blkdebug,file.image.filename={image}',
                         f'driver=raw,offset=512,size=64k,file.filename={image}')

    def named(self, image):
        """An image as a name may be spelled."""
        fmt = IMAGES[image]
        if self.chance(80):
            return image
        return self.pick(
            f'./{image}', f'file:{image}', f'nosuch:{image}', 'null-co://', 'null-aio://x', '',
            f'blkdebug::{image}', f'json:{{"driver":"{fmt}","file":{{"driver":"file",'
            f'"filename":"{image}"}}}}',
            f"json:{{'driver':'{fmt}','file.filename':'{image}'}}",
            f'json:{{"driver":"raw","offset":1024,"size":65536,"file.filename":"{image}"}}',
            f'json:{{"driver":"{fmt}","file":{{"driver":"blkdebug","image":{{"driver":"file",'
            f'"filename":"{image}"}},"inject-error":[{{"event":"none","errno":5,"once":true}}],'
            '"align":512}}',
            'json:{"driver":"null-co","size":65536,"read-zeroes":true}', 'json:{', 'json:{}',
            f'json:{{"driver":"{fmt}","zz":1,"aa":2,"file.filename":"{image}"}}')

    # ---- pieces ----

    def source(self, words):
        """-f, --image-opts and the name of an image that is read."""
        image = self.image()
        if self.chance(12):
            words.append('--image-opts')
            if self.chance(15):
                words += ['-f', self.format()]
            return self.options_name(image)
        if self.chance(60):
            words += ['-f', self.format() if self.chance(15) else IMAGES[image]]
        return self.named(image)

    def some(self, words, *options):
        """Each of (percent, words...): words may be made by a call."""
        for percent, *parts in options:
            if self.chance(percent):
                words += [p() if callable(p) else p for p in parts]

    def operands(self, words, *operands):
        """Mostly the right number."""
        operands = list(operands)
        if self.chance(3):
            operands.append('more')
        elif self.chance(3):
            operands = operands[:-1]
        words += operands

    def shuffled(self, words, operands):
        """Options also behind the operands."""
        if self.chance(8):
            return operands + words
        return words + operands

    # ---- commands ----

    def output(self, words):
        self.some(words, (50, '--output=json'), (10, '--output', 'human'), (2, '--output=foo'))

    def info(self, words):
        name = self.source(words)
        self.output(words)
        self.some(words, (25, '--backing-chain'), (15, '-U'), (2, '-x'))
        self.operands(words, name)

    def check(self, words):
        name = self.source(words)
        self.output(words)
        self.some(words, (25, '-r', lambda: self.pick('leaks', 'all', 'foo')), (15, '-q'), (10, '-U'),
                  (10, '-T', self.cache), (2, '-x'))
        self.operands(words, name)

    def map(self, words):
        name = self.source(words)
        self.output(words)
        self.some(words, (15, '--start-offset', self.size), (15, '--max-length', self.size),
                  (10, '-U'))
        self.operands(words, name)

    def measure(self, words):
        self.output(words)
        self.some(words, (70, '-O', lambda: self.pick('raw', 'qcow2', 'qcow2', self.format())),
                  (40, '-o', self.create_options), (10, '-l', self.name), (10, '-U'))
        if self.chance(30):
            self.some(words, (95, '--size', self.size))
            self.some(words, (10, self.image()))
        else:
            self.operands(words, self.source(words))

    def create(self, words):
        self.some(words, (80, '-f', lambda: self.pick('raw', 'qcow2', 'qcow2', self.format())),
                  (15, '-q'), (60, '-o', self.create_options), (10, '-o', self.create_options),
                  (25, '-b', self.image), (20, '-F', lambda: self.pick('qcow2', 'raw', 'nosuch')),
                  (10, '-u'), (2, '-x'))
        self.operands(words, *([self.target()] if self.chance(25) else [self.target(), self.size()]))

    def resize(self, words):
        name = self.source(words)
        self.some(words, (30, '--shrink'), (15, '-q'),
                  (20, '--preallocation', lambda: self.pick('off', 'metadata', 'falloc', 'full', 'foo')))
        self.operands(words, name, self.size())

    def snapshot(self, words):
        name = self.source(words)
        words[:] = [w for w in words if w != '-f' and w not in ('raw', 'qcow2')] \
            if self.chance(90) else words
        self.some(words, (90, *self.pick(('-l',), ('-c', self.name), ('-d', self.name),
                                         ('-a', self.name))), (3, '-l'), (10, '-q'), (10, '-U'))
        self.operands(words, name)

    def bitmap(self, words):
        name = self.source(words)
        for _ in range(self.pick(1, 1, 1, 2, 3, 0)):
            words += self.pick(['--add'], ['--remove'], ['--clear'], ['--enable'], ['--disable'],
                               ['--merge', self.name()])
        self.some(words, (25, '-g', lambda: self.pick('64k', '512', '100', 'x', '0', '4G')),
                  (8, '-b', self.image), (4, '-F', self.format))
        self.operands(words, name, self.name())

    def compare(self, words):
        one = self.source(words)
        self.some(words, (30, '-F', lambda: self.pick('raw', 'qcow2', self.format())), (20, '-s'),
                  (10, '-q'), (10, '-p'), (10, '-T', self.cache), (10, '-U'))
        two = self.image()
        self.operands(words, one, self.options_name(two) if '--image-opts' in words and self.chance(70) else self.named(two))

    def convert(self, words):
        name = self.source(words)
        self.some(words, (80, '-O', lambda: self.pick('raw', 'qcow2', 'qcow2', self.format())),
                  (30, '-o', self.create_options), (15, '-c'), (10, '-S', lambda: self.pick(self.number(), self.spelled())),
                  (10, '-t', self.cache), (10, '-T', self.cache), (15, '-W'),
                  (15, '-m', lambda: self.pick('1', '2', '16', self.number(), self.spelled())),
                  self.pick((8, '-n'), (8, '-n'), (8, '-n'), (100, '-n', '--target-is-zero')),
                  (10, '-U'), (6, '-B', self.image), (4, '-F', self.format), (6, '-l', self.shown_snapshot),
                  (6, '--bitmaps'), (3, '--skip-broken-bitmaps'), (5, '--salvage'),
                  (5, '--target-is-zero'), (8, '-p'), (10, '-q'), (5, '-C'),
                  (6, '-r', self.rate), (4, '--target-image-opts'))
        self.operands(words, name, *[self.image() for _ in range(self.pick(1, 1, 2) if self.chance(8) else 0)], self.target())

    def dd(self, words):
        self.some(words, (60, '-f', lambda: self.pick('raw', 'qcow2', self.format())),
                  (60, '-O', lambda: self.pick('raw', 'qcow2', self.format())), (10, '-U'))
        self.some(words, (10, '--image-opts'))
        source = self.image()
        name = self.options_name(source) if '--image-opts' in words else self.named(source)
        operands = [f'if={name}', f'of={self.target()}']
        block = self.pick('512', '4k', '64k', '1M', self.spelled(), self.spelled())
        slow = name.startswith('null-') or block.strip(' +') in ('1', '1b', '2', '3', '1.0', '010') # for the reference
        self.some(operands, (40, f'bs={block}'),
                  (100 if slow else 30, 'count=' + ('99' if slow else self.pick(self.number(), self.spelled()))),
                  (30, 'skip=' + self.pick(self.number(), self.spelled())), (2, 'foo=1'), (2, 'foo'),
                  (2, 'seek=1'), (1, 'bs'), (1, '=x'), (2, 'count=1'))
        self.rng.shuffle(operands)
        self.operands(words, *operands)

    def rebase(self, words):
        name = self.source(words) if self.chance(60) else self.pick('over.qcow2', 'top.qcow2', 'named.qcow2', 'orphan.qcow2')
        self.some(words, (85, '-b', lambda: self.pick('', self.image(), self.named(self.image()))), (10, '-q'), (10, '-p'),
                  (60, '-F', lambda: self.pick('raw', 'qcow2', self.format())), (40, '-u'),
                  (10, '-t', self.cache), (10, '-T', self.cache), (10, '-U'))
        self.operands(words, name)

    def commit(self, words):
        name = self.source(words) if self.chance(60) else self.pick('over.qcow2', 'top.qcow2', 'named.qcow2', 'orphan.qcow2')
        self.some(words, (25, '-b', lambda: self.pick('v3.qcow2', 'over.qcow2', self.image(), self.named(self.image()))), (25, '-d'),
                  (10, '-q'), (10, '-p'), (15, '-t', self.cache), (15, '-r', self.rate))
        self.operands(words, name)

    def amend(self, words):
        name = self.source(words)
        self.some(words, (90, '-o', self.create_options), (5, '-o', self.create_options), (10, '-q'), (10, '-p'), (10, '--force'),
                  (10, '-t', self.cache))
        self.operands(words, name)

    def bench(self, words):
        name = self.source(words)
        count = lambda: self.pick('1', '2', '5', '5', '0', '-1', 'x', '', '1k', '99999999999')
        self.some(words, (12, '-d', lambda: self.pick('1', '2', '8', 'x', '-1')), (40, '-w'),
                  (15, '-o', self.size), (20, '-s', lambda: self.pick('512', '4k', '1', '100', '0', '3G', 'x', '1M')),
                  (20, '-S', lambda: self.pick('0', '512', '64k', '1', 'x', '3G', '-1')), (10, '-n'),
                  (10, '-t', self.cache), (10, '-q'), (10, '-U'), (8, '--no-drain'),
                  (10, '--flush-interval', lambda: self.pick('1', '2', '0', 'x', '-1')),
                  (10, '--pattern', lambda: self.pick('0', '7', '255', '256', 'x', '0x10')),
                  (6, '-i', lambda: self.pick('threads', 'io_uring', 'native', 'foo')))
        words += ['-c', count() if self.chance(30) else '3'] # not the 75000 that are the default
        self.operands(words, name)

    # ---- how a line may be written ----

    def joined(self, words):
        """An option and its value as one word."""
        out = []
        for word in words:
            if out and self.chance(8) and not word.startswith('-') and word:
                last = out[-1]
                if last.startswith('--') and '=' not in last and last in WITH_VALUE:
                    out[-1] = f'{last}={word}'
                    continue
                if len(last) == 2 and last[0] == '-' and last[1] in 'fFObBoStTm':
                    out[-1] = last + word
                    continue
            out.append(word)
        return out

    def cut(self, word):
        """A long option with less of its name."""
        name, equals, value = word.partition('=')
        if not word.startswith('--') or len(name) < 6 or not self.chance(10):
            return word
        return name[:self.rng.randrange(4, len(name))] + equals + value

    def twice(self, words):
        """Some option once more, with what follows it."""
        at = [i for i, word in enumerate(words) if word.startswith('-') and len(word) > 1]
        if not at:
            return words
        i = self.rng.choice(at)
        piece = words[i:i + 1]
        if i + 1 < len(words) and not words[i + 1].startswith('-') and \
                (words[i] in WITH_VALUE or words[i][1:] in tuple('fFObBoStTm')):
            piece = words[i:i + 2]
        j = self.rng.choice(at)
        return words[:j] + piece + words[j:]

    def written(self, words):
        if self.chance(5):
            words = ['--object', self.pick('secret,id=s0,data=x', 'secret,id=s0', 'secret,id=s0,data=x,format=foo',
                                           'nosuch,id=a', 'secret', '', 'secret,id=1,data=x', 'secret,id=s0,file=nosuch',
                                           'throttle-group,id=g0', '{"qom-type":"secret","id":"s0","data":"x"}'),
                     *words]
        if self.chance(6):
            words = self.twice(words)
        words = [self.cut(word) for word in self.joined(words)]
        if self.chance(2):
            words.append(self.pick('-f', '-O', '-o', '--output', '--object', '-b', '-c', '-x', '--nosuch', '--',
                                   '--image-opts=1', '-', '--output=', '--he'))
        return words

    COMMANDS = ('bench', 'info', 'check', 'map', 'measure', 'create', 'resize', 'snapshot', 'bitmap',
                'compare', 'convert', 'dd', 'rebase', 'commit', 'amend')

    def line(self, command):
        words = []
        getattr(self, command)(words)
        return [command, *self.written(words)]
