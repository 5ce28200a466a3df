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


def fails(line, link, chains, tmp_path, gone=''):
    """What both print where a file of the chain is not there."""
    answers = []
    for program in (link, PROGRAM):
        work = tmp_path / 'work'
        shutil.copytree(chains, work, symlinks=True)
        if gone:
            (work / gone).unlink()
        done = run([program, *(word.format(work=work) for word in line)], cwd=work)
        shutil.rmtree(work)
        answers.append((done.stdout, done.stderr, done.returncode))
    assert answers[0] == answers[1], line
    assert done.returncode != 0


WITH_CHAIN = ('info --backing-chain', 'info -U --backing-chain --output=json', 'map', 'compare sub/other', 'measure -O raw', 'commit',
              'commit -b base', 'rebase -b other -F qcow2', 'resize', 'amend -o lazy_refcounts=on', 'bench -c 1')


@pytest.mark.parametrize('gone', ['sub/base', 'sub/mid', 'sub/deep/top'])
@pytest.mark.parametrize('command', WITH_CHAIN)
def test_a_file_of_the_chain_is_gone(command, gone, link, chains, tmp_path):
    size = ['2M'] if command == 'resize' else []
    for top in ('sub/deep/above', '{work}/sub/deep/above', './sub/deep/above'):
        fails([*command.split(), top, *size], link, chains, tmp_path, gone)
    fails(['convert', '-O', 'raw', 'sub/deep/above', 'new'], link, chains, tmp_path, gone)
    fails(['create', '-f', 'qcow2', '-b', 'sub/deep/above', '-F', 'qcow2', 'new'], link, chains, tmp_path, gone)


@pytest.mark.parametrize('new', ['bad', 'deep/bad', './bad', '../bad', '{work}/bad', 'file:bad', 'sub/base', 'sub/deep/far'])
def test_the_new_backing_file_is_not_there(new, link, chains, tmp_path):
    """It is called what it was called."""
    for image in ('sub/mid', 'sub/deep/top', '{work}/sub/mid'):
        fails(['rebase', '-b', new, '-F', 'qcow2', image], link, chains, tmp_path)
