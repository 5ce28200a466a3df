# SPDX-License-Identifier: MIT
"""Every command that platter daemon and qemu-storage-daemon both know, with each of its arguments wrong in each way:
missing, unknown, of another type, out of range, empty; so too the members of what is nested in them. The replies must
be the same bytes. The arguments come from the introspection of both."""
import itertools
import json
import os
import shutil

import pytest

from qmp import Daemon
from test_daemon_reference import cmd, masked
from tools_common import needs

THEIRS = 'qemu-storage-daemon'
pytestmark = [needs('qcow2'), pytest.mark.skipif(not shutil.which(THEIRS), reason=f'{THEIRS} is not installed')]

WRONG = ['s', 1, -1, 1.5, True, None, [], {}, ['a'], {'zz': 1}, '']
NOT_ASKED = {'quit', 'qmp_capabilities', 'query-commands', 'query-qmp-schema', 'qom-list-types'}  # of the build
DEEP = 3  # levels of objects in objects whose members are made wrong
SHALLOW = {'blockdev-add': 1, 'blockdev-reopen': 1}  # nodes are in nodes
# What makes a whole argument, where one of several words must be chosen.
PREFERRED = ('null-co', 'nbd', 'unix', 'throttle-group', 'abort')
# What differs on purpose, and why: parts of a request as JSON, all of which it has.
DIFFERS = {
    ('"write-threshold": -1',): 'a number below 0 is none, and not a very large one',
    ('"blockdev-', ': -1'): 'the same',
    ('"blockdev-create"', '"driver": "nbd"'): 'a disk of a server may stand for a new file',
    ('"blockdev-create"', '"driver": "host_device"'): 'so may a device',
    ('blockdev-', '"driver": "nbd"'): 'its address may be spelled in other ways too',
    ('blockdev-reopen', '"options": []'): 'the reference aborts',
    ('"transaction"', 'block-dirty-bitmap-enable'): 'the reference ends where the bitmap is not there',
    ('"to": -1',): 'a port is a number like others until it is used',
    ('"bitmaps": [',): "an element is named by its place, not as 'null'",
    ('child-perms": ["',): 'the same',
    ('"inject-error"',): 'the schema leaves events of rules to the driver', ('"set-state"',): 'the same',
    ('"inject-delay"',): 'the same',
    ('"overlap-check"',): 'a type of the schema has another name',
    ('blockdev-create', '"qcow2"', '"file": {'): 'the file of a new image is a node that there is',
    ('blockdev-create', '"qcow2"', '"data-file"'): 'the same',
    ('blockdev-create', '{"driver": "qcow2", "file": "x"}'): 'the size may be that of the backing file',
    ('blockdev-create', '{"driver": "raw"'): 'raw images can be made too',
    ('object-add', '"id": "x", "'): 'that the id is taken is told before what is wrong with the values',
}


class Schema:
    def __init__(self, rows):
        self.types = {row['name']: row for row in rows}
        self.commands = {name for name, row in self.types.items() if row['meta-type'] == 'command'}

    def of(self, name):
        return self.types[name]

    def words(self, name):
        row = self.of(name)
        return row.get('values', [m['name'] for m in row.get('members', ())])

    def variant(self, row, case):
        return next((self.of(v['type']) for v in row.get('variants', ()) if v['case'] == case), {})

    def sample(self, name):
        """A value of the type, the shortest one."""
        row = self.of(name)
        kind = row['meta-type']
        if kind == 'builtin':
            return {'string': 'x', 'int': 1, 'number': 1.0, 'boolean': False, 'null': None}.get(row['json-type'], 1)
        if kind == 'enum':
            return next((w for w in PREFERRED if w in self.words(name)), self.words(name)[0])
        if kind == 'array':
            return []
        if kind == 'alternate':
            simple = [m['type'] for m in row['members'] if self.of(m['type'])['meta-type'] in ('builtin', 'enum')]
            return self.sample(([t for t in simple if t != 'null'] or [m['type'] for m in row['members']])[0])
        return self.whole(row)

    def whole(self, row, case=None):
        value = {m['name']: self.member(m) for m in row['members'] if 'default' not in m}
        if 'tag' in row:
            value[row['tag']] = case or value[row['tag']]
            for m in self.variant(row, value[row['tag']]).get('members', ()):
                if 'default' not in m:
                    value[m['name']] = self.member(m)
        return value

    def member(self, member):
        return '127.0.0.1' if member['name'] == 'host' else self.sample(member['type'])


