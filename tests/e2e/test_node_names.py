# SPDX-License-Identifier: MIT
"""What nodes are called, beside the reference: a file's name where that says it all, else what their options are."""
import ast
import json
import os
import shutil

import pytest

from qmp import Daemon
from tools_common import called, needs, qemu

pytestmark = [needs('qcow2'), pytest.mark.skipif(not shutil.which('qemu-storage-daemon'),
                                                 reason='qemu-storage-daemon is not installed')]


def file(name):
    return {'driver': 'file', 'filename': name}


def over(driver, child, **more):
    return {'driver': driver, 'image' if driver == 'blkdebug' else 'file': child, **more}


def qcow2(name, **more):
    return over('qcow2', file(name), **more)


GRAPHS = [
    qcow2('top'), qcow2('other'), over('raw', file('disk')),
    over('raw', over('raw', file('disk'))), over('qcow2', over('raw', file('top'))), over('raw', qcow2('other')),
    over('raw', qcow2('top')), over('raw', file('disk'), offset=0), over('raw', file('disk'), size=65536),
    over('copy-on-read', qcow2('top')), over('blkdebug', qcow2('top')), over('qcow2', over('blkdebug', file('top'))),
    over('raw', over('blkdebug', qcow2('other'))),
    # the backing file that the image names, another one, and none
    qcow2('top', backing=qcow2('base')), qcow2('top', backing=over('raw', file('base'))),
    qcow2('top', backing=qcow2('./base')), qcow2('top', backing=qcow2('other')), qcow2('top', backing=None),
    qcow2('other', backing=qcow2('base')), qcow2('other', backing=None),
    qcow2('top', backing=over('raw', file('base'), size=65536)),
    over('copy-on-read', qcow2('top', backing=qcow2('base'))), over('copy-on-read', qcow2('top', backing=None)),
    over('raw', qcow2('top', backing=qcow2('other'))), over('raw', qcow2('top', backing=None)),
    qcow2('chain'), qcow2('chain', backing=qcow2('top', backing=qcow2('other'))),
    # an image in a folder
    qcow2('folder/top'), qcow2('folder/top', backing=qcow2('folder/base')), qcow2('folder/top', backing=None),
    over('copy-on-read', qcow2('folder/top', backing=qcow2('folder/base'))),
    qcow2('beside'), over('qcow2', over('raw', file('beside'), offset=0)),
    over('qcow2', over('raw', file('beside'), offset=0), **{'data-file': file('disk')}),
    qcow2('stored'), qcow2('null'), qcow2('null', backing={'driver': 'null-co', 'read-zeroes': True}),
]


@pytest.fixture
def images(tmp_path):
    def make(name, *options):
        done = qemu('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', *options, name, '1M', cwd=tmp_path)
        assert done.returncode == 0, done.stderr

    (tmp_path / 'disk').write_bytes(bytes(1 << 20))
    (tmp_path / 'folder').mkdir()
    for name in ('base', 'other', 'folder/base'):
        make(name)
    for name, backing in (('top', 'base'), ('folder/top', 'base'), ('chain', 'top'),
                          ('stored', 'json:' + json.dumps(qcow2('base')))):
        make(name, '-b', backing, '-F', 'qcow2')
    make('beside', '-o', 'data_file=data')
    make('null', '-b', 'null-co://', '-F', 'raw')
    return tmp_path


def names(program, images, graph):
    """Of each node: what it and its backing image are called."""
    with Daemon(images, program) as daemon, daemon.client() as client:
        done = client.ask({'execute': 'blockdev-add', 'arguments': {**graph, 'node-name': 'n'}})
        assert 'return' in done, done
        nodes = client.ask({'execute': 'query-named-block-nodes', 'arguments': {'flat': True}})['return']
        return sorted(str((n['file'], n.get('backing_file'), n['image']['filename'],
                           n['image'].get('backing-filename'), n['image'].get('full-backing-filename')))
                      for n in nodes)


@pytest.mark.parametrize('data', [file('disk'), over('raw', file('disk')), over('raw', file('disk'), offset=512)], ids=json.dumps)
def test_a_data_file_by_options(data, images):
    """It is told, and once: the plain name that the reference gives would open other data."""
    graph = qcow2('beside', **{'data-file': data})
    ours = names([os.environ['PLATTER_BIN'], 'daemon'], images, graph)
    told = [json.loads(name[0].removeprefix('json:')) for name in map(ast.literal_eval, ours) if name[0].startswith('json:')]
    assert graph in told


@pytest.mark.parametrize('graph', GRAPHS, ids=json.dumps)
def test_same_names(graph, images, tmp_path):
    assert names([called(tmp_path, 'qemu-storage-daemon')], images, graph) == names(['qemu-storage-daemon'], images, graph)


def test_after_a_change_of_the_backing_file(images):
    """The image names base; a node is put between, and taken out."""
    with Daemon(images, [os.environ['PLATTER_BIN'], 'daemon']) as daemon, daemon.client() as client:
        def now():
            nodes = client.ask({'execute': 'query-named-block-nodes', 'arguments': {'flat': True}})['return']
            return next((n['file'], n.get('backing_file')) for n in nodes if n['node-name'] == 't')

        def reopened(backing):
            done = client.ask({'execute': 'blockdev-reopen', 'arguments': {'options': [
                {'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': backing}]}})
            assert 'return' in done, done

        for node in ({**file('top'), 'node-name': 'f'}, qcow2('other', **{'node-name': 'o', 'read-only': True}),
                     qcow2('base', **{'node-name': 'b', 'read-only': True}),
                     {'driver': 'qcow2', 'node-name': 't', 'file': 'f', 'backing': 'b'}):
            assert 'return' in client.ask({'execute': 'blockdev-add', 'arguments': node})
        assert now() == ('top', 'base')
        reopened('o')
        other = over('qcow2', file('top'), backing=qcow2('other'))
        name, backing = now()
        assert (json.loads(name.removeprefix('json:')), backing) == (other, 'other')
        reopened('b')
        assert now() == ('top', 'base')
