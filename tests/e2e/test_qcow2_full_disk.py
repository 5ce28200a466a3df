# SPDX-License-Identifier: MIT
"""A disk of the host that fills up under a qcow2 image: what was written before is not lost for it, since a commit
needs no room that data can take away."""
import os
import random
import subprocess

import pytest

from tools_common import TIMEOUT, called, needs, platter

PIECE = 64 << 10
PIECES = 256
LAYOUTS = ['cluster_size=64k', 'cluster_size=512', 'cluster_size=4k,refcount_bits=64', 'cluster_size=512k',
           'cluster_size=64k,extended_l2=on']
# In a mount namespace of its own, which takes the file system along when it ends.
ALONE = ['unshare', '--mount'] if os.geteuid() == 0 else ['unshare', '--mount', '--map-root-user']


def alone(script, folder, **more):
    return subprocess.run([*ALONE, 'sh', '-ec', script, folder], capture_output=True, text=True, check=False,
                          timeout=TIMEOUT, **more)


@pytest.mark.parametrize('layout', LAYOUTS)
@needs('qcow2')
def test_what_was_written_stays(tmp_path, layout):
    if alone('mount -t tmpfs none "$0"', tmp_path).returncode != 0:
        pytest.skip('no file system can be mounted here')
    order = random.Random(layout).sample(range(PIECES), PIECES)
    writes = [f'write -P {1 + i % 250} {i * PIECE} {PIECE}' for i in order]
    writes.append(f'write -P 251 {order[0] * PIECE} {PIECE}')  # it has its place
    commands = ' '.join(f"-c '{w}'" for w in writes)
    with open(tmp_path.parent / f'{tmp_path.name}.qcow2', 'wb') as copy:
        done = alone(f"""
            mount -t tmpfs -o size=8m none "$0"; cd "$0"; P={os.environ['PLATTER_BIN']}
            $P create -f qcow2 -o {layout} disk {PIECES * PIECE} >/dev/null
            $P io -f qcow2 {commands} disk >&2 || true # each, though one before fails; its end flushes
            $P check -f qcow2 disk
            cat disk >/proc/self/fd/{copy.fileno()}""", tmp_path, pass_fds=[copy.fileno()])
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'No errors were found' in done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith(('wrote', 'write failed', 'flush'))]
    assert len(told) == len(writes) and not any(line.startswith('flush') for line in told), told
    assert 'write failed: No space left on device' in told
    kept = [i for i, line in zip(order, told) if line.startswith('wrote')]
    assert len(kept) > 64 and told[-1].startswith('wrote') and kept[0] == order[0]
    reads = ['-c', f'read -P 251 {kept[0] * PIECE} {PIECE}']
    for i in kept[1:]:
        reads += ['-c', f'read -P {1 + i % 250} {i * PIECE} {PIECE}']
    read = platter('io', '-r', '-f', 'qcow2', *reads, copy.name)
    assert read.returncode == 0 and 'verification failed' not in read.stdout + read.stderr, read.stdout


@pytest.mark.parametrize('command', ['resize -f raw --preallocation=MODE raw 64M', 'resize -f qcow2 --preallocation=MODE disk 64M',
                                     'create -q -f raw -o preallocation=MODE new 64M',
                                     'create -q -f qcow2 -o preallocation=MODE new 64M'])
@pytest.mark.parametrize('mode', ['falloc', 'full', 'off'])
@needs('qcow2')
def test_what_could_not_be_done_is_told(tmp_path, command, mode):
    """In the words of the reference."""
    link, folder = called(tmp_path, 'qemu-img'), tmp_path / 'disk'
    folder.mkdir()
    if alone('mount -t tmpfs none "$0"', folder).returncode != 0:
        pytest.skip('no file system can be mounted here')
    ours, theirs = (alone(f"""
        mount -t tmpfs -o size=4m none "$0"; cd "$0"
        qemu-img create -q -f raw raw 1M; qemu-img create -q -f qcow2 disk 1M
        {program} {command.replace('MODE', mode)} && exit 0 || exit 1""", folder) for program in (link, 'qemu-img'))
    assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)
    assert ours.returncode == (mode != 'off')
