# SPDX-License-Identifier: MIT
"""Backing chains in other folders than the current one, by the name qemu-img and by the installed program."""
import filecmp
import shutil

import pytest

from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAM = 'qemu-img'
MADE = ('sub/base', 'sub/mid', 'sub/deep/top', 'sub/deep/above', 'sub/deep/far', 'sub/named')


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module')
def chains(tmp_path_factory):
    """base, mid and other in one folder, top and what stands on it in a deeper one."""
    folder = tmp_path_factory.mktemp('chains') / 'work'
    (folder / 'sub/deep').mkdir(parents=True)
    mid = '{"driver":"qcow2","file":{"driver":"file","filename":"sub/mid"}}'
    for name, backing in (('sub/base', None), ('sub/mid', 'base'), ('sub/deep/top', '../mid'), ('sub/deep/above', 'top'),
                          ('sub/deep/far', '../base'), ('sub/other', 'base'), ('sub/named', 'file:sub/mid'), ('sub/json', f'json:{mid}')):
        below = ['-u', '-b', backing, '-F', 'qcow2'] if backing else []
        assert run([PROGRAM, 'create', '-q', '-f', 'qcow2', *below, name, '1M'], cwd=folder).returncode == 0
    for number, name in enumerate(('sub/mid', 'sub/deep/top')):
        assert run(['qemu-io', '-c', f'write -q -P {number + 1} {number * 64}k 64k', name], cwd=folder).returncode == 0
    (folder / 'link').symlink_to('sub/mid')
    (folder / 'sub/deep/alias').symlink_to('../mid')
    (folder / 'sub/hard').hardlink_to(folder / 'sub/mid')
    return folder


def outcome(program, line, chains, tmp_path, where='.'):
    """In a folder whose name is the same for both."""
    work = tmp_path / 'work'
    shutil.copytree(chains, work, symlinks=True)
    done = run([program, *(word.format(work=work) for word in line)], cwd=work / where)
    changed = [name for name in MADE if not filecmp.cmp(chains / name, work / name, shallow=False)]
    held = [(name, run([PROGRAM, 'compare', name, chains / 'sub/deep/top'], cwd=work).stdout) for name in changed]
    shutil.rmtree(work)
    return done.stdout, done.stderr, done.returncode, held


OVERRIDDEN = ('driver=qcow2,file.filename=sub/deep/top,backing.driver=qcow2,backing.file.filename=sub/other',
              'driver=qcow2,file.filename=sub/deep/top,backing.driver=qcow2,backing.file.filename=sub/mid',
              'driver=qcow2,file.filename=sub/deep/top,backing.lazy-refcounts=off')
LIMITED = 'driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=sub/deep/top'


@pytest.mark.parametrize('base', [
    'base', 'mid', '../mid', '../base', 'sub/base', 'sub/mid', '{work}/sub/mid', '{work}/sub/base', '{work}/sub/deep/../mid',
    'sub/deep/../mid', 'link', '{work}/link', 'alias', 'hard', 'top', './base', '.././mid', 'deep/../base', 'file:sub/mid',
    'file:base', '', 'nosuch', '{work}/nosuch', 'json:{{}}', 'sub/other', './sub/other'])
@pytest.mark.parametrize('where', ['.', 'sub'])
def test_base_of_commit(base, where, link, chains, tmp_path):
    """A relative name counts from the folder of each image of the chain, not from the current one."""
    up = '' if where == '.' else '../'
    lines = [['commit', '-b', base, up + top] for top in ('sub/deep/top', 'sub/deep/above', 'sub/deep/far')]
    lines.append(['commit', '-b', base, '{work}/sub/deep/top'])
    if where == '.':
        lines += [['commit', '-b', base, '-d', top] for top in ('sub/named', 'sub/json')]
        lines += [['commit', '-b', base, '--image-opts', top] for top in OVERRIDDEN]
        lines.append(['commit', '-b', base, '--object', 'throttle-group,id=g', '--image-opts', LIMITED])
    for line in lines:
        ours, theirs = (outcome(program, line, chains, tmp_path, where) for program in (link, PROGRAM))
        assert ours == theirs, line
