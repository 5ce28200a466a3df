# SPDX-License-Identifier: MIT
"""Amending qcow2 beside the reference."""
import json
import shutil

import pytest

from qcow2_image import Image, differing
from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')


def qemu_img(*arguments):
    return qemu('qemu-img', *arguments)


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def clean(path):
    ok(qemu_img('check', path))


def pair(tmp_path, options='cluster_size=64k', size='1M', writes=(), create=()):
    ours = tmp_path / 'ours.qcow2'
    ok(qemu_img('create', '-q', '-f', 'qcow2', '-o', options, *create, ours, size))
    for command in writes:
        ok(qemu('qemu-io', '-c', command, ours))
    return ours, shutil.copy(ours, tmp_path / 'theirs.qcow2')


def amend(options, ours, theirs, message=None):
    a = platter('amend', '-f', 'qcow2', '-o', options, ours)
    b = qemu_img('amend', '-f', 'qcow2', '-o', options, theirs)
    assert a.returncode == b.returncode, a.stderr + b.stderr
    assert a.stdout == ''
    if message:
        assert message in b.stderr
        assert message in a.stderr
    return a


ZEROES = ['write -q -P 1 0 64k', 'write -q -z 64k 64k', 'write -q -P 2 128k 64k',
          'write -q -z 128k 64k']


def test_compat_there_and_back(tmp_path):
    ours, theirs = pair(tmp_path, writes=ZEROES)
    for options in ('compat=0.10', 'compat=1.1', 'compat=v2', 'compat=v3,lazy_refcounts=on',
                    'compat=0.10'):
        amend(options, ours, theirs)
        assert differing(ours, theirs) == []
        clean(ours)
    ok(qemu('qemu-io', '-c', 'read -q -P 1 0 64k', '-c', 'read -q -P 0 64k 960k', ours))


REFUSED = [
    ('compat=0.12', 'Unknown compatibility level 0.12'),
    ('refcount_bits=3', 'Refcount width must be a power of two and may not exceed 64 bits'),
    ('refcount_bits=128', 'Refcount width must be a power of two and may not exceed 64 bits'),
    ('refcount_bits=0', 'Refcount width must be a power of two and may not exceed 64 bits'),
    ('backing_file=base.raw,backing_fmt=raw', 'Cannot amend the backing file'),
    ('backing_fmt=qcow2', 'Cannot amend the backing file'),
    ('data_file=r.raw', 'data-file can only be set for images that use an external data file'),
    ('data_file_raw=on', 'data-file-raw cannot be set on existing images'),
    ('size=1000', 'The new size must be a multiple of 512'),
    ('cluster_size=4k', "Invalid parameter 'cluster_size'"),
    ('preallocation=full', "Invalid parameter 'preallocation'"),
    ('extended_l2=on', "Invalid parameter 'extended_l2'"),
    ('compression_type=zstd', "Invalid parameter 'compression_type'"),
    ('nonsense=1', "Invalid parameter 'nonsense'"),
    ('compat=0.10,lazy_refcounts=on',
     'Lazy refcounts only supported with compatibility level 1.1 and above'),
]


@pytest.mark.parametrize('options, message', REFUSED)
def test_what_is_refused(tmp_path, options, message):
    ours, theirs = pair(tmp_path, writes=ZEROES)
    before = ours.read_bytes()
    assert amend(options, ours, theirs, message).returncode == 1
    assert ours.read_bytes() == before


@pytest.mark.parametrize('options, message', [
    ('refcount_bits=64', 'Refcount widths other than 16 bits require compatibility level 1.1'),
    ('refcount_bits=8,compat=0.10',
     'Refcount widths other than 16 bits require compatibility level 1.1'),
    ('lazy_refcounts=on', 'Lazy refcounts only supported with compatibility level 1.1 and above'),
])
def test_what_version_2_is_refused(tmp_path, options, message):
    ours, theirs = pair(tmp_path, 'compat=0.10')
    before = ours.read_bytes()
    assert amend(options, ours, theirs, message).returncode == 1
    assert ours.read_bytes() == before


def test_what_version_2_cannot_say(tmp_path):
    for create, message in (('extended_l2=on', 'incompatible features 0x10 set'),
                            ('refcount_bits=1', 'compat=0.10 requires refcount_bits=16'),
                            (f'data_file={tmp_path}/d.raw', 'data file')):
        ours, theirs = pair(tmp_path, create)
        before = ours.read_bytes()
        assert amend('compat=0.10', ours, theirs, message).returncode == 1
        assert ours.read_bytes() == before
    # where the reference drops what it cannot keep, we refuse
    ours, _ = pair(tmp_path)
    ok(qemu_img('bitmap', '--add', ours, 'b'))
    done = platter('amend', '-o', 'compat=0.10', ours)
    assert (done.returncode, 'bitmaps' in done.stderr) == (1, True)


