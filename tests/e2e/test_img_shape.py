# SPDX-License-Identifier: MIT
"""platter resize, amend and measure beside qemu-img."""
import json
import os
import shutil

import pytest

from tools_common import needs, platter, qemu, same_json


def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


def pair(tmp_path, fmt, *options):
    ours, theirs = tmp_path / f'ours.{fmt}', tmp_path / f'theirs.{fmt}'
    qemu_img('create', '-q', '-f', fmt, *options, ours, '10M')
    qemu('qemu-io', '-f', fmt, '-c', 'write -P 1 0 2M', '-c', 'write -P 2 9M 1M', ours)
    shutil.copy(ours, theirs)
    return ours, theirs


def virtual_size(path):
    return json.loads(qemu_img('info', '--output=json', path).stdout)['virtual-size']


# ---- resize ----

RESIZES = [
    ['20M'], ['+1M'], ['10M'], ['+0'], ['-1M'], ['--shrink', '-1M'], ['--shrink', '5M'], ['5M'],
    ['--shrink', '-10M'], ['--shrink', '-100M'], ['0'], ['--shrink', '0'], ['8E'], ['30.5M'],
    ['--shrink', '--preallocation=off', '1M'], ['--shrink', '--preallocation=full', '1M'],
    ['--preallocation=full', '12M'], ['--preallocation=falloc', '+2M'], ['-q', '11M'],
    ['--preallocation=bad', '12M'], ['xx'], ['+'], [''],
]


@pytest.mark.parametrize('fmt', ['raw', pytest.param('qcow2', marks=needs('qcow2'))])
@pytest.mark.parametrize('arguments', RESIZES)
def test_resize(tmp_path, fmt, arguments):
    ours, theirs = pair(tmp_path, fmt)
    *options, size = arguments
    a = platter('resize', '-f', fmt, *options, ours, size)
    b = qemu_img('resize', '-f', fmt, *options, theirs, size)
    assert (a.returncode == 0) == (b.returncode == 0), a.stderr
    assert a.stdout == b.stdout
    assert virtual_size(ours) == virtual_size(theirs)
    if fmt == 'raw':
        assert ours.read_bytes() == theirs.read_bytes()
    else:
        assert qemu_img('check', ours).returncode == 0
        assert qemu_img('compare', ours, theirs).returncode == 0


def test_shrinking_wants_to_be_asked_for(tmp_path):
    ours, _ = pair(tmp_path, 'raw')
    done = platter('resize', '-f', 'raw', ours, '5M')
    assert done.returncode == 1
    assert 'Use the --shrink option to perform a shrink operation.' in done.stderr
    assert 'warning: Shrinking an image will delete all data' in done.stderr
    assert os.path.getsize(ours) == 10 << 20


@needs('qcow2')
@pytest.mark.parametrize('mode', ['off', 'metadata', 'falloc', 'full'])
def test_resize_qcow2_preallocation(tmp_path, mode):
    ours, theirs = pair(tmp_path, 'qcow2')
    for path, program in ((ours, platter), (theirs, qemu_img)):
        assert program('resize', f'--preallocation={mode}', path, '40M').returncode == 0
    assert os.path.getsize(ours) == os.path.getsize(theirs)
    assert qemu_img('check', ours).stdout == qemu_img('check', theirs).stdout
    assert qemu_img('compare', ours, theirs).returncode == 0


@needs('qcow2')
def test_resize_with_snapshots(tmp_path):
    ours, _ = pair(tmp_path, 'qcow2')
    for size in ('20M', '8M'):
        qemu_img('snapshot', '-c', size, ours)
        assert platter('resize', '--shrink', ours, size).returncode == 0
        assert qemu_img('check', ours).returncode == 0
    assert qemu_img('snapshot', '-a', '20M', ours).returncode == 0
    assert virtual_size(ours) == 10 << 20
    old, _ = pair(tmp_path, 'qcow2', '-o', 'compat=0.10')
    qemu_img('snapshot', '-c', 'x', old)
    assert platter('resize', old, '20M').returncode == 1


