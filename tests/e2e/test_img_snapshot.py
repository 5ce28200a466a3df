# SPDX-License-Identifier: MIT
"""platter snapshot beside qemu-img snapshot; snapshots shown by map, measure, io and serve."""
import re
import shutil

import pytest

from tools_common import needs, platter, qemu

DATE = re.compile(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d')


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / 'd.qcow2'
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', path, '16M')
    qemu('qemu-io', '-c', 'write -P 1 0 1M', path)
    return path


def listed(path, program=platter):
    done = program('snapshot', '-l', path)
    assert done.returncode == 0, done.stderr
    return DATE.sub('DATE', done.stdout)


def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


@needs('qcow2')
def test_the_table_is_that_of_the_reference(disk):
    assert listed(disk) == listed(disk, qemu_img) == ''
    for name in ('first', 'first', '', 'a name of more than sixteen letters', 'käse'):
        qemu_img('snapshot', '-c', name, disk)
    assert platter('snapshot', '-l', disk).stdout == qemu_img('snapshot', '-l', disk).stdout
    assert platter('snapshot', disk).stdout == platter('snapshot', '-l', disk).stdout


@needs('qcow2')
def test_create_apply_delete_turn_by_turn(tmp_path, disk):
    theirs = tmp_path / 'theirs.qcow2'
    shutil.copy(disk, theirs)
    steps = [('-c', 'one'), ('write', '2'), ('-c', 'two'), ('write', '3'), ('-a', 'one'),
             ('-c', 'three'), ('-d', 'one'), ('write', '4'), ('-a', '2'), ('-d', 'three'),
             ('-d', 'two')]
    for verb, word in steps:
        for path, program in ((disk, platter), (theirs, qemu_img)):
            if verb == 'write':
                qemu('qemu-io', '-c', f'write -P {word} 512k 1M', path)
            else:
                done = program('snapshot', verb, word, path)
                assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        assert listed(disk) == listed(theirs, qemu_img)
        assert qemu_img('check', disk).returncode == 0
        assert qemu_img('compare', disk, theirs).returncode == 0


@needs('qcow2')
@pytest.mark.parametrize('verb', ['-a', '-d'])
def test_what_is_not_there(disk, verb):
    done = platter('snapshot', verb, 'nope', disk)
    theirs = qemu_img('snapshot', verb, 'nope', disk)
    assert done.returncode == theirs.returncode == 1
    assert f"Could not {'apply' if verb == '-a' else 'delete'} snapshot 'nope': " in done.stderr


@needs('qcow2')
def test_delete_goes_by_name_only(disk):
    qemu_img('snapshot', '-c', 'one', disk)
    assert platter('snapshot', '-d', '1', disk).returncode == 1
    assert platter('snapshot', '-d', 'one', disk).returncode == 0


@needs('qcow2')
@pytest.mark.parametrize('word', ['one', '1', 'snapshot.name=one', 'snapshot.id=1,snapshot.name=one'])
def test_a_snapshot_is_shown(tmp_path, disk, word):
    assert platter('snapshot', '-c', 'one', disk).returncode == 0
    qemu('qemu-io', '-c', 'write -P 9 0 2M', disk)
    raw = tmp_path / 'one.raw'
    qemu_img('convert', '-O', 'raw', '-l', word, disk, raw)
    assert platter('io', '-l', word, '-c', 'read -P 1 0 1M', '-c', 'read -P 0 1M 1M',
                   disk).returncode == 0
    assert platter('io', '-l', word, '-c', 'write 0 64k', disk).returncode == 1
    for form in ('human', 'json'):
        ours = platter('measure', f'--output={form}', '-O', 'qcow2', '-l', word, disk)
        theirs = qemu_img('measure', f'--output={form}', '-O', 'qcow2', '-l', word, disk)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    shown = platter('map', '--output=json', f'--load-snapshot={word}', disk)
    assert shown.returncode == 0
    assert '"length": 1048576' in shown.stdout


@needs('qcow2')
def test_vm_state(disk):
    done = platter('io', '-c', 'write -b -P 7 0 128k', '-c', 'read -b -P 7 64k 64k', disk)
    assert done.returncode == 0, done.stdout
    assert qemu('qemu-io', '-c', 'read -b -P 7 0 128k', disk).returncode == 0
    assert qemu_img('check', disk).returncode in (0, 3)
    qemu('qemu-io', '-c', 'write -b -P 8 64k 64k', disk)
    assert platter('io', '-r', '-c', 'read -b -P 8 64k 64k', disk).returncode == 0


def test_formats_without_snapshots(tmp_path):
    path = tmp_path / 'd.raw'
    path.write_bytes(bytes(1 << 20))
    done = platter('snapshot', '-l', path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    for verb, word in (('-c', 'create'), ('-a', 'apply'), ('-d', 'delete')):
        done = platter('snapshot', '-f', 'raw', verb, 'x', path)
        assert done.returncode == 1
        assert f"Could not {word} snapshot 'x': " in done.stderr


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['-l', '-c', 'x', 'a'], "Cannot mix '-l', '-a', '-c', '-d'"),
    (['-c'], "needs a value"),
    (['-c', 'x'], 'which FILE?'),
    (['-U', '-c', 'x', '-f', 'raw', 'a'], 'force-share'),
])
def test_wrong_command_lines(tmp_path, arguments, message):
    (tmp_path / 'a').write_bytes(bytes(512))
    done = platter('snapshot', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
