# SPDX-License-Identifier: MIT
"""Images on block devices, which are there already and do not grow, beside the reference: loop devices,
where this machine lets us have one, and character devices that all machines have."""
import re
import shutil
import subprocess

import pytest

from tools_common import called, needs, run

pytestmark = needs('qcow2')
MIB = 1 << 20


@pytest.fixture(scope='module', name='device')
def fixture_device(tmp_path_factory):
    """A device of 64 MiB."""
    file = tmp_path_factory.mktemp('device') / 'file'
    with open(file, 'wb') as f:
        f.truncate(64 * MIB)
    if not shutil.which('losetup'):
        pytest.skip('losetup is not installed')
    made = run(['losetup', '--find', '--show', file])
    if made.returncode != 0:
        pytest.skip(f'no loop device: {made.stderr}')
    yield made.stdout.strip()
    subprocess.run(['losetup', '--detach', made.stdout.strip()], check=True)


@pytest.fixture(name='link')
def fixture_link(tmp_path):
    return called(tmp_path, 'qemu-img')


@pytest.fixture(name='source')
def fixture_source(tmp_path):
    with open(tmp_path / 'source.raw', 'wb') as f:
        for i in range(0, 32, 3):
            f.seek(i * MIB)
            f.write(bytes([i + 1]) * (MIB // 2))
        f.truncate(32 * MIB)


SEQUENCES = [
    ['create -f raw DEVICE 32M', 'info -f raw DEVICE'], ['create -f raw DEVICE 64M'], ['create -f raw DEVICE 65M'],
    ['create -f raw host_device:DEVICE 1M'],
    ['create -f raw -o preallocation=off DEVICE 1M'], ['create -f raw -o preallocation=full DEVICE 1M'],
    ['create -f qcow2 DEVICE 32M', 'info DEVICE', 'check DEVICE', 'snapshot -c s DEVICE', 'resize DEVICE 40M',
     'bitmap --add DEVICE b', 'measure -O qcow2 DEVICE', 'amend -f qcow2 -o lazy_refcounts=on DEVICE', 'check DEVICE'],
    ['create -f qcow2 DEVICE 8G', 'check DEVICE'],
    ['create -f qcow2 -o preallocation=metadata DEVICE 32M', 'check DEVICE'],
    *([f'create -f qcow2 -o preallocation={mode} DEVICE 70M'] for mode in ('falloc', 'full')),
    ['convert -f raw -O raw source.raw DEVICE', 'map --output=json -f raw DEVICE'],
    ['convert -f raw -O qcow2 source.raw DEVICE', 'compare -f raw -F qcow2 source.raw DEVICE', 'check DEVICE'],
    ['convert -f raw -O qcow2 -o preallocation=metadata source.raw DEVICE', 'compare -F qcow2 source.raw DEVICE'],
    ['convert -c -f raw -O qcow2 source.raw DEVICE', 'compare -f raw -F qcow2 source.raw DEVICE'],
    ['dd -f raw -O raw bs=1M count=2 if=source.raw of=DEVICE'],
    ['create -f qcow2 -b DEVICE -F raw over.qcow2', 'convert -n -f raw -O qcow2 source.raw over.qcow2', 'commit over.qcow2',
     'compare -f raw -F raw source.raw DEVICE'],
    ['resize -f raw DEVICE 65M'], ['resize -f raw --shrink DEVICE 1M'], ['resize -f raw --preallocation=full DEVICE 64M'],
]


def masked(text):
    text = re.sub(r'disk size: .*|Image end offset.*|\d+/\d+ = .* clusters', '', text)
    return re.sub(r'"actual-size": \d+', '', text)


def outcome(program, sequence, device, folder):
    run(['blkdiscard', '--zeroout', device])
    (folder / 'over.qcow2').unlink(missing_ok=True)
    done = [run([program, *[device if w == 'DEVICE' else w.replace('DEVICE', device) for w in line.split()]], cwd=folder)
            for line in sequence]
    content = None
    if not any('qcow2' in line for line in sequence):
        with open(device, 'rb') as f:
            content = f.read()
    return [(d.returncode, masked(d.stdout), d.stderr) for d in done], content


@pytest.mark.parametrize('sequence', SEQUENCES, ids=lambda s: s[0])
def test_same(sequence, device, link, source, tmp_path):
    ours, theirs = (outcome(program, sequence, device, tmp_path) for program in (link, 'qemu-img'))
    assert ours == theirs


def test_what_was_there_is_not_taken_for_the_new_image(device, link):
    """Its first sector is gone, also where the new image is smaller than what was there."""
    assert run([link, 'create', '-q', '-f', 'qcow2', device, '1M']).returncode == 0
    assert run([link, 'create', '-q', '-f', 'raw', device, '0']).returncode == 0
    assert 'file format: raw' in run([link, 'info', device]).stdout


@pytest.mark.parametrize('mode', ['falloc', 'full'])
def test_what_fits_is_preallocated(mode, device, link):
    """The device has the room; the reference wants to make it longer for it."""
    assert run([link, 'create', '-q', '-f', 'qcow2', '-o', f'preallocation={mode}', device, '32M']).returncode == 0
    assert run(['qemu-img', 'check', '-q', device]).returncode == 0


@pytest.mark.parametrize('line', ['-f raw /dev/null 0', '-f raw /dev/null 1M'])
def test_character_device(line, link):
    ours, theirs = (run([program, 'create', *line.split()]) for program in (link, 'qemu-img'))
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
