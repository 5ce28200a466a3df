# SPDX-License-Identifier: MIT
"""Random programs of io commands through the link named qemu-io and the installed program, over
disks of many kinds: the same lines, exit code and disk afterwards.

The same programs each time, unless PLATTER_SEED=N chooses others; PLATTER_PROGRAMS=N says how many.
A failure prints what its program is; PLATTER_PROGRAM=NUMBER runs that alone."""
import os
import random
import re

import pytest

from io_disks import DISKS, MORE_DISKS, PROGRAM, make_models, outcome, same
from io_random import Programs
from tools_common import called, needs

pytestmark = needs('qcow2')
SEED = int(os.environ.get('PLATTER_SEED', '5'), 0)
COUNT = int(os.environ.get('PLATTER_PROGRAMS', '100'))
ONE = os.environ.get('PLATTER_PROGRAM')

# What differs on purpose: a pattern of "program NEWLINE our messages NEWLINE their messages", and why.
DIFFERS = {
    r'invalid JSON at byte .*JSON parse error': 'ours says at which byte',
    r'how to report bugs': 'the help does not say where to report faults of the reference',
    r'\nw(rite)? [^\n]*-\w*c.*write failed: Input/output error':
        'what is compressed may take the place of data',
    r'Could not open ./var/tmp/vl\.': 'a temporary layer can be reopened',
    r'(cache.direct|-[tc] ?(none|off|directsync)| -n ).*\nw(rite)? [^\n]*-\w*n.*Operation not supported':
        'direct I/O goes by the blocks that the file system tells',
    r'\nreopen [^\n]*-w.*force-share=on can only be used':
        'what is shared by force is not written to',
    r'force-share=on can only.*Must specify either driver': 'which of two faults is told first',
    r'k.*i ?(threads|io_uring).*aio=native was specified': 'the last engine that is named counts',
    r'Could not write zeros for preallocation: Invalid argument':
        'a file that is written directly is preallocated too, whatever its size was',
    r': v2 .*\nw(rite)? [^\n]*-\w*n': 'zeroes of an image of version 2 are fast where nothing is below',
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


def differs_on_purpose(text, ours, theirs):
    text = '\n'.join([text, *ours[0][:2], *theirs[0][:2]])
    died = theirs[0][2] < 0 # of a signal; we never do
    return died and ours[0][2] >= 0 or any(re.search(pattern, text, re.S) for pattern in DIFFERS)


def check_program(number, link, models, folder):
    disk, options, commands, is_input = Programs(random.Random(f'{SEED}/{number}')).program()
    text = told(number, disk, options, commands, is_input)
    ours, theirs = (
        outcome(program, disk, options, [] if is_input else commands, models, folder / 'work',
                '\n'.join(commands) + '\n' if is_input else None, described_too=True)
        for program in (link, PROGRAM))
    if not differs_on_purpose(text, ours, theirs):
        print(text)
        same(ours, theirs)


@pytest.mark.parametrize('part', range(10))
def test_same(part, link, models, tmp_path):
    for number in range(part, COUNT, 10):
        if not ONE or int(ONE) == number:
            check_program(number, link, models, tmp_path)
