# SPDX-License-Identifier: MIT
"""Random command lines of qemu-img through both programs, over images of many kinds: what they
print, how they end and what their images hold afterwards must be the same, but for what is listed
as different on purpose.

The same lines each time, unless PLATTER_SEED=N chooses others; PLATTER_LINES=N says how many for
each command. A long run may still meet a line with several faults of which the reference tells
another first. A failure prints what its line is; PLATTER_LINE=COMMAND/NUMBER runs that alone."""
import hashlib
import json
import os
import random
import re
import shlex
import shutil

import pytest

from img_lines import Lines, make
from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAM = 'qemu-img'
SEED = int(os.environ.get('PLATTER_SEED', '5'), 0)
COUNT = int(os.environ.get('PLATTER_LINES', '10'))
ONE = os.environ.get('PLATTER_LINE')
SHOWN_BYTES_MAX = 64 << 20

# What differs on purpose: a pattern of "line NEWLINE our messages NEWLINE their messages", and why.
DIFFERS = {
    r'invalid JSON at byte .*JSON parse error': 'ours says at which byte',
    r'^(check|snapshot) .*Could not open backing file':
        'these need no backing file, and an overlay without it is to be helped',
    r'Encryption is not in this build': 'no image is made encrypted',
    r'^[a-z]+ .*--he\n': 'ours tells of one command what it takes',
    r"does not accept value '[^']*'.*Parameter 'version' does not": "the option is called 'compat'",
    r"^snapshot .*-f.*unrecognized option '": 'snapshot takes -f, as every command does',
    r'^snapshot .*WARNING.*WARNING.*Could not apply': 'a warning is given once',
    r"^map .*missing argument for option '-o'.*unrecognized option '-o'": 'map takes -o, a file for its picture',
    r'^snapshot .*-U.*force-share=on can only be used.*Cannot find device=':
        'that nobody writes without locks is told before a node is looked for',
    r'^snapshot .*-a.*blkdebug.*Block driver does not support snapshots\n\n$': 'the reference dies',
    r"^measure .*Parameter '(compression_type' does not accept|preallocation' does not accept.*required)":
        'a bad value is refused, though nothing depends on it',
    r'^(resize|snapshot) .*inject-error.*the last flush failed': 'what may not be on the disk is told',
    r"^(convert|measure|create|resize|amend) .*Value '8E' is out of range":
        'a size of 2^63 and more is too large',
    r"^measure .*Parameter 'compat' does not accept.*Invalid compatibility level": 'ours says of which parameter',
    r"^measure .*compat=v[23].*Invalid compatibility level: 'v[23]'": 'the level has a newer name',
    r'^measure .*use compat=v3 or greater.*use compat=1\.1 or greater': 'the level has a newer name',
    r"^[a-z]+ .*is past the end of the file\n":
        'data that lies behind the end of a cut file is lost, which is an error; the reference takes zeroes',
    r'^amend [^\n]*backing_(fmt|file)=[^\n]*\n+qemu-img: Cannot amend the backing file': 'an empty or unchanged value changes nothing',
    r": ([^\n:]+) \(use compat=v3 or greater\).*: \1 \(use version=v3 or greater\)": "the option is called 'compat'",
    r'^convert .*-c .*error while writing at byte \d+: (Input/output error|Invalid argument)':
        'compressed clusters may replace others, and be less than whole',
    r'^amend .*Cannot downgrade an image with bitmaps': 'the reference leaves them as leaks in an image of version 2',
    r'^amend .*compat=(v2|0.10).*Lazy refcounts only supported':
        'version 2 has none, also where the image had them before',
    r'^convert .*(Cannot use --target-is-zero[^\n]*\n).*\1': 'the reference says so, but ends as if it had worked',
    r'^rebase .*Failed to get shared "write" lock': 'an image cannot be its own backing file',
    r'^rebase .*a raw external data file and a backing file exclude each other':
        'ours says what excludes what',
    r"^rebase .*to '\(null\)'": 'a name that was not given is none',
    r'^rebase .*(Operation not supported|format must be specified)\n.*Cannot use relative backing file names':
        'that the format names no backing file is told instead',
    r'^rebase [^\n]*\n+qemu-img: Could not resolve backing filename: Cannot use relative':
        'a name is beside the file that is below, whatever is between',
    r"^rebase .*names for 'null-[a-z]+://.*The only allowed filename": 'a null disk is in no folder',
    r"^rebase .*(blkdebug requires both config file|Could not open 'blkdebug:)": 'a backing file is beside the file below the fault filter',
    r"^[a-z]+ .*--im.*Cannot find device='json:": 'options may be JSON',
    r'^compare .*(Strict mode: Offset \d+|Content|identical).*Strict mode: Offset ':
        'ours compares what is allocated, sector by sector; the reference also how long pieces are and how they are mapped',
    r'^compare (?=[^\n]* -s )[^\n]* -q ': 'the same, where only the exit code says so',
    r'^resize .*cut\.qcow2.*warning: L2 table at offset \S+ lies past the end': 'a table that is not in the file is told',
    r"^[a-z]+ .*does not support the option '(aa|offset)'":
        'an option that is unknown is told before anything is read',
    r"^(convert|create) .*Parameter 'compression_type' does not accept.*Parameter 'compression-type' does not":
        'the option is named as it was written',
    r'^convert .*-t.*Invalid cache option: .*error while converting': 'a bad word is told before the target is made',
    r"^(convert|create|measure) .*Parameter 'preallocation' does not accept.*invalid parameter value": 'ours says of which parameter',
    r'^bench .*json:.*aio=native was specified': 'a disk that JSON describes says there what its engine is',
    r'^convert .*(data-file-raw requires|Backing f).*Could not create ': 'options are judged before a file is made',
    r"^convert .*Parameter 'backing-fmt' does not accept.*Could not create '": 'options are judged before a file is made',
    r"^convert .*--bitm.*Format driver 'raw' does not support bitmaps\n.*error while converting":
        'whether the target can take bitmaps is told before it is made',
    r"^create .*(Backing|does not accept|power of two|only supported|requires).*Could not create '(nowhere/|folder|')":
        'options are judged before a file is made',
    r'^dd .*error while reading at byte': 'ours says where',
    r'^bench .*empty\.raw.*(Failed request: Input/output error| 0 bytes each)':
        'a disk without bytes cannot be read; the reference dies of a division by zero',
    r'^bench .*blkdebug.* 0 bytes each.*Failed request: Input/output error':
        'a request of no bytes goes nowhere, and meets no fault',
    r"^(convert|dd) .*is what is to be copied": 'a disk is not copied onto itself',
    r'^snapshot .*-a .*Block driver does not support snapshots': 'the reference dies where a filter is above what has none',
    r'^measure [^\n]*null-': 'a null disk that leaves a buffer alone counts as data',
    r'^measure .*(unrecognized option|missing argument).*Command syntax:': 'the reference tells of all commands',
    r"^info .*--ba.*Could not open backing file: Could not open '[^\n]*gone\.qcow2'":
        'a backing file that is gone is told with the image that names it',
}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    if not shutil.which(PROGRAM) or not shutil.which('qemu-io'):
        pytest.skip(f'{PROGRAM} is not installed')
    folder = tmp_path_factory.mktemp('images')
    make(folder)
    return folder


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