# Larger clusters with narrow counts keep the reference busy for minutes.
@pytest.mark.parametrize('cluster,bits', [*((c, b) for c in ('512', '4k') for b in (1, 2, 4, 8, 16, 32, 64)),
                                          ('16k', 1), ('16k', 8), ('32k', 64)])
def test_refcount_widths(tmp_path, cluster, bits):
    ours, theirs = pair(tmp_path, f'cluster_size={cluster}', writes=['write -q -P 1 0 500k'])
    for width in (bits, 16, 8, bits):
        amend(f'refcount_bits={width}', ours, theirs)
        assert differing(ours, theirs, free=False) == []
        clean(ours)
        for path in (ours, theirs):
            ok(qemu('qemu-io', '-c', f'write -q -P {width} 400k 200k', path))
        assert differing(ours, theirs, free=False) == []


def test_refcounts_that_do_not_fit(tmp_path):
    ours, theirs = pair(tmp_path, 'cluster_size=512', writes=['write -q -P 1 0 100k'])
    for path in (ours, theirs):
        for name in 'abc':
            ok(qemu_img('snapshot', '-c', name, path))
    before = ours.read_bytes()
    amend('refcount_bits=1', ours, theirs,
          'Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x800 has a refcount '
          'of 4')
    assert ours.read_bytes() == before
    amend('refcount_bits=4', ours, theirs)
    assert Image(ours).without_dates() == Image(theirs).without_dates() or differing(
        ours, theirs) == []
    clean(ours)


def test_zero_clusters_of_snapshots(tmp_path):
    base = tmp_path / 'base.raw'
    base.write_bytes(b'\7' * (1 << 20))
    for create in ((), ('-b', base, '-F', 'raw')):
        ours, _ = pair(tmp_path, 'cluster_size=4k', writes=[
            'write -q -P 1 0 64k', 'write -q -z 64k 64k', 'write -q -P 2 128k 64k',
            'write -q -z 128k 64k'], create=create)
        ok(qemu_img('snapshot', '-c', 'a', ours))
        ok(qemu('qemu-io', '-c', 'write -q -z 0 32k', '-c', 'write -q -P 3 64k 8k', ours))
        ok(qemu_img('snapshot', '-c', 'b', ours))
        ok(qemu('qemu-io', '-c', 'write -q -z 512k 100k', ours))
        raws = []
        for round_ in range(2):
            for name in ('a', 'b', None):
                raw = tmp_path / f'{name}{round_}.raw'
                ok(qemu_img('convert', '-O', 'raw', *(['-l', name] if name else []), ours, raw))
                raws.append(raw.read_bytes())
            if round_ == 0:
                ok(platter('amend', '-o', 'compat=0.10', ours))
                clean(ours)
                assert Image(ours).version == 2
        assert raws[:3] == raws[3:]
        for name in 'ab':
            ok(qemu_img('snapshot', '-d', name, ours))
        clean(ours)


def test_size(tmp_path):
    ours, theirs = pair(tmp_path, writes=ZEROES)
    for size in ('2M', '0', '1M', '64k', '700M'):
        amend(f'size={size}', ours, theirs)
        assert differing(ours, theirs) == []
        clean(ours)


def test_data_file(tmp_path):
    first, second = tmp_path / 'one.raw', tmp_path / 'two.raw'
    ours, theirs = pair(tmp_path, f'data_file={first},data_file_raw=on')
    shutil.copy(first, second)
    for options in ('data_file_raw=on', 'data_file_raw=off', f'data_file={second}'):
        amend(options, ours, theirs)
        assert differing(ours, theirs) == []
    told = json.loads(qemu_img('info', '--output=json', ours).stdout)
    assert told['format-specific']['data']['data-file'] == str(second)
    amend('data_file_raw=on', ours, theirs, 'data-file-raw cannot be set on existing images')


def test_same_backing_file(tmp_path):
    base = tmp_path / 'base.raw'
    base.write_bytes(bytes(1 << 20))
    ours, theirs = pair(tmp_path, create=('-b', base, '-F', 'raw'))
    amend(f'backing_file={base},backing_fmt=raw', ours, theirs)
    amend('backing_file=', ours, theirs, 'Cannot amend the backing file')
    assert differing(ours, theirs) == []
