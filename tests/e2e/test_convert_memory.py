# SPDX-License-Identifier: MIT
"""platter convert --max-memory: what it takes beside the program and the open images."""
import os
import random
import subprocess

import pytest

from qemu_image import make, qemu_img, same_disk, write
from tools_common import TIMEOUT, guessing, needs, platter, sanitizers

pytestmark = needs('qcow2')
MIB = 1 << 20
# threads, the metadata of the new image that is not its tables, and what the allocator keeps
BESIDE = 3 * MIB


def peak(*arguments, cwd):
    """The bytes that a command had at the most; it ends well."""
    done = subprocess.run([os.path.join(os.environ['PLATTER_BUILD'], 'tests/e2e/peak'),
                           os.path.abspath(os.environ['PLATTER_BIN']), *guessing(*arguments)], cwd=cwd,
                          capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1]) << 10


@pytest.fixture(name='folder', scope='module')
def folder_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('memory')
    rng = random.Random(4)
    words = [rng.randbytes(rng.randint(3, 9)) for _ in range(500)]
    text = b''.join(rng.choices(words, k=400000))
    with open(folder / 'plain', 'wb') as f:
        for i in range(48):
            f.write(text[i * 4099:][:MIB])
    for name, options in (('zlib', []), ('zstd', ['-o', 'compression_type=zstd'])):
        assert qemu_img('convert', '-c', '-f', 'raw', '-O', 'qcow2', *options, 'plain', name,
                        cwd=folder).returncode == 0
    assert qemu_img('convert', '-f', 'raw', '-O', 'qcow2', 'plain', 'qcow2', cwd=folder).returncode == 0
    make(folder, 'sparse', 1 << 40)
    write(folder, 'sparse', *(f'write -P {i + 1} {i * 16}G 1M' for i in range(60)))
    make(folder, 'chain0', 1 << 30)
    for i in range(60):
        if i > 0:
            make(folder, f'chain{i}', 1 << 30, backing=f'chain{i - 1}', options=['-u'])
        write(folder, f'chain{i}', f'write -P {i + 1} {i * 16}M 2M', f'write -P {i + 1} {i * 8 + 500}M 64k')
    return folder


@pytest.mark.parametrize('options', [[], ['-W', '-m', '16'], ['-c'], ['-c', '-o', 'compression_type=zstd']],
                         ids=' '.join)
@pytest.mark.parametrize('source', ['qcow2', 'zlib', 'zstd', 'sparse', 'chain59'])
def test_cap(folder, tmp_path, source, options):
    opened = peak('io', '-f', 'qcow2', '-c', 'length', source, cwd=folder)
    for cap in (2 * MIB, 8 * MIB):
        taken = peak('convert', '--max-memory', str(cap), '-f', 'qcow2', '-O', 'qcow2', *options, source,
                     tmp_path / 'out', cwd=folder)
        print(source, options, opened >> 10, cap >> 10, taken >> 10, (taken - opened - cap) >> 10)
        assert sanitizers() != 'none' or taken < opened + cap + BESIDE   # they keep what was freed
        same_disk(tmp_path, 'out', folder / source, 'qcow2', 'qcow2')


@pytest.mark.parametrize('source,options', [
    ('qcow2', []), ('zlib', []), ('chain59', []), ('qcow2', ['-c']), ('chain59', ['-c']),
    ('qcow2', ['-o', 'cluster_size=2M']), ('qcow2', ['-o', 'cluster_size=2M,extended_l2=on']),
    ('qcow2', ['-S', '512']), ('chain1', ['-B', 'chain0', '-F', 'qcow2'])])
def test_least(folder, tmp_path, source, options):
    """What is named is what is needed."""
    if '-B' in options:
        (tmp_path / 'chain0').symlink_to(folder / 'chain0')
    line = ['-f', 'qcow2', '-O', 'qcow2', *options, source, tmp_path / 'out']
    (tmp_path / 'out').write_bytes(b'is there')
    done = platter('convert', '--max-memory', '1000', *line, cwd=folder)
    assert done.returncode == 1 and '1000 bytes of memory are too few: ' in done.stderr
    least = int(done.stderr.split('too few: ')[1].split()[0])
    done = platter('convert', '--max-memory', str(least - 1), *line, cwd=folder)
    assert f'{least - 1} bytes of memory are too few: {least} are needed' in done.stderr
    assert (tmp_path / 'out').read_bytes() == b'is there'  # nothing was done to it
    assert platter('convert', '--max-memory', str(least), *line, cwd=folder).returncode == 0
    same_disk(tmp_path, 'out', folder / source, 'qcow2', 'qcow2')


@pytest.mark.parametrize('line', [['-f', 'qcow2', '-O', 'raw', 'qcow2'], ['-f', 'raw', '-O', 'raw', 'plain'],
                                  ['-f', 'raw', '-O', 'qcow2', '-']], ids=' '.join)
def test_too_little_is_told_before(folder, tmp_path, line):
    (tmp_path / 'out').write_bytes(b'is there')
    done = platter('convert', '--max-memory', '3000', *line, tmp_path / 'out', cwd=folder)
    assert done.returncode == 1 and '3000 bytes of memory are too few' in done.stderr
    assert (tmp_path / 'out').read_bytes() == b'is there'
