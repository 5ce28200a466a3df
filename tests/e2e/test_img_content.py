# SPDX-License-Identifier: MIT
"""platter map, compare and inspect."""
import json
import subprocess

import pytest

from tools_common import needs, platter, qemu


def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


def io(path, fmt, *commands):
    done = qemu('qemu-io', '-f', fmt, *[w for c in commands for w in ('-c', c)], path)
    assert done.returncode == 0, done.stdout
    return path


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / 'd.raw'
    qemu_img('create', '-q', '-f', 'raw', path, '12M')
    return io(path, 'raw', 'write 1M 2M', 'write 7M 64k')


@pytest.fixture
def overlay(tmp_path, raw):
    path = tmp_path / 'd.qcow2'
    qemu_img('create', '-q', '-f', 'qcow2', '-b', raw, '-F', 'raw', path, '16M')
    return io(path, 'qcow2', 'write 0 64k', 'write -z 4M 1M', 'write 7M 128k', 'write 2M 64k',
              'discard 8M 1M')


# ---- map ----

WINDOWS = [[], ['-s', '1M', '-l', '1M'], ['--start-offset=1M', '--max-length=3M'], ['-s', '512'],
           ['-l', '0'], ['-s', '100M'], ['-U']]


@pytest.mark.parametrize('form', ['human', 'json'])
@pytest.mark.parametrize('window', WINDOWS)
def test_map_raw(raw, form, window):
    arguments = ['map', '-f', 'raw', f'--output={form}', *window, raw]
    ours, theirs = platter(*arguments), qemu_img(*arguments)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@needs('qcow2')
@pytest.mark.parametrize('form', ['human', 'json'])
@pytest.mark.parametrize('window', WINDOWS)
def test_map_overlay(overlay, form, window):
    arguments = ['map', f'--output={form}', *window, overlay]
    ours, theirs = platter(*arguments), qemu_img(*arguments)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@needs('qcow2')
@pytest.mark.parametrize('options', ['extended_l2=on', 'cluster_size=512'])
def test_map_other_shapes(tmp_path, options):
    path = tmp_path / 'd.qcow2'
    qemu_img('create', '-q', '-f', 'qcow2', '-o', options, path, '4M')
    io(path, 'qcow2', 'write 0 4k', 'write 20k 8k', 'write -z 128k 64k', 'write 1M 1M',
       'write -z 1025k 2k')
    for form in ('human', 'json'):
        ours = platter('map', f'--output={form}', path)
        theirs = qemu_img('map', f'--output={form}', path)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@needs('qcow2')
def test_map_compressed(tmp_path):
    path = tmp_path / 'd.qcow2'
    qemu_img('create', '-q', '-f', 'qcow2', path, '1M')
    io(path, 'qcow2', 'write 0 64k', 'write -c 64k 64k')
    for form in ('human', 'json'):
        ours = platter('map', f'--output={form}', path)
        theirs = qemu_img('map', f'--output={form}', path)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['a', 'b'], "'b' is too much"),
    (['-s', 'x', 'a'], "'x' is not a size"),
    (['-l', 'x', 'a'], "'x' is not a size"),
    (['--output=xml', 'a'], "no output form 'xml'"),
])
def test_map_refuses(arguments, message):
    done = platter('map', *arguments)
    assert done.returncode == 2
    assert message in done.stderr


# ---- compare ----

def without_progress(text):
    return [line for line in text.splitlines() if not line.endswith('/100%)')]


def change(*commands):
    return lambda path: io(path, 'raw', *commands)


def size(bytes_):
    return lambda path: qemu_img('resize', '-f', 'raw', '--shrink', path, bytes_)


CHANGES = {
    'nothing': [],
    'a sector': [change('write -P 7 5000k 512')],
    'first sector': [change('write -P 7 0 512')],
    'one byte': [change('write -P 7 2097153 1')],
    'zeroes written': [change('write -P 0 9M 64k')],
    'larger, empty': [size('14M')],
    'larger, zeroes': [size('14M'), change('write -P 0 13M 64k')],
    'larger, data': [size('14M'), change('write -P 3 13M 64k')],
    'smaller': [size('8M')],
    'smaller, cut off data': [size('2M')],
    'odd size': [size('12582000')],
}


@pytest.mark.parametrize('options', [[], ['-s'], ['-p'], ['-q'], ['-p', '-s']])
@pytest.mark.parametrize('what', CHANGES)
def test_compare_raw(tmp_path, raw, what, options):
    other = tmp_path / 'other.raw'
    subprocess.run(['cp', '--sparse=always', raw, other], check=True)
    for step in CHANGES[what]:
        step(other)
    for files in ((raw, other), (other, raw)):
        arguments = ['compare', '-f', 'raw', '-F', 'raw', *options, *files]
        ours, theirs = platter(*arguments), qemu_img(*arguments)
        assert ours.returncode == theirs.returncode
        # how often the progress line is printed is each program's own affair
        assert without_progress(ours.stdout) == without_progress(theirs.stdout)
        assert ('%)' in ours.stdout) == ('%)' in theirs.stdout)


@needs('qcow2')
def test_compare_formats(tmp_path, overlay):
    flat = tmp_path / 'flat.qcow2'
    qemu_img('convert', '-O', 'qcow2', overlay, flat)
    for options in ([], ['-s']):
        ours = platter('compare', *options, overlay, flat)
        theirs = qemu_img('compare', *options, overlay, flat)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    io(flat, 'qcow2', 'write -P 1 3M 512')
    ours, theirs = platter('compare', overlay, flat), qemu_img('compare', overlay, flat)
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)


@pytest.mark.parametrize('arguments, message', [
    ([], 'two FILEs are wanted'),
    (['a'], 'two FILEs are wanted'),
    (['a', 'b', 'c'], "'c' is too much"),
    (['a', 'b', '-T', 'bad'], "no cache mode 'bad'"),
    (['nofile', 'nofile'], 'No such file or directory'),
    (['--nope'], "no option '--nope'"),
])
def test_compare_refuses(tmp_path, arguments, message):
    done = platter('compare', *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr


# ---- inspect ----

def test_inspect_raw(raw):
    facts = json.loads(platter('inspect', '--output=json', raw).stdout)
    assert (facts['format'], facts['file-bytes']) == ('raw', 12 << 20)
    assert f'filename: {raw}\n' in platter('inspect', raw).stdout


@needs('qcow2')
def test_inspect_opens_nothing_else(tmp_path, overlay, raw):
    before = json.loads(platter('inspect', '--output=json', overlay).stdout)
    raw.unlink()
    after = json.loads(platter('inspect', '--output=json', '-f', 'qcow2', overlay).stdout)
    assert before['metadata'] == after['metadata'] and after['metadata']
    assert str(raw) in json.dumps(after)
    human = platter('inspect', overlay)
    assert human.returncode == 0
    assert 'format: qcow2\n' in human.stdout


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['nofile'], 'No such file or directory'),
    (['-f', 'nope', 'a'], "'nope'"),
    (['--output=xml', 'a'], "no output form 'xml'"),
])
def test_inspect_refuses(tmp_path, arguments, message):
    (tmp_path / 'a').write_bytes(bytes(512))
    done = platter('inspect', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
