# SPDX-License-Identifier: MIT
"""Programs of io commands (io_programs.py) through our program under the name qemu-io and through
the installed one: the same lines, exit code and disk. Timings are masked."""
import pytest

from io_disks import DISKS, PROGRAM, make_models, outcome, same
from io_programs import DIFFERS, INPUT_DIFFERS, INPUTS, PROGRAMS
from tools_common import called


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp('models')
    make_models(folder, DISKS)
    return folder


def both(link, models, tmp_path, disk, options, commands, stdin=None):
    return [outcome(program, disk, options, commands, models, tmp_path / 'work', stdin)
            for program in (link, PROGRAM)]


def compare(link, models, tmp_path, *program, stdin=None):
    same(*both(link, models, tmp_path, *program, stdin=stdin))


def name_of(program):
    disk, options, rest = program
    return ' '.join(filter(None, [disk, options, rest[0] if rest and isinstance(rest, list) else repr(rest)]))


@pytest.mark.parametrize('program', PROGRAMS, ids=name_of)
def test_program(program, link, models, tmp_path):
    compare(link, models, tmp_path, *program)


@pytest.mark.parametrize('program', INPUTS, ids=name_of)
def test_input(program, link, models, tmp_path):
    disk, options, text = program
    compare(link, models, tmp_path, disk, options, [], stdin=text)


@pytest.mark.parametrize('program', DIFFERS, ids=lambda p: name_of(p[:3]))
def test_difference_is_there(program, link, models, tmp_path):
    """One that is gone leaves the list."""
    ours, theirs = both(link, models, tmp_path, *program[:3])
    assert ours[:2] != theirs[:2]
    assert ours[0][2] >= 0 or 'abort' in program[2]


@pytest.mark.parametrize('program', INPUT_DIFFERS, ids=lambda p: name_of(p[:3])[:60])
def test_difference_of_input_is_there(program, link, models, tmp_path):
    disk, options, text, _ = program
    ours, theirs = both(link, models, tmp_path, disk, options, [], stdin=text)
    assert ours[0] != theirs[0] and ours[0][2] >= 0


@pytest.mark.parametrize('how', ['-r', '-c none', '-c directsync'])
@pytest.mark.parametrize('disk', ['raw', 'qcow2'])
def test_a_temporary_layer_is_reopened(disk, how, link, models, tmp_path):
    """With what was written to it. Its file has no name by then."""
    commands = ['write -q -P 7 64k 64k', f'reopen {how}', 'read -q -P 7 64k 64k', 'reopen -w -c writeback',
                'write -q -P 8 0 512', 'read -q -P 8 0 512', 'read -q -P 7 64k 64k']
    told, _, _ = outcome(link, disk, '-s', commands, models, tmp_path / 'work')
    assert told == ('', '', 0)
