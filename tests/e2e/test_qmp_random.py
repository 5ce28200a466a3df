# SPDX-License-Identifier: MIT
"""Commands made at random from the schema that the daemon tells, right and wrong: each gets one
reply, the daemon lives, and it ends in order."""
import os
import random

import pytest

from qmp import Daemon, Schema

PLATTER = os.environ['PLATTER_BIN']
COMMANDS = int(os.environ.get('PLATTER_OPS', 400))
# What would end the session, or reach beyond the folder and the machine.
NOT_ASKED = {'quit', 'qmp_capabilities'}
TEXTS = {'path': ['nbd.sock', '/objects', '/objects/o0', 'o1'], 'host': ['127.0.0.1'], 'port': ['0'], 'filename': ['f1', 'f2', 'no/f'],
         'snapshot-file': ['s1', 'no/s'], 'str': ['x', '99'], 'fd': ['99'], 'fdname': ['x'],
         'format': ['raw', 'qcow2', 'base64', 'x'], 'file': ['n0', 'n1', 'f1'],
         'property': ['limits', 'x'], 'data': ['aGk=', '%'], 'driver': ['raw', 'x']}
NODES = ['n0', 'n1', 'n2', 'n3', 'n4']
# What a command names, by a word in its own name; else nodes.
KINDS = [('job', 'j'), ('create', 'j'), ('amend', 'j'), ('object', 'o'), ('qom', 'o'), ('export', 'e'),
         ('backend', 'b'), ('tray', 'b'), ('medium', 'b'), ('eject', 'b'), ('throttle', 'b'),
         ('histogram', 'b'), ('accounting', 'b'), ('policy', 'b'), ('internal', 'b')]
# So that there is something to work on.
WEIGHTS = {'blockdev-add': 40, 'blockdev-create': 20, 'job-dismiss': 20, 'blockdev-backend-add': 12,
           'nbd-server-start': 10, 'block-export-add': 12, 'blockdev-insert-medium': 8}
DRIVERS = [{'driver': 'null-co', 'size': 1 << 20}, {'driver': 'mem', 'size': 1 << 20},
           {'driver': 'file', 'filename': 'f1'}, {'driver': 'file', 'filename': 'f2'},
           {'driver': 'raw'}, {'driver': 'qcow2'}, {'driver': 'copy-on-read'}, {'driver': 'blkdebug'},
           {'driver': 'throttle', 'throttle-group': 'o0'},
           {'driver': 'raw', 'offset': 4096, 'size': 8192}]
NUMBERS = [0, 1, 512, 4096, 65536, 1 << 20]
ODD_NUMBERS = [-1, 3, (1 << 31) - 1, 1 << 32, (1 << 63) - 1]
ODD = [None, True, 0, -1, 1.5, '', 'n0', 'n\u00e9', [], {}, [[]], {'x': 1}, 'x' * 300]


class Maker:
    """Values of the schema's types."""

    def __init__(self, schema, rng):
        self.schema = schema
        self.rng = rng
        self.names = NODES

    def arguments(self, command):
        kind = next((k for word, k in KINDS if word in command), 'n')
        self.names = [kind + str(i) for i in range(4)]
        if command == 'blockdev-add' and self.rng.random() < 0.9:
            return self.node()
        of = self.schema.commands[command]['arg-type']
        made = self.value(of, '')
        members = {m['name'] for m in self.schema.types[of]['members']}
        if isinstance(made, dict) and {'id', 'device'} <= members and self.rng.random() < 0.95:
            made.pop('device', None)  # one of the two, as it has to be
            made.setdefault('id', self.rng.choice(self.names))
        if isinstance(made, dict) and command == 'blockdev-create' and self.rng.random() < 0.9:
            made['options'] = self.rng.choice([
                {'driver': 'file', 'filename': self.rng.choice(['f1', 'f2']), 'size': 1 << 20},
                {'driver': 'qcow2', 'file': self.rng.choice(NODES), 'size': 1 << 20}])
        return made

    def node(self):
        made = dict(self.rng.choice(DRIVERS))
        if not {'size', 'filename'} & made.keys() or 'offset' in made:
            made['file'] = self.rng.choice(NODES)
        made['node-name'] = self.rng.choice(NODES)
        for key in ('read-only', 'auto-read-only', 'detect-zeroes', 'discard', 'size'):
            if self.rng.random() < 0.05:
                made[key] = self.rng.choice([True, False, 'on', 'unmap', 512, 'x'])
        return made

    def value(self, name, member, depth=0):
        if self.rng.random() < 0.02 or depth > 8:
            return self.rng.choice(ODD)
        t = self.schema.types[name]
        return getattr(self, 'make_' + t['meta-type'])(t, member, depth + 1)

    def make_builtin(self, t, member, depth):
        kind = t['json-type']
        if kind == 'string':
            if member in ('node-name', 'node', 'overlay', 'snapshot-node-name'):
                return self.rng.choice(NODES)
            return self.rng.choice(TEXTS.get(member, self.names))
        if kind in ('int', 'number'):
            return self.rng.choice(NUMBERS if self.rng.random() < 0.8 else ODD_NUMBERS)
        if kind == 'boolean':
            return self.rng.random() < 0.5
        return self.rng.choice(ODD)

    def make_enum(self, t, member, depth):
        # nbd would reach for a server that is not there, for as long as it takes.
        return self.rng.choice([m['name'] for m in t['members'] if m['name'] != 'nbd'] or ['nbd'])

    def make_array(self, t, member, depth):
        return [self.value(t['element-type'], member, depth) for _ in range(self.rng.randrange(4))]

    def make_alternate(self, t, member, depth):
        return self.value(self.rng.choice(t['members'])['type'], member, depth)

    def make_object(self, t, member, depth):
        members = list(t['members'])
        made = {}
        if 'tag' in t:
            tag = next(m for m in members if m['name'] == t['tag'])
            made[tag['name']] = self.value(tag['type'], tag['name'], depth)
            members += [m for v in t['variants'] if v['case'] == made[tag['name']]
                        for m in self.schema.types[v['type']]['members']]
        for m in members:
            if m['name'] not in made and ('default' not in m or self.rng.random() < 0.3) and \
                    self.rng.random() < 0.98:
                made[m['name']] = self.value(m['type'], m['name'], depth)
        if self.rng.random() < 0.01:
            made['unexpected'] = 1
        return made


@pytest.mark.parametrize('round_', range(2))
def test_random_commands(tmp_path, round_):
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print('PLATTER_SEED', seed)
    rng = random.Random(seed)
    with Daemon(tmp_path, [PLATTER, 'daemon'], '--image-refs', 'follow') as daemon:
        with daemon.client() as client:
            schema = Schema(client.call('query-qmp-schema'))
            maker = Maker(schema, rng)
            names = sorted(schema.commands.keys() - NOT_ASKED)
            weights = [WEIGHTS.get(n, 3) for n in names]
            done = 0
            for i in range(COMMANDS):
                name = rng.choices(names, weights)[0]
                arguments = maker.arguments(name)
                reply = client.ask({'execute': name, 'arguments': arguments, 'id': i})
                assert reply['id'] == i and reply.keys() & {'return', 'error'}
                if 'return' in reply:
                    schema.check_reply(name, reply['return'])
                    done += 1
                for event in client.events:
                    schema.check_event(event)
                client.events.clear()
            assert done > COMMANDS // 8
