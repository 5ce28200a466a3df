# SPDX-License-Identifier: MIT
"""The filter blkverify beside that of the installed tools: the same disks afterwards, the same words,
and a difference found at the same place."""
import re

import pytest

from tools_common import called, platter, qemu, run

OPTIONS = ('driver=blkverify,raw.driver=file,raw.filename=a.raw,test.driver={fmt},'
           'test.file.driver=file,test.file.filename=t.img')
# no "write -z": the reference ends by an assertion
COMMANDS = [['write -P 1 0 64k', 'read -P 1 0 64k', 'flush', 'length'],
            ['write -P 2 100 5', 'read -P 2 100 5', 'read 0 1M', 'discard 0 4k', 'read -P 0 4k 4k'],
            ['write -P 3 1000k 24k', 'read -v 1023k 1k', 'read 1M 512'],
            ['aio_write -P 4 0 4k', 'aio_write -P 5 8k 4k', 'aio_flush', 'read 0 64k']]




@pytest.fixture(scope='module')
def links(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {name: called(folder, name) for name in ('qemu-io', 'qemu-img')}


def disks(folder, fmt, raw_size='1M'):
    folder.mkdir()
    qemu('qemu-img', 'create', '-q', '-f', 'raw', 'a.raw', raw_size, cwd=folder)
    qemu('qemu-img', 'create', '-q', '-f', fmt, 't.img', '1M', cwd=folder)


def words(commands):
    return [word for command in commands for word in ('-c', command)]


def timeless(text):
    """Without times, and in any order: which of two requests ends first is nobody's promise."""
    return sorted(re.sub(r'ops; .*', 'ops', text).splitlines())


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
@pytest.mark.parametrize('number', range(len(COMMANDS)))
def test_same(number, fmt, links, tmp_path):
    outcomes = []
    for name, io in (('ours', links['qemu-io']), ('reference', 'qemu-io')):
        folder = tmp_path / name
        disks(folder, fmt)
        done = run([io, '--image-opts', *words(COMMANDS[number]), OPTIONS.format(fmt=fmt)], cwd=folder)
        qemu('qemu-img', 'compare', '-f', 'raw', '-F', fmt, 'a.raw', 't.img', cwd=folder)
        outcomes.append((done.returncode, timeless(done.stdout), done.stderr.replace(str(io), 'qemu-io'),
                         (folder / 'a.raw').read_bytes()))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize('at,read', [(0, '0 4k'), (70000, '0 1M'), (70000, '70000 1'), (1048575, '512k 512k')])
def test_difference(at, read, links, tmp_path):
    """Found at the same place; the reference ends there, ours goes on with an error."""
    found = []
    for name, io in (('ours', links['qemu-io']), ('reference', 'qemu-io')):
        folder = tmp_path / name
        disks(folder, 'qcow2')
        with open(folder / 'a.raw', 'r+b') as raw:
            raw.seek(at)
            raw.write(b'x')
        done = run([io, '--image-opts', '-c', f'read {read}', '-c', 'length', OPTIONS.format(fmt='qcow2')],
                   cwd=folder)
        assert done.returncode == 1
        found.append(re.search(r'blkverify: read .* contents mismatch at offset (\d+)', done.stderr))
        if name == 'ours':
            assert 'read failed: Input/output error' in done.stdout + done.stderr
            assert '1 MiB' in done.stdout
            assert f'(sector {at // 512})' in done.stderr
    assert found[0].group(1) == found[1].group(1) == str(at)


@pytest.mark.parametrize('name', ['blkverify:a.raw', 'blkverify:none:t.img', 'blkverify:a.raw:none',
                                  'blkverify:a.raw:', 'blkverify::t.img'])
def test_refused(name, links, tmp_path):
    disks(tmp_path / 'x', 'qcow2')
    ours, theirs = (run([io, '-f', 'raw', '-c', 'length', name], cwd=tmp_path / 'x')
                    for io in (links['qemu-io'], 'qemu-io'))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    if '::' not in name and not name.endswith(':'): # an empty path is a path to us
        assert ours.stderr.replace(str(links['qemu-io']), 'qemu-io') == theirs.stderr


@pytest.mark.parametrize('arguments', [
    ['blkverify:a.raw:t.img'],
    ['--image-opts', OPTIONS.format(fmt='qcow2')],
    ['json:{"driver":"blkverify","raw":{"driver":"file","filename":"a.raw"},'
     '"test":{"driver":"qcow2","file":{"driver":"file","filename":"t.img"}}}']])
def test_info(arguments, links, tmp_path):
    disks(tmp_path / 'x', 'qcow2')
    ours, theirs = (run([img, 'info', *arguments], cwd=tmp_path / 'x')
                    for img in (links['qemu-img'], 'qemu-img'))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


def test_sizes(tmp_path):
    """On purpose not as the reference, which takes them and fails or asserts later."""
    disks(tmp_path / 'x', 'qcow2', '512k')
    done = platter('io', '-c', 'length', '--image-opts', OPTIONS.format(fmt='qcow2'), cwd=tmp_path / 'x')
    assert done.returncode == 1 and 'differ in size' in done.stderr and '524288' in done.stderr


def test_zeroes_and_resize(tmp_path):
    disks(tmp_path / 'x', 'qcow2')
    done = platter('io', '--image-opts',
                   *words(['write -P 1 0 1M', 'write -z 4k 64k', 'write -zu 128k 128k', 'truncate 2M',
                           'read 0 2M', 'length']), OPTIONS.format(fmt='qcow2'), cwd=tmp_path / 'x')
    assert done.returncode == 0, done.stderr
    assert '2 MiB' in done.stdout and done.stderr == ''
    qemu('qemu-img', 'compare', '-s', '-f', 'raw', '-F', 'qcow2', 'a.raw', 't.img', cwd=tmp_path / 'x')
