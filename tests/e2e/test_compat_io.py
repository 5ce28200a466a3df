# SPDX-License-Identifier: MIT
"""The link named qemu-io beside the installed qemu-io: what is printed on either stream, the exit code
and the bytes of the disk. The commands themselves are compared in test_tools_io.py."""
import re
import shutil

import pytest

from tools_common import called, run

PROGRAM = 'qemu-io'

LINES = [
    ['plain.raw', '-c', 'length'],
    ['-f', 'raw', 'plain.raw', '-c', 'length'],
    ['-f', 'raw', 'plain.raw', '-c', 'write -P 3 64k 4k', '-c', 'read -P 3 64k 4k'],
    ['-f', 'raw', 'plain.raw', '-c', 'read -P 3 64k 4k'],
    ['-f', 'raw', 'plain.raw', '-c', 'read 1M 1'],
    ['-f', 'raw', 'plain.raw', '-c', 'nosuch'],
    ['-f', 'raw', '-r', 'plain.raw', '-c', 'write 0 512'],
    ['-r', 'plain.raw', '-c', 'map'],
    ['-f', 'nosuchformat', 'missing.raw'],
    ['missing.raw'],
    ['missing.raw', '-c', 'length'],
    ['-c', 'quit'],
    ['-f', 'raw', '-U', '-r', 'plain.raw', '-c', 'length'],
    ['--image-opts', 'driver=raw,file.driver=file,file.filename=plain.raw', '-c', 'length'],
    ['-f', 'raw', '-n', '-k', 'plain.raw', '-c', 'length'],
    ['-f', 'raw', '-t', 'unsafe', 'plain.raw', '-c', 'write -q 0 512'],
]


def timeless(text):
    return re.sub(r'\d\d\.\d\d sec \(.*/sec\)', 'TIME', text)


def outcome(program, arguments, folder, stdin=None):
    folder.mkdir()
    with open(folder / 'plain.raw', 'wb') as f:
        f.write(bytes(range(256)) * 32)
        f.truncate(1 << 20)
    done = run([program, *arguments], cwd=folder, stdin=stdin)
    held = (folder / 'plain.raw').read_bytes()
    shutil.rmtree(folder)
    return timeless(done.stdout), timeless(done.stderr), done.returncode, held


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.mark.parametrize('arguments', LINES, ids=' '.join)
def test_same(arguments, link, tmp_path):
    assert outcome(link, arguments, tmp_path / 'work') == \
        outcome(PROGRAM, arguments, tmp_path / 'work')


@pytest.mark.parametrize('arguments', [['-h'], ['--help', '--nosuch'], ['--nosuch'], ['-Z'], ['-c'], ['--cmd'],
                                       ['--cmd=length', '--c'], ['one', 'two'], ['--nocache=1']],
                         ids=' '.join)
def test_usage(arguments, link):
    """The same but for where faults are to be told."""
    ours, theirs = run([link, *arguments]), run([PROGRAM, *arguments])
    assert theirs.stdout.split('\n\nSee <')[0] == ours.stdout.rstrip('\n')
    assert (ours.stderr, ours.returncode) == (theirs.stderr, theirs.returncode)


def test_version_names_program(link):
    done = run([link, '--version'])
    assert done.returncode == 0 and re.match(r'qemu-io version \d+\.\d+', done.stdout)
