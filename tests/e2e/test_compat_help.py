# SPDX-License-Identifier: MIT
"""--help and --version of the links as scripts use them: the text is ours, but whatever the installed tool lists is
there, on the same stream and with the same exit code, and the version can be read."""
import os
import re
import subprocess

import pytest

from tools_common import TIMEOUT, called, run

PROGRAMS = ('qemu-img', 'qemu-io', 'qemu-nbd', 'qemu-storage-daemon')
COMMANDS = ('amend', 'bench', 'bitmap', 'check', 'commit', 'compare', 'convert', 'create', 'dd', 'info', 'map',
            'measure', 'rebase', 'resize', 'snapshot')
OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
# In texts of the reference that look like options and are none.
NO_OPTIONS = {'-'}


@pytest.fixture(name='link')
def link_fixture(tmp_path):
    return lambda program: called(tmp_path, program) if not (tmp_path / program).exists() else tmp_path / program


def options_of(text):
    return set(OPTION.findall(text)) - NO_OPTIONS


def helped(program, *line):
    done = run([program, *line])
    assert (done.returncode, done.stderr) == (0, '')
    return done.stdout


@pytest.mark.parametrize('program', PROGRAMS)
@pytest.mark.parametrize('option', ['--help', '-h'])
def test_help_lists_every_option(program, option, link):
    theirs = options_of(helped(program, option))
    assert len(theirs) > 10
    assert not theirs - options_of(helped(link(program), option))


def syntax(text):
    """What the help of qemu-img says of each command, on its line."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.startswith('  '))
    return {words[0]: words[1] for words in lines if len(words) == 2 and words[0] in COMMANDS}


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command(command, link):
    """On its line of the whole, and by itself."""
    theirs = options_of(syntax(helped('qemu-img', '--help'))[command])
    ours = link('qemu-img')
    assert not theirs - options_of(syntax(helped(ours, '--help'))[command])
    assert not theirs - options_of(helped(ours, command, '--help'))
    assert not {'-h', '--help'} - options_of(helped(ours, command, '-h'))
    if command != 'resize':  # which wants its operands first there
        helped('qemu-img', command, '--help')


def test_operands_of_dd(link):
    assert all(f'{name}=' in syntax(helped(link('qemu-img'), '--help'))['dd']
               for name in ('bs', 'count', 'skip', 'if', 'of'))


def test_supported_formats(link):
    """The line that tells a script what can be converted."""
    ours, theirs = (re.search(r'^Supported formats: (.*)$', helped(program, '--help'), re.M).group(1).split()
                    for program in (link('qemu-img'), 'qemu-img'))
    assert {'raw', 'qcow2', 'nbd', 'file'} <= set(ours) & set(theirs)
    for name in ours:
        assert 'Unknown' not in run([link('qemu-img'), 'create', '-f', name, '-o', 'help']).stderr


@pytest.mark.parametrize('program', PROGRAMS)
@pytest.mark.parametrize('option', ['--version', '-V'])
def test_version(program, option, link):
    """The first line, as it is cut apart: by words, and by the first number that has points."""
    for name in (program, link(program)):
        line = helped(name, option).splitlines()[0]
        words = line.split()
        assert words[0].rsplit('/', 1)[-1] == program
        assert (words[1] == 'version') == (program != 'qemu-nbd')
        number = words[2 if words[1] == 'version' else 1]
        assert re.fullmatch(r'\d+\.\d+\.\d+', number)
        assert re.search(r'\d+(\.\d+)+', line).group() == number
        assert tuple(map(int, number.split('.'))) >= (7, 2, 0)
    assert re.search(r'\(Platter \d+\.\d+\.\d+\)$', line)


@pytest.mark.parametrize('line', ['qemu-img', 'qemu-img help', 'qemu-img -V info', 'qemu-img info -h disk', 'qemu-img -h info',
                                  'qemu-nbd -h disk', 'qemu-io -h disk', 'qemu-storage-daemon -h --nosuch',
                                  'qemu-storage-daemon --nosuch -h', 'qemu-nbd -V -h', 'qemu-img --help --nosuch'])
def test_streams_and_exit_code(line, link):
    program, *words = line.split()
    ours, theirs = (run([name, *words]) for name in (link(program), program))
    assert ours.returncode == theirs.returncode
    assert bool(ours.stdout) == bool(theirs.stdout)
    assert bool(ours.stderr) == bool(theirs.stderr)


def test_nobody_reads(tmp_path):
    """Into `head -1`, or without a stdout, it ends as the reference does; platter tells it."""
    (tmp_path / 'a').write_bytes(bytes(512))
    for program, end in ((called(tmp_path, 'qemu-img'), (0, '')), (os.environ['PLATTER_BIN'], (1, 'Broken pipe'))):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([program, 'info', '-f', 'raw', tmp_path / 'a'], stdout=writer, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=TIMEOUT)
        os.close(writer)
        assert done.returncode == end[0] and end[1] in done.stderr and bool(end[1]) == bool(done.stderr)
