# SPDX-License-Identifier: MIT
"""What a disk of 8 TiB costs in memory: as much as the caches may take, not as much as the disk has
tables. The tables that these tests make are larger than the cache of them."""
import os
import subprocess

import pytest

from tools_common import TIMEOUT, guessing, needs, platter, qemu, sanitizers

pytestmark = needs('qcow2')
PLACES = 1536  # each with an L2 table of 64 KiB: 96 MiB, and the cache holds 32
STEP = (8 << 40) // PLACES >> 16 << 16
PEAK_MB = 64
# What a program used at most is told to its parent, but counts what its parent held when it made
# it: so the parent is a small one.
PARENT = '''
import os, sys
pid = os.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss >> 10, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
'''


def peak(*arguments):
    """Runs platter, which must do well; gives what it said and the MiB it had at most."""
    command = ['/usr/bin/python3', '-I', '-S', '-c', PARENT, os.environ['PLATTER_BIN'], *guessing(*arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    mb = int(done.stderr.split()[-1])
    print(f'{arguments[0]}: {mb} MiB')
    return done.stdout, mb


def commands(action):
    for i in range(PLACES):
        yield from ('-c', f'{action} -P {i % 255 + 1} {i * STEP} 4k')


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    path = tmp_path_factory.mktemp('large') / 'd.qcow2'
    assert platter('create', '-q', '-f', 'qcow2', path, '8T').returncode == 0
    return path, peak('io', '-f', 'qcow2', *commands('write'), '-c', 'flush', path)[1]


@pytest.mark.parametrize('what', ['write', 'read', 'map', 'check', 'snapshot', 'repair', 'measure', 'info'])
def test_memory_is_bounded(large, what):
    path, mb = large
    if what == 'read':
        said, mb = peak('io', '-r', '-f', 'qcow2', *commands('read'), path)
        assert 'failed' not in said and said.count('4 KiB') == PLACES
    elif what == 'map':
        said, mb = peak('map', '--output=json', '-f', 'qcow2', path)
        assert said == qemu('qemu-img', 'map', '--output=json', '-f', 'qcow2', path).stdout
    elif what == 'check':
        said, mb = peak('check', '-f', 'qcow2', path)
        assert 'No errors were found' in said
    elif what == 'snapshot':
        mb = max(peak('snapshot', '-c', 'one', path)[1], peak('snapshot', '-d', 'one', path)[1])
    elif what == 'repair':
        mb = peak('check', '-r', 'all', '-f', 'qcow2', path)[1]
        assert qemu('qemu-img', 'check', path).returncode == 0
    elif what == 'measure':
        mb = peak('measure', '-O', 'qcow2', '-f', 'qcow2', path)[1]
    elif what == 'info':
        mb = peak('info', '-f', 'qcow2', path)[1]
    # A sanitizer keeps what was freed, and a shadow of it all.
    assert mb <= PEAK_MB * (1 if sanitizers() == 'none' else 5)


def test_preallocation_is_bounded(tmp_path):
    """96 MiB of L2 tables are made, and given back, in one exclusive section."""
    path = tmp_path / 'd.qcow2'
    mb = max(peak('create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, '768G')[1],
             peak('resize', '-q', '-f', 'qcow2', '--shrink', path, '1G')[1])
    assert mb <= PEAK_MB * (1 if sanitizers() == 'none' else 5)