def pairs(theirs, ours):
    """Members that both types have."""
    known = {m['name']: m for m in ours.get('members', ())}
    return [(m, known[m['name']]) for m in theirs.get('members', ()) if m['name'] in known]


def cases(ours, row, other):
    if 'tag' not in row:
        return [None]
    tag = next((m for m in other['members'] if m['name'] == row['tag']), None)
    known = ours.words(tag['type']) if tag else []
    return [v['case'] for v in row['variants'] if v['case'] in known]


def wrong(theirs, ours, name, our_name, depth, levels):
    """Values of a type, each with one fault."""
    row, other = theirs.of(name), ours.of(our_name)
    if row['meta-type'] != other['meta-type']:
        return
    if row['meta-type'] == 'array':
        yield from ([v] for v in ('s', 1, {}, None))
        if depth < levels:
            yield from ([v] for v in wrong(theirs, ours, row['element-type'], other['element-type'], depth, levels))
    elif row['meta-type'] == 'alternate':
        yield from (1.5, [])
        for t, o in itertools.product(row['members'], other['members']):
            if depth < levels and theirs.of(t['type'])['meta-type'] == ours.of(o['type'])['meta-type'] == 'object':
                yield from wrong(theirs, ours, t['type'], o['type'], depth, levels)
    elif row['meta-type'] != 'object':
        yield from WRONG
    elif depth <= levels:
        for case in cases(ours, row, other):
            yield from wrong_objects(theirs, ours, row, other, case, depth, levels)


def wrong_objects(theirs, ours, row, other, case, depth, levels):
    whole = theirs.whole(row, case)
    yield whole
    yield {**whole, 'zz': 1}
    yield {**whole, 'zz': 1, 'aa': 1}
    for mine, our in pairs(row, other) + pairs(theirs.variant(row, case), ours.variant(other, case)):
        if mine['name'] == row.get('tag'):
            continue
        if 'default' not in mine:
            yield {k: v for k, v in whole.items() if k != mine['name']}
        inner = wrong(theirs, ours, mine['type'], our['type'], depth + 1, levels)
        for value in itertools.chain(WRONG if depth == 0 else (), inner):
            yield {**whole, mine['name']: value}


def replies(program, folder, requests):
    """One of each; a daemon that ends is started anew."""
    out = []
    while len(out) < len(requests):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        daemon = Daemon(folder, [program])
        with daemon.client() as client:
            client.call('blockdev-add', driver='null-co', node_name='x')
            try:
                for request in requests[len(out):]:
                    client.ask(request)
                    out.append(masked(client.line.decode()))
            except EOFError:
                out.append('it ended')
        code, said = daemon.end()
        assert program == THEIRS or code == 0, said
    return out


def why(request):
    text = json.dumps(request)
    return next((reason for parts, reason in DIFFERS.items() if all(part in text for part in parts)), None)


@pytest.fixture(name='schemas', scope='module')
def schemas_fixture(tmp_path_factory):
    out = []
    for program in (THEIRS, called_link(tmp_path_factory.mktemp('link'))):
        with Daemon(tmp_path_factory.mktemp('schema'), [program]) as daemon, daemon.client() as client:
            out.append(Schema(client.call('query-qmp-schema')))
    return out


def called_link(folder):
    link = folder / THEIRS
    link.symlink_to(os.path.abspath(os.environ['PLATTER_BIN']))
    return str(link)


def test_same_replies(schemas, tmp_path):
    theirs, ours = schemas
    link = called_link(tmp_path)
    faults, count, listed = [], 0, set()
    names = sorted((theirs.commands & ours.commands) - NOT_ASKED)
    assert len(names) > 50
    for name in names:
        arguments = [schema.of(name)['arg-type'] for schema in (theirs, ours)]
        values = wrong(theirs, ours, *arguments, 0, SHALLOW.get(name, DEEP))
        requests = [{'execute': name}, *(cmd(name, **v) for v in values)]
        requests = [r for r in requests if '"host": "s"' not in json.dumps(r)]  # nobody is to be asked for names
        count += len(requests)
        for request, our, their in zip(requests, *(replies(p, tmp_path / 'work', requests) for p in (link, THEIRS))):
            if our != their and not why(request):
                faults.append((request, our, their))
            elif our != their:
                listed.add(why(request))
    assert not faults, (len(faults), faults[:20])
    assert count > 2000
    assert listed == set(DIFFERS.values()), 'a difference that is gone leaves the list'
