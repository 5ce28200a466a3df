# SPDX-License-Identifier: MIT
"""Random programs of io commands through the link named qemu-io and the installed program, over
disks of many kinds: the same lines, exit code and disk afterwards.

The same programs each time, unless PLATTER_SEED=N chooses others; PLATTER_PROGRAMS=N says how many.
A failure prints what its program is; PLATTER_PROGRAM=NUMBER runs that alone."""
import itertools
import os
import random
import re
import shutil
import subprocess

import pytest

from io_disks import DISKS, MORE_DISKS, PROGRAM, make_models, outcome, same
from io_random import Programs
from tools_common import called, needs

pytestmark = needs('qcow2')
SEED = int(os.environ.get('PLATTER_SEED', '5'), 0)
COUNT = int(os.environ.get('PLATTER_PROGRAMS', '100'))
ONE = os.environ.get('PLATTER_PROGRAM')

# What differs on purpose: a pattern of "program NEWLINE ours: LINE NEWLINE theirs: LINE", of the first
# line of a stream that differs (what comes after it follows from it), and why.
DIFFERS = {
    r'ours: .*invalid JSON at byte .*theirs: .*JSON parse error': 'ours says at which byte',
    r'theirs: .*how to report bugs': 'the help does not say where to report faults of the reference',
    r'theirs: .*Could not open ./var/tmp/vl\.': 'a temporary layer can be reopened',
    r'\nw(rite)? [^\n]*-\w*c.*theirs: (qemu-io> )*write failed: Input/output error':
        'what is compressed may take the place of data',
    r': v2 .*\nw(rite)? [^\n]*-\w*n.*theirs: (qemu-io> )*(write failed: Operation not supported|THE DISK)':
        'zeroes of an image of version 2 are fast where nothing is below',
    r'(\[|\n(re|o)(pen)? )[^\n]*(-\w*n|-\w*[tc] ?(none|directsync|off)|cache\.direct=on).*\nd(iscard)? .*theirs: THE DISK':
        'of a disk that is written directly, whole sectors are discarded',
    r'\no(pen)? (?![^\n]*driver=)[^\n]*other\.raw.*\nw(rite)? [^\n]*-\w*n.*theirs: (qemu-io> )*write failed: Operation not supported':
        'a guessed raw disk is written by the byte',
    r'null-[ac].*\nw(rite)? [^\n]*-\w*n.*theirs: (qemu-io> )*write failed: Operation not supported':
        'a null disk takes zeroes at once',
    r'\nreopen [^\n]*(-w|read-only=off).*ours: .*force-share=on can only be used':
        'what is shared by force is not written to',
    r'-\w*k\w*( .*-\w*)?i ?(threads|io_uring).*theirs: .*aio=native was specified':
        'the last engine that is named counts',
    r"ours: .*can't open.*theirs: .*Can't use copy-on-read on read-only device":
        'copy-on-read is a node above the disk, which is opened first',
    r"ours: .*Cannot change the option 'backing'\ntheirs: .*Cannot find device=''":
        'a disk that has no backing file has none to change',
    r"ours: .*Cannot change the option '(\S+)'\ntheirs: .*Cannot change the option '(?!\1')":
        'which of several options is told is chance there',
    r"json:.*\nreopen [^\n]*size=64k.*theirs: .*Cannot change the option 'size'":
        'the same size in other words is no change',
    r'\[[^\]]*-\w*C.*\n(r(ead)?v?|aio_read) [^\n]* 0[xk0]*\n.*theirs: [^\n]*allocated': 'copy-on-read copies nothing where nothing is read',
    r': ext \[[^\]]*-\w*C.*theirs: [^\n]*allocated': 'copy-on-read copies no more than what is read takes',
    r'\nt(runcate)? [^\n]*-m ?full.*theirs: .*Could not write zeros for preallocation: Invalid argument':
        'a file that is written directly is preallocated too, whatever its size was',
}


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module')
def models(tmp_path_factory, link):
    folder = tmp_path_factory.mktemp('models')
    make_models(folder, DISKS | MORE_DISKS)
    return folder


def told(number, disk, options, commands, is_input):
    return f'PLATTER_SEED={SEED} PLATTER_PROGRAM={number}: {disk} [{options}] ' + \
        f'{"on standard input" if is_input else "-c"}\n' + '\n'.join(commands)


def first_differences(ours, theirs):
    """The first lines that two outcomes do not share, of each stream where they differ; THE DISK where
    only what it holds does."""
    if ours[0] == theirs[0] and ours[1] != theirs[1]:
        yield 'ours: THE DISK\ntheirs: THE DISK'
    for mine, other in zip(ours[0][:2], theirs[0][:2]):
        pairs = itertools.zip_longest(mine.split('\n'), other.split('\n'), fillvalue='')
        pair = next((p for p in pairs if p[0] != p[1]), None)
        if pair:
            yield f'ours: {pair[0]}\ntheirs: {pair[1]}'


def differs_on_purpose(text, ours, theirs):
    if theirs[0][2] < 0: # it died of a signal; we never do
        return ours[0][2] >= 0
    if 2 in theirs[2] and not any(ours[2]): # it has damaged its disk, as it says itself
        return True
    return any(re.search(pattern, f'{text}\n{lines}', re.S)
               for lines in first_differences(ours, theirs) for pattern in DIFFERS)


def outcome_in_time(program, *rest):
    """None where the reference hangs, as it does of some reads of compressed clusters through io_uring."""
    try:
        return outcome(program, *rest, described_too=True)
    except subprocess.TimeoutExpired:
        if program != PROGRAM:
            raise
        shutil.rmtree(rest[4])
        return None


def check_program(number, link, models, folder):
    disk, options, commands, is_input = Programs(random.Random(f'{SEED}/{number}')).program()
    text = told(number, disk, options, commands, is_input)
    ours, theirs = (
        outcome_in_time(program, disk, options, [] if is_input else commands, models, folder / 'work',
                        '\n'.join(commands) + '\n' if is_input else None)
        for program in (link, PROGRAM))
    if theirs and not differs_on_purpose(text, ours, theirs):
        print(text)
        same(ours, theirs)


@pytest.mark.parametrize('part', range(10))
def test_same(part, link, models, tmp_path):
    for number in range(part, COUNT, 10):
        if not ONE or int(ONE) == number:
            check_program(number, link, models, tmp_path)
