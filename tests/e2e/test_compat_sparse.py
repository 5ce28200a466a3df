# SPDX-License-Identifier: MIT
"""What qemu-img convert leaves out for -S SIZE, by the name qemu-img and by the installed program. Holes of a source stay
holes whatever the size is: zeroes are looked for in its data only."""
import json
import re

import pytest

from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAM = 'qemu-img'
MIB = 1 << 20
TARGETS = ['raw', 'qcow2', 'qcow2 -o cluster_size=4k', 'qcow2 -o extended_l2=on,cluster_size=128k', 'qcow2 -c', 'qcow2 -m 1']
SIZES = ['0', '512', '4k', '8k', '12k', '28k', '64k', '68k', '128k', '1M', '2M']
# The first block has data: the reference gives that of a raw file space anyway.
PIECES = ((0, 4096), (12288, 4096), (40960, 4096), (131072, 65536), (MIB, 4096), (MIB + 65536, 65536), (2 * MIB + 4096, 4096),
          (3 * MIB, MIB), (5 * MIB + 512, 512), (8 * MIB - 512, 512))


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Of the same pieces: a file with holes, one that has zeroes instead, and an image and its overlay, with some of each."""
    folder = tmp_path_factory.mktemp('sources')
    for name in ('holes', 'zeroes'):
        with open(folder / name, 'wb') as f:
            f.write(bytes(8 * MIB if name == 'zeroes' else 0))
            f.truncate(8 * MIB)
            for offset, length in PIECES:
                f.seek(offset)
                f.write(b'\5' * length)
    writes = ['write -P 5 0 64k', 'write -P 5 128k 64k', 'write -z 256k 64k', 'write -P 5 320k 4k', 'write -P 5 1M 1M',
              'write -P 0 2M 64k', 'write -P 7 3M 64k', 'write -P 7 4100k 200k']
    above = ['write -P 5 64k 64k', 'write -z 128k 64k', 'write -P 8 5M 4k']
    for name, made, what in (('image', ['-o', 'cluster_size=4k', 'image', '8M'], writes),
                             ('overlay', ['-b', 'image', '-F', 'qcow2', 'overlay'], above)):
        assert run([PROGRAM, 'create', '-q', '-f', 'qcow2', *made], cwd=folder).returncode == 0
        assert run(['qemu-io', *(word for w in what for word in ('-c', w)), name], cwd=folder).returncode == 0
    return folder


def layout(program, size, source, target, sources, folder):
    """Where the target has data, and what it holds."""
    fmt = 'raw' if source in ('holes', 'zeroes') else 'qcow2'
    done = run([program, 'convert', '-f', fmt, '-O', *target.split(), '-S', size, sources / source, 'new'], cwd=folder)
    told = run([PROGRAM, 'map', '-f', target.split()[0], '--output=json', 'new'], cwd=folder)
    runs = []
    for extent in json.loads(told.stdout):
        kind = extent['data'], extent['zero'], extent['present']
        if runs and runs[-1][1] == kind:
            runs[-1][0] += extent['length']
        else:
            runs.append([extent['length'], kind])
    same = run([PROGRAM, 'compare', '-f', fmt, '-F', target.split()[0], sources / source, 'new'], cwd=folder)
    (folder / 'new').unlink()
    return done.stdout, done.stderr, done.returncode, re.sub('at offset .*', '', same.stdout), runs


@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('source', ['holes', 'zeroes', 'image', 'overlay'])
def test_what_is_left_out(source, target, link, sources, tmp_path):
    for size in SIZES:
        ours, theirs = (layout(program, size, source, target, sources, tmp_path) for program in (link, PROGRAM))
        assert ours == theirs, size
        assert 'identical' in ours[3]
