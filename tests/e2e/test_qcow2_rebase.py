# SPDX-License-Identifier: MIT
"""platter rebase beside qemu-img: what the disk reads, what the header says, what is allocated."""
import os
import random
import shutil

import pytest

from qemu_image import CLUSTER, SIZE, allocated, clean, content, info, make, qemu_img, scribble, write
from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')


def chain(cwd):
    """base <- mid <- top, and other, which shares some content with base."""
    make(cwd, 'base.qcow2')
    write(cwd, 'base.qcow2', f'write -P 1 0 {SIZE // 2}', f'write -P 5 {12 * CLUSTER} {CLUSTER}')
    make(cwd, 'mid.qcow2', backing='base.qcow2')
    write(cwd, 'mid.qcow2', f'write -P 2 {CLUSTER} {CLUSTER}', f'write -z {2 * CLUSTER} {CLUSTER}')
    make(cwd, 'top.qcow2', backing='mid.qcow2')
    write(cwd, 'top.qcow2', f'write -P 3 {4 * CLUSTER} 1000')
    make(cwd, 'other.qcow2')
    write(cwd, 'other.qcow2', f'write -P 1 0 {CLUSTER}', f'write -P 9 {5 * CLUSTER} 512',
          f'write -P 7 {14 * CLUSTER} {CLUSTER}')


def both(tmp_path, *arguments, image='top.qcow2', prepare=chain):
    """The same command by both programs on equal folders; gives the folders and both runs."""
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    ours.mkdir()
    prepare(ours)
    shutil.copytree(ours, theirs)
    return (ours, theirs, platter('rebase', *arguments, image, cwd=ours),
            qemu('qemu-img', 'rebase', *arguments, image, cwd=theirs))


def header(cwd, name='top.qcow2'):
    return {k: v for k, v in info(cwd, name).items() if k.startswith('backing')}


@pytest.mark.parametrize('arguments', [
    ['-b', 'base.qcow2', '-F', 'qcow2'],
    ['-b', 'other.qcow2', '-F', 'qcow2'],
    ['-b', 'other.qcow2', '-B', 'qcow2', '-f', 'qcow2', '-t', 'none', '-T', 'writethrough'],
    ['-b', 'mid.qcow2', '-F', 'qcow2'],
    ['-b', ''],
    ['-U', '-b', 'other.qcow2', '-F', 'qcow2'],
    ['-p', '-b', 'other.qcow2', '-F', 'qcow2'],
    ['-u', '-b', 'other.qcow2', '-F', 'qcow2'],
    ['-u', '-b', ''],
    ['-u'],
], ids=' '.join)
def test_as_the_reference(tmp_path, arguments):
    reference = [a if a != '-B' else '-F' for a in arguments]
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    ours.mkdir()
    chain(ours)
    shutil.copytree(ours, theirs)
    before = content(ours, 'top.qcow2')
    a = platter('rebase', *arguments, 'top.qcow2', cwd=ours)
    b = qemu_img('rebase', *reference, 'top.qcow2', cwd=theirs)
    assert (a.returncode, b.returncode) == (0, 0), a.stderr + b.stderr
    assert header(ours) == header(theirs)
    assert content(ours, 'top.qcow2') == content(theirs, 'top.qcow2')
    if '-u' not in arguments:
        assert content(ours, 'top.qcow2') == before
    assert allocated(ours, 'top.qcow2') == allocated(theirs, 'top.qcow2')
    clean(ours, 'top.qcow2')
    if '-p' in arguments:
        assert a.stdout.endswith('(100.00/100%)\r') or a.stdout.endswith('(100.00/100%)\r\n') or \
            '(100.00/100%)' in a.stdout
    else:
        assert a.stdout == b.stdout == ''
    for name in ('base.qcow2', 'mid.qcow2', 'other.qcow2'):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


@pytest.mark.parametrize('arguments, code, text', [
    (['-b', 'other.qcow2'], 1, "Could not change the backing file to 'other.qcow2': backing format "
                               "must be specified"),
    (['-b', 'none.qcow2', '-F', 'qcow2'], 1, "Could not open new backing file 'none.qcow2'"),
    (['-b', 'other.qcow2', '-F', 'nofmt'], 1, "Invalid format name: 'nofmt'"),
    ([], 2, 'Must specify backing file (-b) or use unsafe mode (-u)'),
    (['-b', 'top.qcow2', '-F', 'qcow2'], 1, 'lock'),
    (['-u', '-F', 'qcow2', '-b', 'x' * 1030], 1, "Could not change the backing file to 'xxx"),
], ids=range(6))
def test_refusals(tmp_path, arguments, code, text):
    ours, theirs, a, b = both(tmp_path, *arguments)
    assert a.returncode == code and b.returncode == 1
    assert text in a.stderr
    assert header(ours) == header(theirs)
    clean(ours, 'top.qcow2')


def test_raw_has_no_backing_file(tmp_path):
    (tmp_path / 'disk').write_bytes(bytes(SIZE))
    make(tmp_path, 'other.qcow2')
    done = platter('rebase', '-f', 'raw', '-b', 'other.qcow2', '-F', 'qcow2', 'disk', cwd=tmp_path)
    assert done.returncode == 1
    assert "Could not change the backing file to 'other.qcow2'" in done.stderr


