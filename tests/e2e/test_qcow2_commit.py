# SPDX-License-Identifier: MIT
"""platter commit beside qemu-img: content of the base, of the image, sizes, words, exit codes."""
import os
import random
import shutil
import signal
import subprocess

import pytest

from qemu_image import CLUSTER, SIZE, allocated, clean, content, info, make, scribble, write
from tools_common import needs, platter, qemu

pytestmark = needs('qcow2')

NAMES = ['base.qcow2', 'mid.qcow2', 'top.qcow2']


def chain(cwd, sizes=(SIZE, SIZE, SIZE), options=()):
    make(cwd, 'base.qcow2', sizes[0])
    write(cwd, 'base.qcow2', f'write -P 1 0 {sizes[0] // 2}')
    make(cwd, 'mid.qcow2', sizes[1], backing='base.qcow2', options=options)
    write(cwd, 'mid.qcow2', f'write -P 2 {CLUSTER} {2 * CLUSTER}', f'write -z {5 * CLUSTER} 64k')
    make(cwd, 'top.qcow2', sizes[2], backing='mid.qcow2', options=options)
    write(cwd, 'top.qcow2', f'write -P 3 {2 * CLUSTER} {CLUSTER}', f'write -P 4 {4 * CLUSTER} 1000',
          f'write -z {CLUSTER} 4096')


def both(tmp_path, *arguments, prepare=chain, image='top.qcow2'):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    ours.mkdir()
    prepare(ours)
    shutil.copytree(ours, theirs)
    return (ours, theirs, platter('commit', *arguments, image, cwd=ours),
            qemu('qemu-img', 'commit', *arguments, image, cwd=theirs))


@pytest.mark.parametrize('arguments', [
    [], ['-q'], ['-p'], ['-d'], ['-b', 'base.qcow2'], ['-b', 'mid.qcow2'], ['-d', '-b', 'base.qcow2'],
    ['-b', './base.qcow2'], ['-f', 'qcow2', '-t', 'none'], ['-r', '1G'],
], ids=' '.join)
def test_as_the_reference(tmp_path, arguments):
    ours, theirs, a, b = both(tmp_path, *arguments)
    assert (a.returncode, b.returncode) == (0, 0), a.stderr + b.stderr
    if '-p' not in arguments:
        assert a.stdout == b.stdout
    else:
        assert '(100.00/100%)' in a.stdout and a.stdout.endswith('\nImage committed.\n')
    for name in NAMES:
        assert content(ours, name) == content(theirs, name)
        assert info(ours, name)['virtual-size'] == info(theirs, name)['virtual-size']
        clean(ours, name)
    assert allocated(ours, 'top.qcow2') == allocated(theirs, 'top.qcow2')


@pytest.mark.parametrize('arguments, image, code, text', [
    ([], 'base.qcow2', 1, 'Image does not have a backing file'),
    (['-b', 'zz.qcow2'], 'top.qcow2', 1,
     "Did not find 'zz.qcow2' in the backing chain of 'top.qcow2'"),
    (['-b', 'top.qcow2'], 'top.qcow2', 1,
     "Did not find 'top.qcow2' in the backing chain of 'top.qcow2'"),
    (['-f', 'raw'], 'top.qcow2', 1, 'Image does not have a backing file'),
    ([], 'none.qcow2', 1, 'No such file or directory'),
    (['-r', 'x'], 'top.qcow2', 2, 'rate limit'),
], ids=range(6))
def test_refusals(tmp_path, arguments, image, code, text):
    ours, theirs, a, b = both(tmp_path, *arguments, image=image)
    assert a.returncode == code and b.returncode == 1
    assert text in a.stderr
    for name in NAMES:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


