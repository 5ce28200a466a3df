# SPDX-License-Identifier: MIT
"""Random command lines of qemu-nbd, right and wrong ones. Each names a socket and a pid file and goes
to the background, so that whoever runs it learns whether it is served."""
from chance import Chance

IMAGES = {'plain.raw': 'raw', 'odd.raw': 'raw', 'base.qcow2': 'qcow2', 'over.qcow2': 'qcow2',
          'missing.img': 'raw', 'folder': 'raw'}
ENDING = ['-t', '--fork', '-k', '/FOLDER/nbd.sock', '--pid-file', '/FOLDER/nbd.pid']


class Lines(Chance):
    """Makes lines; rng decides everything."""

    # ---- values ----

    def number(self):
        return self.pick('0', '1', '2', '3', '7', '-1', 'x', '', '3k', '0x2', '010', '+1', ' 1', '1.5',
                         '4294967296', '99999999999999999999', '1 ')

    def offset(self):
        # not a part of a sector: servers of the reference die of it
        return self.pick('0', '512', '65536', '1048064', '1048576', '0x10000', '01000', '-1', '+512', '2M',
                         'x', '', '2097152', '9223372036854775807', '18446744073709551615')

    def text(self):
        return self.pick('a', '', 'a name', 'x/y', "it's", 'a%20b', 'ünï', 'x' * 300, 'x' * 4097, '-', 'a,b=c')

    def mode(self, *good):
        return self.pick(*good, *good, *good, 'x', '', 'on')

    def bitmap(self):
        return self.pick('b0', 'b1', 'b0', 'b1', 'none', '', 'x' * 1100)

    def snapshot(self):
        return self.pick('first', '1', 'none', '', 'snapshot.id=1', 'snapshot.name=first',
                         'snapshot.id=1,snapshot.name=first', 'snapshot.id=7', 'snapshot.x=1',
                         'snapshot.name=', 'first,snapshot.id=1')

    # ---- pieces ----

    def options(self):
        """Each with the chance that it is there, in percent."""
        return (
            (20, 'r', 'read-only', None), (10, 's', 'snapshot', None),
            (4, 'n', 'nocache', None), (15, 'A', 'allocation-depth', None),
            (15, 'B', 'bitmap', self.bitmap), (6, 'B', 'bitmap', self.bitmap),
            (15, 'e', 'shared', self.number), (12, 'o', 'offset', self.offset),
            (15, 'x', 'export-name', self.text), (15, 'D', 'description', self.text),
            (8, 'l', 'load-snapshot', self.snapshot), (5, 't', 'persistent', None),
            (10, '', 'cache', lambda: self.mode('none', 'writeback', 'writethrough', 'directsync', 'unsafe')),
            (8, '', 'aio', lambda: self.mode('threads', 'io_uring', 'native')),
            (12, '', 'discard', lambda: self.mode('unmap', 'ignore', 'off')),
            (12, '', 'detect-zeroes', lambda: self.mode('on', 'off', 'unmap')),
            (2, '', 'tls-creds', self.text), (2, '', 'tls-authz', self.text),
            (2, '', 'tls-hostname', self.text), (3, 'L', 'list', None), (2, 'Z', 'nosuch', None),
            (3, '', 'object', lambda: self.pick('secret,id=s0,data=x', 'nosuch,id=a', 'secret,id=s0', 'secret',
                                                '', 'throttle-group,id=g0,limits.iops-total=100000')),
            (2, 'b', 'bind', lambda: self.pick('127.0.0.1', 'x')),
            (2, 'p', 'port', lambda: self.pick('10810', 'x')))

    def spelled(self, letter, name, value):
        """An option as it may be written."""
        given = [] if value is None else [value() if callable(value) else value]
        if letter and self.chance(60):
            return [f'-{letter}{given[0]}'] if given and given[0] and self.chance(20) else \
                [f'-{letter}', *given]
        name = name[:self.rng.randrange(4, len(name) + 1)] if len(name) > 5 and self.chance(15) else name
        if given and self.chance(60):
            return [f'--{name}={given[0]}']
        return [f'--{name}', *given] if self.chance(97) or given else [f'--{name}=1']

    def image(self):
        """(options, operand)"""
        name = self.pick('plain.raw', 'plain.raw', 'odd.raw', 'base.qcow2', 'base.qcow2', 'over.qcow2',
                         'missing.img', 'folder') if self.chance(25) else \
            self.pick('plain.raw', 'base.qcow2', 'base.qcow2', 'over.qcow2')
        fmt = IMAGES[name]
        if self.chance(10):
            return ['--image-opts', *(['-f', 'raw'] if self.chance(15) else [])], self.pick(
                f'driver={fmt},file.driver=file,file.filename={name}', f'driver={fmt},file.filename={name}',
                f'driver=raw,offset=512,file.filename={name}', f'file.filename={name}', f'driver={fmt}', name,
                f'driver={fmt},file.filename={name},nosuch=1', f'driver={fmt},read-only=on,file.filename={name}',
                'driver=null-co,size=64k,read-zeroes=on', f'driver=raw,size=100k,file.filename={name}')
        if self.chance(6):
            return [], self.pick(f'file:{name}', f'./{name}', 'nosuch:x', 'json:{', '',
                                 f'json:{{"driver":"{fmt}","file":{{"driver":"file","filename":"{name}"}}}}',
                                 'json:{"driver":"null-co","size":65536,"read-zeroes":true}')
        return (['-f', self.pick('raw', 'qcow2', 'nosuch', '') if self.chance(10) else fmt]
                if self.chance(92) else []), name

    def line(self):
        words, operand = self.image()
        options = [o[1:] for o in self.options() if self.chance(o[0])]
        self.rng.shuffle(options)
        for option in options:
            words += self.spelled(*option)
        operands = [operand] if self.chance(97) else self.pick([], [operand, 'more'])
        if self.chance(2):
            return [*words, *operands, self.pick('-k', '-e', '--cache', '--bit', '-x')]
        return [*(operands + words if self.chance(20) else words + operands), *ENDING]
