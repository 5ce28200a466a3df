# SPDX-License-Identifier: MIT
"""Random command lines of qemu-nbd through the link of that name and the installed program: what is
refused, in which words; what clients see of what is served, how it takes writes, and what the images
hold afterwards.

The same lines each time, unless PLATTER_SEED=N chooses others; PLATTER_LINES=N says how many. A
failure prints what its line is; PLATTER_LINE=NUMBER runs that alone."""
import os
import random
import re
import shlex
import shutil

import pytest

from io_disks import masked
from nbd_random import ENDING, Lines
from nbd_tool import PROGRAM, Background, make_images, seen
from tools_common import called, needs, run

pytestmark = needs('qcow2')
SEED = int(os.environ.get('PLATTER_SEED', '5'), 0)
COUNT = int(os.environ.get('PLATTER_LINES', '50'))
ONE = os.environ.get('PLATTER_LINE')
WRITES = ['write -P 9 4k 8k', 'write -z 64k 4k', 'write -P 0 128k 64k', 'discard 512k 64k', 'flush',
          'write -f -P 7 1000 24', 'read -P 9 4k 8k', 'read -P 0 128k 4k', 'length']

# What differs on purpose: a pattern of "line NEWLINE our messages NEWLINE their messages", and why.
LINE_WITH = r'(?=[^\n]*(?<!\S)({}))'
DIFFERS = {
    r'invalid JSON at byte .*JSON parse error': 'ours says at which byte',
    r'\A' + LINE_WITH.format('-l|--lo') + LINE_WITH.format('-o|--of') +
    r"[^\n]*qcow2.*Block format 'raw' used by device '' does not support": 'a part of what a snapshot shows can be served',
    r'\A' + LINE_WITH.format('-o|--of') + r".*Block format 'null-co' used by device ''.*Block format 'raw' used by device ''":
        'the part is put above what a snapshot shows',
    r'\A' + LINE_WITH.format('-s|--sn') + LINE_WITH.format('-l|--lo') + r"[^\n]*\n.*Can't find snapshot":
        'a scratch layer may stand above a snapshot',
    r'\A' + LINE_WITH.format('--ai') + r'[^\n]*json:.*aio=native was specified': 'what json: says is all that is said',
    r"Bitmap name is longer than 1023 bytes\n.*Bitmap 'x+' is not found": 'a name that is too long for any is told so',
}
# A line for each, in its order.
EXAMPLES = [
    'json:{', '-f qcow2 -l first -o 512 base.qcow2',
    '--image-opts -l first -o 512 driver=null-co,size=64k,read-zeroes=on', '-f qcow2 -s -l first base.qcow2',
    '--aio=native json:{"driver":"raw","file":{"driver":"file","filename":"plain.raw"}}',
    f'-f qcow2 -B {"x" * 1100} base.qcow2',
]


@pytest.fixture(scope='module', name='link')
def fixture_link(tmp_path_factory):
    if not shutil.which('nbdinfo'):
        pytest.skip('nbdinfo is not installed')
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module', name='images')
def fixture_images(tmp_path_factory, link):
    folder = make_images(tmp_path_factory.mktemp('images'))
    (folder / 'odd.raw').write_bytes(b'odd' * 333)
    (folder / 'folder').mkdir()
    return folder


def content(folder):
    """What the images hold, as the reference reads them."""
    held = {}
    for name, fmt in (('plain.raw', 'raw'), ('odd.raw', 'raw'), ('base.qcow2', 'qcow2'),
                      ('over.qcow2', 'qcow2')):
        if fmt == 'qcow2':
            done = run(['qemu-img', 'convert', '-f', fmt, '-O', 'raw', name, 'copy'], cwd=folder)
        damaged = fmt == 'qcow2' and done.returncode != 0  # it was served as a raw disk, and written to
        held[name] = (folder / ('copy' if fmt == 'qcow2' and not damaged else name)).read_bytes()
    return held


def outcome(program, link, line, images, folder):
    """(stdout, stderr, exit code), what was seen of what is served, what the images hold"""
    shutil.copytree(images, folder)
    done = run([program, *(word.replace('/FOLDER', str(folder)) for word in line)], cwd=folder)
    served = None
    if (folder / 'nbd.pid').exists() and (folder / 'nbd.pid').stat().st_size:
        server = Background(folder / 'nbd.sock', folder / 'nbd.pid')
        try:
            served, uri = seen(server, link, folder)
            written = run(['qemu-io', '-f', 'raw', *[w for c in WRITES for w in ('-c', c)], uri])
            served = *served, masked(written.stdout + written.stderr), written.returncode
        finally:
            server.end()
    held = content(folder) if served else None
    shutil.rmtree(folder)
    return (done.stdout, done.stderr, done.returncode), served, held


def comparable(line, got, theirs):
    """An outcome without what differs on purpose in some of what is seen. theirs: the reference's."""
    (out, err, code), served, held = got
    text = shlex.join(line)
    if theirs and served and 'probing guessed raw' in err:
        code = 0  # a warning of one that goes to the background is no failure
    if served:
        listed, maps, *rest = served
        if theirs and not re.search(r'(?<!\S)(-f|--form)', text):  # guessed raw is served by the byte
            listed = listed.replace('min block: 512\n', 'min block: 1\n')
        if re.search(r'over\.qcow2|(?<!\S)(-s|--sn)', text) and re.search(r'(?<!\S)(-o|--of)', text):
            # what is allocated below the first layer is seen through an offset, and how deep
            maps = maps[2 if 'qemu:allocation-depth' in listed else 1:]
        served = listed, maps, *rest
    return (out, err, code), served, held


def differs_on_purpose(line, ours, theirs):
    text = '\n'.join([shlex.join(line), *ours[0][:2], *theirs[0][:2]])
    return [pattern for pattern in DIFFERS if re.search(pattern, text, re.S)]


def both(line, link, images, folder):
    # The name of the folder is in some answers: both run where the other did.
    ours, theirs = (outcome(program, link, line, images, folder / 'work') for program in (link, PROGRAM))
    return comparable(line, ours, False), comparable(line, theirs, True)


def check_line(number, link, images, folder):
    line = Lines(random.Random(f'{SEED}/{number}')).line()
    ours, theirs = both(line, link, images, folder)
    if not differs_on_purpose(line, ours, theirs):
        print(f'PLATTER_SEED={SEED} PLATTER_LINE={number}:', shlex.join(line))
        assert ours[0] == theirs[0]
        assert ours[1] == theirs[1]
        assert ours[2] == theirs[2]


@pytest.mark.parametrize('part', range(10))
def test_same(part, link, images, tmp_path):
    for number in range(part, COUNT, 10):
        if not ONE or int(ONE) == number:
            check_line(number, link, images, tmp_path)


@pytest.mark.parametrize('line,pattern', zip(EXAMPLES, DIFFERS, strict=True), ids=range(len(DIFFERS)))
def test_difference_is_there(line, pattern, link, images, tmp_path):
    """One that is gone leaves the list."""
    words = [*line.split(), *ENDING]
    ours, theirs = both(words, link, images, tmp_path)
    assert ours != theirs and differs_on_purpose(words, ours, theirs) == [pattern]
