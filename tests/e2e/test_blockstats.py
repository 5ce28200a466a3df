# SPDX-License-Identifier: MIT
"""How far nodes were written, beside the installed qemu-storage-daemon: the same numbers."""
import os

import pytest

from qmp import Daemon
from tools_common import qemu, run

NODES = [{'driver': 'qcow2', 'node-name': 'q', 'file': {'driver': 'file', 'node-name': 'f', 'filename': 'q.qcow2'}},
         {'driver': 'raw', 'node-name': 'r', 'file': {'driver': 'file', 'node-name': 'rf', 'filename': 'r.raw'}},
         {'driver': 'null-co', 'node-name': 'n', 'size': 1 << 20}]
COMMANDS = [[], ['write 0 4k'], ['write 512k 4k', 'write 0 4k', 'read 600k 4k'], ['write -z 700k 4k'],
            ['write 100 5', 'discard 800k 4k', 'flush'], ['read 0 1M']]


def highest(program, folder, commands):
    folder.mkdir()
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'q.qcow2', '1M', cwd=folder)
    qemu('qemu-img', 'create', '-q', '-f', 'raw', 'r.raw', '1M', cwd=folder)
    found = {}
    with Daemon(folder, program) as daemon, daemon.client() as qmp:
        for node in NODES:
            node = dict(node)
            if 'file' in node:
                node['file'] = dict(node['file'], filename=str(folder / node['file']['filename']))
            qmp.call('blockdev-add', **{key.replace('-', '_'): value for key, value in node.items()})
        qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(folder / 'nbd')}})
        for name in ('q', 'r', 'n'):
            qmp.call('block-export-add', type='nbd', id=name, node_name=name, writable=True)
            words = [word for command in commands for word in ('-c', command)] or ['-c', 'length']
            done = run(['qemu-io', '-d', 'unmap', '-f', 'raw', *words, f'nbd+unix:///{name}?socket={folder}/nbd'])
            assert done.returncode == 0, done.stderr

        def note(item):
            found.setdefault(item['node-name'], set()).add(item['stats']['wr_highest_offset'])
            for below in ('parent', 'backing'):
                if below in item:
                    note(item[below])

        for item in qmp.call('query-blockstats', query_nodes=True):
            note(item)
    return found


@pytest.mark.parametrize('commands', COMMANDS, ids=' '.join)
def test_same(commands, tmp_path):
    ours = highest([os.environ['PLATTER_BIN'], 'daemon'], tmp_path / 'ours', commands)
    theirs = highest(['qemu-storage-daemon'], tmp_path / 'theirs',
                     commands)
    for found in (ours, theirs):
        # where an image puts its clusters is its own business, that it was written is not
        found['f'] = {n > 0 for n in found['f']}
    assert ours == theirs


def test_of_a_backend(tmp_path):
    with Daemon(tmp_path, [os.environ['PLATTER_BIN'], 'daemon']) as daemon, daemon.client() as qmp:
        qmp.call('blockdev-add', driver='null-co', node_name='n', size=1 << 20)
        qmp.call('blockdev-backend-add', name='drive', node_name='n')
        qmp.call('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(tmp_path / 'nbd')}})
        qmp.call('block-export-add', type='nbd', id='e', node_name='drive', writable=True)
        assert qmp.call('query-blockstats')[0]['stats']['wr_highest_offset'] == 0
        run(['qemu-io', '-f', 'raw', '-c', 'write 64k 512', f'nbd+unix:///drive?socket={tmp_path}/nbd'])
        assert qmp.call('query-blockstats')[0]['stats']['wr_highest_offset'] == 65536 + 512