@pytest.mark.parametrize('arguments, message', [
    ([], 'FILE and SIZE are wanted'),
    (['a'], 'FILE and SIZE are wanted'),
    (['a', '1M', 'x'], "'x' is too much"),
    (['nofile', '1M'], 'No such file or directory'),
])
def test_resize_refuses(tmp_path, arguments, message):
    done = platter('resize', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr


# ---- amend ----

AMENDS = [
    'compat=0.10', 'compat=1.1', 'lazy_refcounts=on', 'refcount_bits=1', 'refcount_bits=64',
    'refcount_bits=8,lazy_refcounts=on', 'size=20M', 'size=10M', 'compat=bad', 'refcount_bits=3',
    'refcount_bits=64,compat=0.10', 'lazy_refcounts=on,compat=0.10', 'cluster_size=4k', 'nope=1',
    'extended_l2=on', 'preallocation=full', 'compression_type=zstd', 'data_file_raw=on',
    'backing_file=x', 'compat=v3', 'compat=v2',
]


@needs('qcow2')
@pytest.mark.parametrize('options', AMENDS)
def test_amend(tmp_path, options):
    ours, theirs = pair(tmp_path, 'qcow2')
    a = platter('amend', '-o', options, ours)
    b = qemu_img('amend', '-o', options, theirs)
    assert (a.returncode == 0) == (b.returncode == 0), a.stderr
    assert a.stdout == b.stdout == ''
    keys = ('virtual-size', 'format-specific', 'cluster-size')
    mine = json.loads(qemu_img('info', '--output=json', ours).stdout)
    other = json.loads(qemu_img('info', '--output=json', theirs).stdout)
    assert [mine.get(k) for k in keys] == [other.get(k) for k in keys]
    assert qemu_img('check', ours).returncode == 0
    assert qemu_img('compare', ours, theirs).returncode == 0


@needs('qcow2')
def test_amend_tells_its_options_and_its_progress(tmp_path):
    ours, theirs = pair(tmp_path, 'qcow2')
    mine = platter('amend', '-f', 'qcow2', '-o', 'help')
    other = qemu_img('amend', '-f', 'qcow2', '-o', 'help')
    assert mine.returncode == other.returncode == 0
    names = {line.split('=')[0].strip() for line in other.stdout.splitlines()[1:]}
    assert {n for n in names if not n.startswith('encrypt.')} <= {
        line.split('=')[0].strip() for line in mine.stdout.splitlines()[1:]}
    assert platter('amend', '-o', 'help', ours).stdout == mine.stdout
    done = platter('amend', '-p', '-o', 'compat=0.10', theirs)
    shown = done.stdout.splitlines()
    assert (shown[0], '    (100.00/100%)' in shown[-2:]) == ('    (0.00/100%)', True)
    done = platter('amend', '-p', '-q', '-o', 'compat=1.1', theirs)
    assert (done.returncode, done.stdout) == (0, '')


@pytest.mark.parametrize('arguments, message', [
    (['a'], 'Must specify options (-o)'),
    (['-o', 'compat=1.1'], 'which FILE?'),
    (['-f', 'raw', '-o', 'help'], "Format driver 'raw' does not support option amendment"),
    (['-f', 'raw', '-o', 'size=1M', 'a'], "Format driver 'raw' does not support option amendment"),
    (['-f', 'nope', '-o', 'help'], "Unknown file format 'nope'"),
    (['-t', 'bad', '-o', 'compat=1.1', 'a'], "no cache mode 'bad'"),
    (['-o', '=', 'a'], 'platter: amend: '),
])
def test_amend_refuses(tmp_path, arguments, message):
    (tmp_path / 'a').write_bytes(bytes(512))
    done = platter('amend', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr


# ---- measure ----

@pytest.mark.parametrize('fmt,size', [
    *(('raw', size) for size in ('0', '1M', '10G', '2T')), # the reference knows whole sectors only
    *(pytest.param('qcow2', size, marks=needs('qcow2')) for size in ('0', '1M', '10G', '5000000', '2T'))])
@pytest.mark.parametrize('form', ['human', 'json'])
def test_measure_a_size(fmt, size, form):
    ours = platter('measure', f'--output={form}', '-O', fmt, '--size', size)
    theirs = qemu_img('measure', f'--output={form}', '-O', fmt, '--size', size)
    assert ours.returncode == theirs.returncode == 0, ours.stderr
    if form == 'json':
        assert json.loads(ours.stdout) == json.loads(theirs.stdout)
    else:
        assert ours.stdout == theirs.stdout


@needs('qcow2')
@pytest.mark.parametrize('options', [
    'cluster_size=512', 'cluster_size=2M', 'refcount_bits=1', 'refcount_bits=64,cluster_size=4k',
    'extended_l2=on', 'preallocation=metadata', 'preallocation=full', 'compat=0.10',
    'backing_file=x,backing_fmt=raw', 'lazy_refcounts=on',
])
def test_measure_options(tmp_path, options):
    source, _ = pair(tmp_path, 'raw')
    for what in (['--size', '100M'], ['-f', 'raw', source]):
        ours = platter('measure', '-O', 'qcow2', '-o', options, *what)
        theirs = qemu_img('measure', '-O', 'qcow2', '-o', options, *what)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), ours.stderr


@needs('qcow2')
def test_measure_a_disk(tmp_path):
    source, _ = pair(tmp_path, 'qcow2')
    for _ in range(2):
        for fmt in ('raw', 'qcow2'):
            ours = platter('measure', '--output=json', '-O', fmt, source)
            theirs = qemu_img('measure', '--output=json', '-O', fmt, source)
            assert ours.returncode == theirs.returncode == 0, ours.stderr
            assert same_json(ours, theirs)
        qemu_img('bitmap', '--add', source, 'b0')


@pytest.mark.parametrize('arguments, message', [
    ([], 'Either --size N or one filename must be specified.'),
    (['--size', '1M', 'a'], '--size N cannot be used together with a filename.'),
    (['--size', '1M', '-f', 'raw'], '--image-opts, -f, and -l require a filename argument.'),
    (['--size', '1M', '-l', 'x'], '--image-opts, -f, and -l require a filename argument.'),
    (['--size', 'big'], "'big' is not a size"),
    (['--size', '-1'], "'-1' is not a size"),
    (['--size', '8E'], 'too large'),
    (['--size', '1M', '-O', 'nope'], "'nope'"),
    (['--size', '1M', '-o', 'nope=1'], "'nope'"),
    (['--output=xml', '--size', '1M'], "no output form 'xml'"),
    (['nofile'], 'No such file or directory'),
])
def test_measure_refuses(tmp_path, arguments, message):
    done = platter('measure', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ''
    assert message in done.stderr