def masked(text):
    """Without what is the machine's, and progress, whose steps are each program's own."""
    text = re.sub(r'(disk size: ).*', r'\1SIZE', text)
    text = re.sub(r'("actual-size": )\d+', r'\1SIZE', text)
    text = re.sub(r'("date-n?sec": )\d+', r'\1DATE', text)
    text = re.sub(r'#block\d+', '#block', text)
    text = re.sub(r'(Run completed in )[\d.]+', r'\1TIME', text)
    text = re.sub(r'    \([\d.]+/100%\)[\r\n]+', '', text).lstrip('\n')
    return re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)


def digest(path):
    """Of a huge file, which is sparse, size and head stand for all."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    with open(path, 'rb') as f:
        return size, hashlib.sha256(f.read(min(size, SHOWN_BYTES_MAX))).hexdigest()


def held(folder, name):
    """What an image says and holds, as the reference sees it."""
    path = folder / name
    if not path.is_file():
        return None
    with open(path, 'rb') as f:
        is_qcow2 = f.read(4) == b'QFI\xfb' and name != 'junk'
    fmt = 'qcow2' if is_qcow2 else 'raw'
    info = run([PROGRAM, 'info', '-U', '--output=json', '-f', fmt, name], cwd=folder)
    if info.returncode or json.loads(info.stdout)['virtual-size'] > SHOWN_BYTES_MAX:
        return masked(info.stdout), info.stderr
    if json.loads(info.stdout).get('backing-filename') == name: # the reference hangs of it
        return masked(info.stdout), 'its own backing file'
    out = folder / 'content'
    done = run([PROGRAM, 'convert', '-U', '-f', fmt, '-O', 'raw', name, out.name], cwd=folder)
    content = done.stderr if done.returncode else digest(out)
    out.unlink(missing_ok=True)
    check = run([PROGRAM, 'check', '-U', '-f', fmt, name], cwd=folder).returncode if is_qcow2 else 0
    return masked(info.stdout), content, check


def outcome(program, words, images, folder):
    """(stdout, stderr, exit code), {image that was changed: what it holds}"""
    shutil.copytree(images, folder)
    done = run([program, *words], cwd=folder)
    names = {p.name for p in images.iterdir()} | {p.name for p in folder.iterdir()}
    changed = {name: held(folder, name) for name in sorted(names)
               if digest(images / name) != digest(folder / name)}
    shutil.rmtree(folder)
    return (masked(done.stdout), masked(done.stderr), done.returncode), changed


def differs_on_purpose(words, ours, theirs):
    text = '\n'.join([shlex.join(words), ours[0], ours[1], theirs[0], theirs[1]])
    return any(re.search(pattern, text, re.S) for pattern in DIFFERS)


def kept_by_rebase(words, before, mine, other):
    """Whether only ours reads as before: the reference takes a file for one of the chain, whatever
    format it is to have from now on."""
    return words[0] == 'rebase' and mine[0] == other[0] and mine[1] == before[1] != other[1]


def keeps_old_bytes(words):
    """Whether a target that is not zero was said to be, or a null disk leaves buffers as they are: what is seen of old
    bytes is each program's own."""
    return any(word.startswith('--target-is') or 'driver=null-' in word or 'null-co://' in word for word in words)