def test_lengths(tmp_path):
    """Backing files that are shorter and longer than the overlay, in every order."""
    sizes = [SIZE // 2, SIZE, SIZE + SIZE // 2]

    def prepare(cwd):
        for i, size in enumerate(sizes):
            make(cwd, f'a{i}.qcow2', size)
            write(cwd, f'a{i}.qcow2', f'write -P {i + 1} 0 {size}')
            make(cwd, f'b{i}.qcow2', size - 512)
            write(cwd, f'b{i}.qcow2', f'write -P {i + 5} 3000 {size // 2}')
            for j in range(3):
                make(cwd, f'o{i}{j}.qcow2', backing=f'a{i}.qcow2')

    prepare(tmp_path)
    for i in range(3):
        for j in range(3):
            name = f'o{i}{j}.qcow2'
            before = content(tmp_path, name)
            done = platter('rebase', '-b', f'b{j}.qcow2', '-F', 'qcow2', name, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert content(tmp_path, name) == before
            clean(tmp_path, name)


def test_short_layer_in_the_middle(tmp_path):
    """Zeroes past its end stay zeroes over what lies below it."""
    make(tmp_path, 'base.qcow2')
    write(tmp_path, 'base.qcow2', f'write -P 1 0 {SIZE}')
    make(tmp_path, 'mid.qcow2', SIZE // 2 + 512, backing='base.qcow2')
    make(tmp_path, 'top.qcow2', backing='mid.qcow2')
    before = content(tmp_path, 'top.qcow2')
    assert before.count(1) == SIZE // 2 + 512
    done = platter('rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, 'top.qcow2') == before
    clean(tmp_path, 'top.qcow2')


@pytest.mark.parametrize('compat', ['0.10', '1.1'])
def test_zeroes_over_nothing(tmp_path, compat):
    """Version 2 has no clusters of zeroes: what an overlay without a backing file reads as zeroes
    must be written when it gets one. (The reference shows the new file's content there.)"""
    make(tmp_path, 'base.qcow2')
    write(tmp_path, 'base.qcow2', f'write -P 4 {CLUSTER // 2} {4 * CLUSTER}')
    make(tmp_path, 'top.qcow2', options=('-o', f'compat={compat}'))
    write(tmp_path, 'top.qcow2', f'write -P 1 {2 * CLUSTER} 512')
    before = content(tmp_path, 'top.qcow2')
    done = platter('rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, 'top.qcow2') == before
    clean(tmp_path, 'top.qcow2')


def test_relative_to_the_image(tmp_path):
    (tmp_path / 'sub').mkdir()
    make(tmp_path, 'base.qcow2')
    write(tmp_path, 'base.qcow2', 'write -P 1 0 64k')
    make(tmp_path / 'sub', 'near.qcow2')
    make(tmp_path / 'sub', 'top.qcow2', backing='../base.qcow2')
    refused = platter('rebase', '-b', 'near.qcow2', '-F', 'qcow2', 'sub/top.qcow2', cwd=tmp_path)
    assert refused.returncode == 1 and '--allow-ref' in refused.stderr
    before = content(tmp_path, 'sub/top.qcow2')
    done = platter('rebase', '--allow-ref', '.', '-b', 'near.qcow2', '-F', 'qcow2',
                   'sub/top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, 'sub/top.qcow2') == before
    assert info(tmp_path, 'sub/top.qcow2')['backing-filename'] == 'near.qcow2'


def test_the_same_file(tmp_path):
    """What is read first is not what is written first."""
    (tmp_path / 'base.raw').write_bytes(b'data' * (1 << 19))
    overlays = tmp_path / 'at_once.qcow2', tmp_path / 'late.qcow2'
    for overlay in overlays:
        make(tmp_path, overlay.name, 2 << 20, backing='base.raw', backing_format='raw')
    late = ('driver=qcow2,file.filename=late.qcow2,backing.driver=raw,backing.file.driver=blkdebug,'
            'backing.file.image.driver=file,backing.file.image.filename=base.raw,'
            'backing.file.inject-delay.0.event=none,backing.file.inject-delay.0.once=on,'
            'backing.file.inject-delay.0.latency-ns=300000000')
    for words in ('-f', 'qcow2', overlays[0].name), ('--image-opts', late):
        done = platter('rebase', '-b', '', *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert overlays[0].read_bytes() == overlays[1].read_bytes()


@pytest.mark.parametrize('options', [
    (), ('-o', 'cluster_size=4096'), ('-o', 'cluster_size=2M'), ('-o', 'extended_l2=on'),
    ('-o', 'compat=0.10'), ('-o', 'lazy_refcounts=on'),
], ids=lambda o: o[-1] if o else 'plain')
def test_random(tmp_path, options):
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print(f'PLATTER_SEED={seed}')
    rng = random.Random(seed)
    size = 3 * 1024 * 1024 + 512 * rng.randrange(100)

    make(tmp_path, 'a.qcow2', size)
    scribble(tmp_path, 'a.qcow2', size, rng)
    make(tmp_path, 'b.qcow2', size + 512 * rng.randrange(-1000, 1000), backing='a.qcow2')
    make(tmp_path, 'c.qcow2', size)
    scribble(tmp_path, 'c.qcow2', size, rng)
    make(tmp_path, 'o.qcow2', size, backing='b.qcow2', options=options)
    scribble(tmp_path, 'o.qcow2', size, rng)
    before = content(tmp_path, 'o.qcow2')
    for target in rng.sample(['a.qcow2', 'b.qcow2', 'c.qcow2', ''], 4):
        done = platter('rebase', '-b', target, *(['-F', 'qcow2'] if target else []), 'o.qcow2',
                       cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert content(tmp_path, 'o.qcow2') == before
        clean(tmp_path, 'o.qcow2')
