# SPDX-License-Identifier: MIT
"""Random programs of io commands, right and wrong ones. What is left out on purpose: abort and
sigraise, which end the program; waiting for a breakpoint that nothing comes to, and a request that
waits at its own, which wait for ever; requests in flight side by side whose end is told, since which
ends first is chance; and numbers that io_programs.DIFFERS tells of."""
import re

from chance import Chance

DISKS = ('raw', 'qcow2', 'v2', 'small', 'ext', 'ext', 'datafile', 'lazy', 'zstd', 'full', 'overlay',
         'overlay', 'nbd', 'compressed', 'deep', 'deep', 'bits', None)
NULL = ('-f raw null-co://', '-f raw null-aio://', '-f null-co null-co://',
        "'json:{\"driver\":\"null-co\",\"size\":1000000,\"read-zeroes\":true}'",
        "'json:{\"driver\":\"null-aio\",\"size\":65536,\"read-zeroes\":true}'", '')
FAULT = '--image-opts driver={fmt},file.driver=blkdebug,file.image.driver=file,file.image.filename={file}'
CACHES = ('none', 'writeback', 'writethrough', 'unsafe', 'directsync', 'off', 'foo')


class Programs(Chance):
    """Makes programs; rng decides everything."""

    # ---- values ----

    def spelled(self, number):
        """A number as it may be written."""
        forms = [str(number), str(number), hex(number), f'{number}b', f'{number}B']
        for suffix, unit in (('k', 1 << 10), ('K', 1 << 10), ('M', 1 << 20), ('m', 1 << 20)):
            if number % unit == 0:
                forms += [f'{number // unit}{suffix}'] * 3
            elif number * 2 % unit == 0:
                forms.append(f'{number / unit:.1f}{suffix}')
        return self.pick(*forms)

    def bad(self):
        return self.pick('x', '-1', '1e3', '0x', '1kk', '8E', '16E', '9E', '7E', '1Q', '-5k', '1 2',
                         '99999999999999999999', '0.3', 'k', '--', '0b', '010', '1KB', '1,5', '.')

    def offset(self):
        if self.chance(4):
            return self.bad()
        unit = self.pick(1, 512, 512, 4096, 65536, 65536, 65536)
        number = self.rng.randrange(0, (1 << 20) + 70000) // unit * unit
        number = self.pick(number, number, number, 0, (1 << 20) - unit, (1 << 20), 65536, 131072)
        return self.spelled(max(0, number + self.pick(0, 0, 0, 0, 0, 1, -1, 512)))

    def length(self):
        if self.chance(4):
            return self.pick(self.bad(), '3G', '2G', '0')
        unit = self.pick(1, 512, 512, 4096, 65536, 65536)
        return self.spelled(self.rng.randrange(1, max(2, self.pick(3, 300000) // unit)) * unit)

    def pattern(self):
        if self.chance(4):
            return self.pick('256', 'x', '-1', '0x', '1k', '', '0xfff', '1.0')
        number = self.pick(0, 0, 1, 3, 7, 0xab, 0xcd, 255)
        return self.pick(str(number), hex(number), f'0{number:o}')

    def switches(self, *choices, percent=20):
        """Each of some letters, or letter and value, now and then; bundled now and then."""
        words = []
        for choice in choices:
            if self.chance(percent):
                letter, *value = choice if isinstance(choice, tuple) else (choice,)
                value = [v() if callable(v) else v for v in value]
                words.append([f'-{letter}{value[0]}'] if value and self.chance(30) else
                             [f'-{letter}', *value])
        self.rng.shuffle(words)
        if self.chance(2):
            words.append([self.pick('-x', '--foo', '-', '-P', '-Z', '--')])
        if len(words) > 1 and len(words[0]) == 1 and len(words[0][0]) == 2 and self.chance(30):
            words[:2] = [[words[0][0] + words[1][0].lstrip('-'), *words[1][1:]]]
        return [w for group in words for w in group]

    def command(self, name, switches, operands):
        if self.chance(2):
            operands = [*operands, self.pick('1', 'more', '512')]
        elif self.chance(2):
            operands = operands[:-1]
        words = [*operands, *switches] if self.chance(4) else [*switches, *operands]
        return ' '.join([name, *words])

    # ---- commands: each gives a list of them ----

    def read(self):
        switches = self.switches('q', 'v', 'C', ('P', self.pattern), ('P', self.pattern), percent=15)
        if self.chance(15):
            switches += self.switches(('s', self.length), ('l', self.length), 'a', 'p', percent=40)
        if self.chance(5):
            switches.append('-b')
        length = self.pick('16', '40', '3') if '-v' in switches else self.length()
        return [self.command(self.pick('read', 'read', 'r'), switches, [self.offset(), length])]

    def write(self):
        if self.chance(35):
            switches = ['-z', *self.switches('u', 'n', 'f', 'q', 'C', percent=25)]
        elif self.chance(3):
            switches = ['-c', *self.switches(('P', self.pattern), 'q', percent=50)]
        else:
            switches = self.switches(('P', self.pattern), ('P', self.pattern), 'q', 'f', 'C', percent=30)
        if self.chance(10):
            switches += self.switches('u', 'n', 'z', 'b', 'c', 'f', 'p', percent=20)
        if self.chance(4):
            switches += ['-s', self.pick('pattern', 'nosuch', 'other.raw', '.')]
        operands = [self.offset(), self.length()]
        if '-c' in switches and self.chance(80):
            operands = [self.spelled(self.rng.randrange(16) * 65536), '64k']
        return [self.command(self.pick('write', 'write', 'w'), switches, operands)]

    def lengths(self):
        return [self.length() for _ in range(self.pick(1, 1, 2, 3, 6))]

    def readv(self):
        switches = self.switches('q', 'C', ('P', self.pattern), percent=20)
        lengths = self.lengths()
        if self.chance(10):
            switches, lengths = [*switches, '-v'], ['10', '7', '1']
        return [self.command('readv', switches, [self.offset(), *lengths])]

    def writev(self):
        return [self.command('writev', self.switches('q', 'C', 'f', ('P', self.pattern), percent=25),
                             [self.offset(), *self.lengths()])]

    def aio(self):
        if self.chance(50):
            switches = self.switches('q', 'C', 'i', ('P', self.pattern), percent=15)
            lengths = self.lengths()
            if self.chance(10):
                switches, lengths = [*switches, '-v'], ['10', '7', '1']
            words = self.command('aio_read', switches, [self.offset(), *lengths])
        elif self.chance(30):
            words = self.command('aio_write', ['-z', *self.switches('u', 'f', 'q', 'i', percent=20)],
                                 [self.offset(), self.length()])
        else:
            switches = self.switches('q', 'C', 'f', 'u', ('P', self.pattern), percent=20)
            words = self.command('aio_write', switches, [self.offset(), *self.lengths()])
        return [words, 'aio_flush']

    def side_by_side(self):
        """Quiet requests that do not meet."""
        places = self.rng.sample(range(15), self.pick(2, 3, 5))
        return [f'aio_{self.pick("read", "write", "write -z")} -q {p * 64}k {self.pick("512", "64k", "1k")}'
                for p in places] + ['aio_flush']

    def discard(self):
        return [self.command(self.pick('discard', 'discard', 'd'), self.switches('q', 'C', percent=15),
                             [self.offset(), self.length()])]

    def truncate(self, fmt):
        mode = self.pick('off', 'metadata', 'falloc', 'full', 'bad')
        # the reference shows what was behind the end in the last cluster of a disk that shrank
        size = self.pick('1M', '512k', '2M', '1048575', '0', '1984k',
                         '1M' if fmt == 'qcow2' else self.offset())
        switches = [w for w in self.switches(('m', mode), percent=20) if w != '-'] # a bad size is one without a mode
        if self.chance(5): # of a bad size behind a mode the reference names another word; without, it dies
            switches, size = [], self.pick(self.bad(), '')
        return [' '.join(['truncate', *switches, size])]

    def alloc(self):
        return [self.command(self.pick('alloc', 'a'), [],
                             [self.offset(), *([self.length()] if self.chance(60) else [])])]

    def plain(self):
        return [self.pick('length', 'info', 'map', 'map', 'flush', 'aio_flush', 'sleep 0', 'sleep 1',
                          'l', 'i', 'm', 'f', 'sleep x', 'sleep', 'sleep -1', 'sleep 01', 'sleep +0', 'length x', 'flush 1',
                          'nosuch', 'map 1 2', 'sigraise', 'sigraise x', 'sigraise 0', 'abort x', 'quit 1',
                          'alloc', 'wait_break A B', 'info -x', 'close x', '?', 'READ 0 1')]

    def help(self):
        return [f'{self.pick("help", "?")} ' + self.pick(
            'open', 'close', 'read', 'write', 'writev', 'aio_read', 'aio_write', 'truncate', 'break',
            'wait_break', 'sleep', 'reopen', 'abort', 'alloc', 'aio_flush', 'discard', 'flush', 'help', 'info',
            'length', 'map', 'readv', 'remove_break', 'resume', 'sigraise', 'quit', 'r', 'q', 'nosuch', 'a b', '-x')]

    def driver_options(self):
        return self.pick('driver=raw', 'driver=qcow2', 'driver=raw,offset=512', 'driver=raw,size=64k',
                         'driver=nosuch', 'read-only=on', 'driver=raw,read-only=off',
                         'driver=raw,cache.direct=on', 'discard=unmap', 'driver=raw,discard=unmap',
                         'driver=raw,detect-zeroes=on', 'driver=raw,nosuch=1', 'driver=raw,size=1000',
                         'driver=raw,file.locking=off', 'driver=raw,size=3M')

    def opened(self, has_fault):
        path = self.pick('other.raw', 'other.raw', 'overlay.qcow2', 'nosuch', '',
                         'json:{"driver":"null-co","size":65536,"read-zeroes":true}', 'json:{')
        path = 'driver=null-co,read-zeroes=on' if has_fault else path # it is a list there
        switches = self.switches('r', 'U', 's', 'n', 'C', 'k', ('t', lambda: self.pick(*CACHES)),
                                 ('d', lambda: self.pick('unmap', 'off', 'ignore', 'on', 'bad')),
                                 ('i', lambda: self.pick('threads', 'native', 'io_uring', 'bad')),
                                 percent=7)
        if self.chance(70):
            if path == 'overlay.qcow2' and self.chance(80):
                switches += ['-o', 'driver=qcow2']
            else:
                switches += ['-o', self.driver_options()]
        return [*(['close'] if self.chance(80) else []),
                self.command(self.pick('open', 'open', 'o'), switches, [path])]

    def reopened(self):
        switches = self.switches('r', 'w', ('c', lambda: self.pick(*CACHES)), percent=30)
        if self.chance(30):
            switches += ['-o', self.pick(
                'lazy-refcounts=on', 'lazy-refcounts=off', 'discard=unmap', 'discard=ignore',
                'detect-zeroes=on', 'detect-zeroes=unmap', 'detect-zeroes=off', 'cache.direct=on',
                'cache.no-flush=on', 'cache-size=1M', 'nosuch=1', 'driver=raw', 'driver=qcow2', 'size=64k',
                'offset=512', 'file.locking=off', 'pass-discard-request=on', 'force-share=on',
                'backing=nosuch', 'file=nosuch', 'file.driver=file', 'file.nosuch=1', 'data-file=x', 'node-name=x',
                'cache.foo=1', 'l2-cache-size=x', 'lazy-refcounts=x', 'auto-read-only=x', 'read-only=on,read-only=off',
                'cache-size=1,l2-cache-size=2M,refcount-cache-size=3M', 'overlap-check=none',
                'overlap-check.template=all', 'overlap-check.main-header=off', 'encrypt.format=luks', 'encrypt.foo=1', 'id=x',
                'file.read-only=on', 'file.read-only=off', 'backing.read-only=on', 'read-only=on', 'auto-read-only=on')]
        return [self.command('reopen', switches, [])]

    def at_breakpoint(self):
        """A write in the background stops, something else is done, and it goes on."""
        tag, event = self.pick('A', 'B', '1'), self.pick('write_aio', 'pwritev')
        place = self.rng.randrange(8)
        between = [self.pick('length', f'resume {tag}x', f'remove_break {tag}x', f'break nosuch {tag}',
                             'help sleep')
                   for _ in range(self.pick(0, 1, 2))]
        return [f'break {event} {tag}', f'aio_write -P 9 {place * 64}k {self.pick("512", "4k", "64k")}',
                f'wait_break {tag}', *between, f'resume {tag}', 'aio_flush',
                *([f'remove_break {tag}'] if self.chance(30) else [])]

    def breakpoints(self):
        """None of which anything comes to."""
        tag = self.pick('A', 'B', 'C')
        return [self.pick(f'break empty_image_prepare {tag}', f'break nosuch {tag}', f'break {tag}',
                          'break', f'remove_break {tag}',
                          f'resume {tag}', 'resume', 'remove_break', f'resume {tag} x',
                          'wait_break',
                          f'remove_break {tag} {tag}')]

    # ---- programs ----

    def commands(self, fmt, has_fault, length):
        kinds = [self.read] * 6 + [self.write] * 8 + [self.readv] * 2 + [self.writev] * 2 + \
            [self.aio] * 3 + [self.discard] * 3 + [lambda: self.truncate(fmt), self.alloc] + \
            [self.plain] * 5
        rare = [self.help, lambda: self.opened(has_fault), self.reopened, self.reopened, self.breakpoints]
        made = [f'write -c -P {n} {n * 64}k 64k' for n in range(16) if self.chance(10)] \
            if fmt == 'qcow2' and self.chance(30) else []
        while has_fault and self.chance(60): # as long as the disk is there, and is written to
            made += self.at_breakpoint()
        if fmt == 'qcow2' and self.chance(15):
            made += self.side_by_side()
        for _ in range(length):
            made += self.pick(*rare)() if self.chance(6) else self.pick(*kinds)()
        if not has_fault and self.chance(3): # nothing ends while a request waits at a breakpoint
            made.insert(self.rng.randrange(len(made) + 1), self.pick('quit', 'q', 'quit x', 'close', 'c'))
        return made

    def program(self):
        """(disk, options of the program, commands, whether they come from standard input)"""
        disk = self.pick(*DISKS)
        options, fmt, has_fault = '', 'raw' if disk in ('raw', 'nbd', None) else 'qcow2', False
        if disk is None:
            options = self.pick(*NULL)
        elif disk not in ('nbd', 'datafile') and self.chance(12):
            has_fault = True
            options = FAULT.format(fmt=fmt, file=f'{disk}.{fmt}')
        options = ' '.join([*self.switches(
            *(() if has_fault else ('r', 's')), *(() if disk is None else 'C'), 'n', 'm', 'k', 'U', ('t', lambda: self.pick(*CACHES)),
            ('d', lambda: self.pick('unmap', 'unmap', 'off', 'ignore', 'on', 'bad')),
            ('i', lambda: self.pick('threads', 'native', 'io_uring', 'bad')), percent=4), options])
        commands = self.commands(fmt, has_fault, self.pick(5, 15, 25))
        if 'null-' in options: # what they hold is told in another way
            commands = [c for c in commands if not re.match(r'm(ap)?$|a(lloc)? ', c) or 'zeroes' in options]
        if disk == 'datafile': # the last cluster of the state of the machine is as long as it is written
            commands = [c for c in commands if not re.match(r'w(rite)? .*-\w*b', c)]
        # where a breakpoint is told between prompts is chance
        return disk, options, commands, self.chance(20) and not has_fault