@pytest.mark.parametrize('sizes', [
    (SIZE // 2, SIZE // 2, SIZE), (SIZE, SIZE, SIZE // 2), (SIZE, SIZE // 2, SIZE),
    (SIZE // 2, SIZE, SIZE + 512), (SIZE - 512, SIZE // 2 + 512, SIZE),
], ids=str)
@pytest.mark.parametrize('arguments', [[], ['-b', 'base.qcow2']], ids=' '.join)
def test_sizes(tmp_path, sizes, arguments):
    chain(tmp_path, sizes)
    target = arguments[1] if arguments else 'mid.qcow2'
    before = content(tmp_path, 'top.qcow2')
    done = platter('commit', *arguments, 'top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, target)[:len(before)] == before
    size = info(tmp_path, target)['virtual-size']
    assert size == max(sizes[2], sizes[0] if arguments else sizes[1])
    if not arguments:
        assert content(tmp_path, 'top.qcow2') == before
    for name in NAMES:
        clean(tmp_path, name)


def test_into_raw(tmp_path):
    (tmp_path / 'base.raw').write_bytes(b'\1' * SIZE)
    make(tmp_path, 'top.qcow2', backing='base.raw', backing_format='raw', size=SIZE + CLUSTER)
    write(tmp_path, 'top.qcow2', 'write -P 2 64k 64k', f'write -z {3 * CLUSTER} 64k',
          f'write -P 3 {SIZE} 64k')
    before = content(tmp_path, 'top.qcow2')
    done = platter('commit', 'top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'base.raw').read_bytes() == before
    assert content(tmp_path, 'top.qcow2') == before
    assert allocated(tmp_path, 'top.qcow2') == set()
    clean(tmp_path, 'top.qcow2')


def test_base_in_use(tmp_path):
    chain(tmp_path)
    with open(tmp_path / 'hold', 'w') as log:
        with subprocess.Popen(['qemu-io', '-f', 'qcow2', 'mid.qcow2'], cwd=tmp_path,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as holder:
            holder.stdin.write(b'read 0 512\n')
            holder.stdin.flush()
            holder.stdout.readline()  # it is open
            done = platter('commit', 'top.qcow2', cwd=tmp_path)
            holder.stdin.close()
            holder.wait(60)
    assert done.returncode == 1
    assert 'lock' in done.stderr


def test_policy(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    make(tmp_path / 'a', 'base.qcow2')
    make(tmp_path / 'b', 'top.qcow2', backing='../a/base.qcow2')
    write(tmp_path / 'b', 'top.qcow2', 'write -P 7 0 64k')
    refused = platter('commit', 'b/top.qcow2', cwd=tmp_path)
    assert refused.returncode == 1
    assert 'is not allowed to it' in refused.stderr and '--allow-ref' in refused.stderr
    none = platter('commit', '--image-refs', 'none', 'b/top.qcow2', cwd=tmp_path)
    assert none.returncode == 1
    done = platter('commit', '--allow-ref', 'a', 'b/top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, 'a/base.qcow2')[:CLUSTER] == b'\7' * CLUSTER


@pytest.mark.parametrize('options', [
    (), ('-o', 'cluster_size=4096'), ('-o', 'extended_l2=on'), ('-o', 'compat=0.10'),
    ('-o', 'lazy_refcounts=on'),
], ids=lambda o: o[-1] if o else 'plain')
def test_random(tmp_path, options):
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print(f'PLATTER_SEED={seed}')
    rng = random.Random(seed)
    sizes = [2 * 1024 * 1024 + 512 * rng.randrange(3000) for _ in range(3)]
    if 'compat=0.10' in options:
        sizes.sort()  # without marks for zeroes it does not grow over a longer backing file

    below = None
    for name, size in zip(NAMES, sizes):
        make(tmp_path, name, size, backing=below, options=options)
        scribble(tmp_path, name, size, rng)
        below = name
    before = content(tmp_path, 'top.qcow2')
    deep = rng.random() < 0.5
    done = platter('commit', *(['-b', 'base.qcow2'] if deep else []), 'top.qcow2', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path, 'base.qcow2' if deep else 'mid.qcow2')[:len(before)] == before
    if not deep:
        assert content(tmp_path, 'top.qcow2') == before
    for name in NAMES:
        clean(tmp_path, name)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_cancels(tmp_path, number):
    """The job ends in order, and then the program by the signal; the disk reads as before."""
    make(tmp_path, 'base.qcow2', '64M')
    make(tmp_path, 'top.qcow2', '64M', backing='base.qcow2')
    write(tmp_path, 'top.qcow2', 'write -P 3 0 32M')
    before = content(tmp_path, 'top.qcow2')
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'commit', '-f', 'qcow2', '-p', '-r', '1M', 'top.qcow2'],
                          cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        said = b''
        while said.count(b'/100%)') < 2:  # some of it was copied
            piece = os.read(process.stdout.fileno(), 100)
            assert piece, process.stderr.read()
            said += piece
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == -number, err
    clean(tmp_path, 'top.qcow2')
    clean(tmp_path, 'base.qcow2')
    assert content(tmp_path, 'top.qcow2') == before