def check_line(words, images, link, folder):
    # The name of the folder is in some answers: both run where the other did.
    ours, our_images = outcome(link, words, images, folder / 'work')
    theirs, their_images = outcome(PROGRAM, words, images, folder / 'work')
    assert ours == theirs or differs_on_purpose(words, ours, theirs)
    if ours[2] == 0 and theirs[2] == 0:
        for name in our_images.keys() | their_images.keys(): # one may write what was there before
            mine, other = (held(images, name) if name not in i else i[name] for i in (our_images, their_images))
            assert mine == other or keeps_old_bytes(words) or kept_by_rebase(words, held(images, name), mine, other)
    # What fails leaves more alone than the reference does, and never harms what that leaves alone.
    assert ours[2] == 0 or words[0] == 'bench' or our_images.keys() <= their_images.keys()


@pytest.mark.parametrize('command', Lines.COMMANDS)
def test_same(command, images, link, tmp_path):
    for number in range(COUNT):
        if ONE and ONE != f'{command}/{number}':
            continue
        words = Lines(random.Random(f'{SEED}/{command}/{number}')).line(command)
        print(f'PLATTER_SEED={SEED} PLATTER_LINES={COUNT} PLATTER_LINE={command}/{number}:',
              shlex.join(words))
        check_line(words, images, link, tmp_path)
