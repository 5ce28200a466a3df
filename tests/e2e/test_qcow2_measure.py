# SPDX-License-Identifier: MIT
"""The sizes of platter measure are those of qemu-img measure."""
import os
import random

import pytest

from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

SEED = int(os.environ.get('PLATTER_SEED', '20250112'))
SAMPLES = int(os.environ.get('PLATTER_ROUNDS', '100'))


def check_same(*arguments, cwd=None):
    a = platter('measure', '-O', 'qcow2', *arguments, cwd=cwd)
    b = qemu('qemu-img', 'measure', '-O', 'qcow2', *arguments, cwd=cwd)
    where = f'PLATTER_SEED={SEED}: {arguments}\n{a.stderr}{b.stderr}'
    assert (a.returncode == 0) == (b.returncode == 0), where
    assert a.stdout == b.stdout, where


def random_options(rng):
    o = {}
    if rng.random() < .8:
        o['cluster_size'] = 512 << rng.randrange(13)
    if rng.random() < .5:
        o['refcount_bits'] = 1 << rng.randrange(7)
    if rng.random() < .3:
        o['extended_l2'] = 'on'
    if rng.random() < .2:
        o['compat'] = rng.choice(['0.10', '1.1'])
    if rng.random() < .3:
        o['preallocation'] = rng.choice(['off', 'metadata', 'falloc', 'full'])
    if rng.random() < .2:
        o['backing_file'] = 'x'
        o['backing_fmt'] = 'raw'
    if rng.random() < .2:
        o['data_file'] = 'x'
    text = ','.join(f'{k}={v}' for k, v in o.items())
    return ['-o', text] if text else []


def test_sizes(tmp_path):
    rng = random.Random(SEED)
    for _ in range(SAMPLES):
        size = rng.choice([0, 1, 511, 512, 513, rng.randrange(1 << 20), rng.randrange(1 << 30),
                           rng.randrange(1 << 40), rng.randrange(1 << 50), 128 << 30, 1 << 51,
                           1 << 61, (1 << 61) + 1])
        check_same('--size', size, *random_options(rng))


@pytest.fixture(name='sources', scope='module')
def sources_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sources')
    rng = random.Random(SEED)
    for name, options in (('a.raw', []), ('b.qcow2', ['-o', 'cluster_size=4k']),
                          ('c.qcow2', ['-o', 'extended_l2=on']),
                          ('d.qcow2', ['-o', 'compat=0.10', '-b', 'b.qcow2', '-F', 'qcow2'])):
        fmt = name.split('.')[1]
        assert qemu('qemu-img', 'create', '-q', '-f', fmt, *options, name, 10 << 20,
                    cwd=folder).returncode == 0
        for _ in range(8):
            at = rng.randrange(9 << 20) & ~511
            word = rng.choice(['write', 'write', 'write -z'])
            if fmt == 'raw':
                word = 'write'
            qemu('qemu-io', '-f', fmt, '-c', f'{word} {at} {rng.randrange(1, 300) * 512}', name,
                 cwd=folder)
    return folder


@pytest.mark.parametrize('name', ['a.raw', 'b.qcow2', 'c.qcow2', 'd.qcow2'])
def test_sources(sources, name):
    rng = random.Random(SEED)
    for _ in range(SAMPLES // 4):
        check_same('-f', name.split('.')[1], *random_options(rng), name, cwd=sources)


def test_bitmaps(tmp_path):
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'i.qcow2', '1G', cwd=tmp_path)
    check_same('-f', 'qcow2', 'i.qcow2', cwd=tmp_path)
    for i, granularity in enumerate(('512', '64k', '2G')):
        qemu('qemu-img', 'bitmap', '--add', '-g', granularity, 'i.qcow2', f'b{i}', cwd=tmp_path)
    for options in ([], ['-o', 'cluster_size=512'], ['-o', 'compat=0.10']):
        check_same('-f', 'qcow2', *options, 'i.qcow2', cwd=tmp_path)
        check_same('--output=json', '-f', 'qcow2', *options, 'i.qcow2', cwd=tmp_path)


@pytest.mark.parametrize('options', ['cluster_size=1000', 'refcount_bits=3', 'bogus=1',
                                     'compat=0.10,refcount_bits=8', 'compat=foo',
                                     'preallocation=foo', 'extended_l2=on,cluster_size=4k'])
def test_refused(options):
    check_same('--size', '1G', '-o', options)
