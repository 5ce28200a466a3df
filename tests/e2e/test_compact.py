# SPDX-License-Identifier: MIT
"""platter compact beside the reference: what was in the image is in it, and it is shorter."""
import json
import os
import random
import signal
import subprocess

import pytest

from qemu_image import clean, info, make, qemu_img, same_disk, write
from tools_common import TIMEOUT, needs, platter, qemu, serving

pytestmark = needs('qcow2')
MIB = 1 << 20


def compact(cwd, *arguments):
    done = platter('compact', '--output=json', *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def disk(cwd, name, snapshot=None):
    out = os.path.join(cwd, 'content')
    only = ('-l', f'snapshot.name={snapshot}') if snapshot else ()
    done = qemu_img('convert', *only, '-O', 'raw', name, out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    with open(out, 'rb') as f:
        return f.read()


def snapshots(cwd, name):
    return [s['name'] for s in info(cwd, name).get('snapshots', [])]


def everything(cwd, name):
    """The disk, its snapshots, what it says of itself."""
    facts = info(cwd, name)
    facts = [facts['virtual-size'], facts.get('backing-filename'), facts['format-specific'],
             facts.get('snapshots')]
    return disk(cwd, name), {s: disk(cwd, name, s) for s in snapshots(cwd, name)}, facts


def scramble(cwd, name, size, rng, compress):
    """Random writes, snapshots that come and go, data that reads as zeroes."""
    kept = 0
    for _ in range(rng.randrange(3, 9)):
        commands = []
        for _ in range(rng.randrange(1, 10)):
            at = 512 * rng.randrange(size // 512)
            n = min(512 * rng.randrange(1, 900), size - at)
            if compress and rng.random() < 0.3:  # fails where there is data already
                qemu('qemu-io', '-f', 'qcow2', '-c', f'write -c -P {rng.randrange(1, 5)} '
                     f'{65536 * rng.randrange(size // 65536)} 65536', name, cwd=cwd)
            kinds = ['write -P {p} {a} {n}', 'write -P {p} {a} {n}', 'write -P 0 {a} {n}', 'write -z {a} {n}',
                     'discard {a} {n}']
            commands.append(rng.choice(kinds).format(p=rng.randrange(1, 5), a=at, n=n))
        write(cwd, name, *commands)
        if rng.random() < 0.5:
            kept += 1
            assert qemu_img('snapshot', '-c', f's{kept}', name, cwd=cwd).returncode == 0
    for snapshot in snapshots(cwd, name):
        if rng.random() < 0.4:
            assert qemu_img('snapshot', '-d', snapshot, name, cwd=cwd).returncode == 0


def test_holes_inside_of_clusters_stay_holes(tmp_path):
    """A page of data in a cluster is as much where the cluster goes to."""
    make(tmp_path, 'd.qcow2', 64 * MIB)
    write(tmp_path, 'd.qcow2', 'write -P 1 0 32M', *(f'write -P 2 {at}k 4k' for at in range(33 << 10, 60 << 10, 64)))
    subprocess.run(['fallocate', '--dig-holes', 'd.qcow2'], cwd=tmp_path, check=True)
    write(tmp_path, 'd.qcow2', 'discard 0 32M')
    before = disk(tmp_path, 'd.qcow2')
    used = os.stat(tmp_path / 'd.qcow2').st_blocks
    done = compact(tmp_path, '-f', 'qcow2', 'd.qcow2')
    assert done['moved'] > 20 * MIB
    assert os.stat(tmp_path / 'd.qcow2').st_blocks <= used
    assert disk(tmp_path, 'd.qcow2') == before
    clean(tmp_path, 'd.qcow2')


VARIANTS = {
    'plain': [],
    'v2': ['-o', 'compat=0.10'],
    'small': ['-o', 'cluster_size=512'],
    'wide': ['-o', 'cluster_size=4k,refcount_bits=64'],
    'narrow': ['-o', 'refcount_bits=8,lazy_refcounts=on'],
    'extended': ['-o', 'extended_l2=on,cluster_size=128k'],
    'zstd': ['-o', 'compression_type=zstd'],
}


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('backing', [False, True], ids=['alone', 'backing'])
def test_random_image(tmp_path, variant, backing):
    seed = int(os.environ.get('PLATTER_SEED', random.randrange(1 << 32)))
    print(f'PLATTER_SEED={seed}')
    rng = random.Random(seed)
    size = 65536 * rng.randrange(20, 200)
    if backing:
        make(tmp_path, 'base.qcow2', size)
        write(tmp_path, 'base.qcow2', f'write -P 1 0 {size // 2}')
    make(tmp_path, 'a.qcow2', size, 'base.qcow2' if backing else None, options=VARIANTS[variant])
    # the sizes of compressed writes are those of clusters
    scramble(tmp_path, 'a.qcow2', size, rng, compress=variant in ('plain', 'v2', 'narrow', 'zstd'))
    if variant not in ('v2',):
        for i in range(rng.randrange(3)):
            assert qemu_img('bitmap', '--add', 'a.qcow2', f'b{i}', cwd=tmp_path).returncode == 0
            write(tmp_path, 'a.qcow2', f'write -P 7 {512 * rng.randrange(size // 512)} 512')
    clean(tmp_path, 'a.qcow2')
    before = everything(tmp_path, 'a.qcow2')
    length = os.path.getsize(tmp_path / 'a.qcow2')
    if backing:
        base = (tmp_path / 'base.qcow2').read_bytes()
    options = [o for o in ('--keep-zeroes', '--drop-same') if rng.random() < 0.3 and (backing or o[2] == 'k')]
    done = compact(tmp_path, *options, 'a.qcow2')
    clean(tmp_path, 'a.qcow2')
    assert everything(tmp_path, 'a.qcow2') == before
    assert done['file-length'] == os.path.getsize(tmp_path / 'a.qcow2') <= length == done['file-length-before']
    # all that is free, but for what a table needs in a row
    again = compact(tmp_path, *options, 'a.qcow2')
    assert again['file-length'] <= done['file-length']
    clean(tmp_path, 'a.qcow2')
    assert everything(tmp_path, 'a.qcow2') == before
    if backing:
        assert (tmp_path / 'base.qcow2').read_bytes() == base


def test_snapshot_that_went(tmp_path):
    """Half of the file is free, in front."""
    make(tmp_path, 'a.qcow2', 64 * MIB)
    write(tmp_path, 'a.qcow2', 'write -P 1 0 16M')
    qemu_img('snapshot', '-c', 's', 'a.qcow2', cwd=tmp_path)
    write(tmp_path, 'a.qcow2', 'write -P 2 0 16M')
    qemu_img('snapshot', '-d', 's', 'a.qcow2', cwd=tmp_path)
    before = disk(tmp_path, 'a.qcow2')
    dry = compact(tmp_path, '--dry-run', 'a.qcow2')
    done = compact(tmp_path, 'a.qcow2')
    assert done['moved'] >= 15 * MIB and done['file-length-before'] > 32 * MIB
    assert done['file-length'] < 17 * MIB and dry['dry-run'] and not done['dry-run']
    assert abs(dry['file-length'] - done['file-length']) < MIB
    assert disk(tmp_path, 'a.qcow2') == before
    clean(tmp_path, 'a.qcow2')


def test_leaks_zeroes_and_words(tmp_path):
    make(tmp_path, 'a.qcow2', 16 * MIB)
    write(tmp_path, 'a.qcow2', 'write -P 0 0 4M', 'write -P 5 8M 1M')
    with open(tmp_path / 'a.qcow2', 'r+b') as f:  # a cluster that nothing refers to
        end = f.seek(0, os.SEEK_END)
        f.write(b'\xff' * 65536)
        f.seek(65536)
        f.seek(int.from_bytes(f.read(8), 'big') + 2 * (end // 65536))
        f.write(b'\0\1')
    assert qemu_img('check', 'a.qcow2', cwd=tmp_path).returncode == 3
    kept = compact(tmp_path, '--keep-zeroes', 'a.qcow2')
    assert kept['leaked'] == 65536 and kept['zeroed'] == 0 and kept['file-length'] > 5 * MIB
    done = compact(tmp_path, 'a.qcow2')
    assert done['leaked'] == 0 and done['zeroed'] == 4 * MIB and done['file-length'] < 2 * MIB
    clean(tmp_path, 'a.qcow2')
    text = platter('compact', '-p', 'a.qcow2', cwd=tmp_path).stdout
    assert '(100.00/100%)' in text and 'Image compacted: length ' in text
    assert platter('compact', '-q', 'a.qcow2', cwd=tmp_path).stdout == ''
    lines = platter('compact', '--progress=json', 'a.qcow2', cwd=tmp_path).stdout.splitlines()
    assert json.loads(lines[-1]) == {'event': 'end', 'ok': True}


def test_drop_same(tmp_path):
    make(tmp_path, 'base.qcow2', 16 * MIB)
    write(tmp_path, 'base.qcow2', 'write -P 1 0 8M')
    make(tmp_path, 'a.qcow2', 16 * MIB, 'base.qcow2')
    write(tmp_path, 'a.qcow2', 'write -P 1 0 4M', 'write -P 0 4M 1M', 'write -P 0 12M 1M', 'write -P 2 6M 1M')
    before = disk(tmp_path, 'a.qcow2')
    plain = compact(tmp_path, 'a.qcow2')
    assert plain['dropped'] == 0 and plain['zeroed'] == 2 * MIB
    done = compact(tmp_path, '--drop-same', 'a.qcow2')
    assert done['dropped'] == 4 * MIB
    assert disk(tmp_path, 'a.qcow2') == before
    clean(tmp_path, 'a.qcow2')
    refused = platter('compact', '--drop-same', 'base.qcow2', cwd=tmp_path)
    assert refused.returncode == 1 and 'no backing file' in refused.stderr


def test_raw(tmp_path):
    body = random.Random(1).randbytes(MIB) + bytes(3 * MIB) + b'\1' * 4096 + bytes(8192)
    (tmp_path / 'a.raw').write_bytes(body)
    done = compact(tmp_path, '-f', 'raw', 'a.raw')
    assert (tmp_path / 'a.raw').read_bytes() == body
    assert done['zeroed'] >= 3 * MIB and done['file-length'] == len(body)
    assert done['allocated'] < done['allocated-before'] - 2 * MIB
    assert os.stat(tmp_path / 'a.raw').st_blocks * 512 == done['allocated']


@pytest.mark.parametrize('options', [[], ['-n']])
def test_allocation_that_nobody_tells(tmp_path, options):
    (tmp_path / 'a.raw').write_bytes(bytes(MIB))
    with serving('-f', 'raw', '-k', tmp_path / 's', tmp_path / 'a.raw'):
        done = compact(tmp_path, '--image-opts', *options, 'driver=nbd,path=s')
    assert done['zeroed'] == MIB
    assert done['allocated-before'] is None and done['allocated'] is None


def test_data_file(tmp_path):
    make(tmp_path, 'a.qcow2', 16 * MIB, options=['-o', 'data_file=a.data'])
    write(tmp_path, 'a.qcow2', 'write -P 1 0 8M', 'write -P 0 2M 4M')
    before = disk(tmp_path, 'a.qcow2')
    done = compact(tmp_path, 'a.qcow2')
    assert done['zeroed'] == 4 * MIB and done['allocated'] <= done['allocated-before'] - 3 * MIB
    assert disk(tmp_path, 'a.qcow2') == before
    clean(tmp_path, 'a.qcow2')


def test_refused(tmp_path):
    make(tmp_path, 'a.qcow2')
    write(tmp_path, 'a.qcow2', 'write -P 1 0 1M')
    with subprocess.Popen(['qemu-io', '-f', 'qcow2', 'a.qcow2'], cwd=tmp_path, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as other:
        other.stdin.write('read 0 512\n')
        other.stdin.flush()
        assert other.stdout.readline()
        done = platter('compact', 'a.qcow2', cwd=tmp_path)
        assert done.returncode == 1 and 'lock' in done.stderr
        other.stdin.close()
        other.wait(TIMEOUT)
    with open(tmp_path / 'a.qcow2', 'r+b') as f:  # the first data cluster counts as free
        f.seek(2 * 65536 + 2 * 5)
        f.write(b'\0\0')
    assert qemu_img('check', 'a.qcow2', cwd=tmp_path).returncode == 2
    body = (tmp_path / 'a.qcow2').read_bytes()
    done = platter('compact', '--keep-zeroes', 'a.qcow2', cwd=tmp_path)
    assert done.returncode == 1 and 'corrupt' in done.stderr and 'check' in done.stderr
    assert (tmp_path / 'a.qcow2').read_bytes() == body
    assert platter('compact', cwd=tmp_path).returncode == 2
    assert platter('compact', '-r', 'x', 'a.qcow2', cwd=tmp_path).returncode == 2


def interrupted(tmp_path, number, wanted, *options):
    """Run until so much was told of progress, then send the signal."""
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'compact', '-f', 'qcow2', '--progress=json', *options, 'a.qcow2'],
                          cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if json.loads(line).get('percent', 100) >= wanted:
                    break
            process.send_signal(number)
            process.communicate(timeout=TIMEOUT)
        finally:
            if process.poll() is None:
                process.kill()
    return process.returncode


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL], ids=['INT', 'KILL'])
@pytest.mark.parametrize('wanted', [10, 60, 90])
def test_interrupted(tmp_path, number, wanted):
    make(tmp_path, 'a.qcow2', 32 * MIB)
    write(tmp_path, 'a.qcow2', 'write -P 1 0 8M')
    qemu_img('snapshot', '-c', 's1', 'a.qcow2', cwd=tmp_path)
    write(tmp_path, 'a.qcow2', 'write -P 2 0 12M', 'write -P 0 20M 4M')
    qemu_img('snapshot', '-c', 's2', 'a.qcow2', cwd=tmp_path)
    write(tmp_path, 'a.qcow2', 'write -P 3 2M 8M')
    qemu_img('snapshot', '-d', 's1', 'a.qcow2', cwd=tmp_path)
    before = everything(tmp_path, 'a.qcow2')
    assert interrupted(tmp_path, number, wanted, '-r', '40M') == -number
    for _ in range(500):  # a killed process's ring lets go of its locks a little later
        if 'lock' not in platter('check', 'a.qcow2', cwd=tmp_path).stderr:
            break
    if number == signal.SIGINT:
        clean(tmp_path, 'a.qcow2')
    else:
        assert qemu_img('check', 'a.qcow2', cwd=tmp_path).returncode in (0, 3)
    assert everything(tmp_path, 'a.qcow2') == before
    done = compact(tmp_path, 'a.qcow2')
    assert done['file-length'] < done['file-length-before']
    clean(tmp_path, 'a.qcow2')
    assert everything(tmp_path, 'a.qcow2') == before
