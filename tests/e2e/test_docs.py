# SPDX-License-Identifier: MIT
"""Manual pages and completions, made from the tables that --help is printed from."""
import os
import re
import shutil
import subprocess

import pytest

from tools_common import formats, platter, run


def commands():
    return re.findall(r'^  (\S+) ', platter('--help').stdout.split('commands:')[1], re.M)


def options(command):
    """Of --help: ['-f', '--format', ...]"""
    heads = re.findall(r'^  +(-[^\s,]+(?:, -\S+)?)', platter(command, '--help').stdout.split('\n\n')[1], re.M)
    return [re.split(r'[=[]', w)[0] for head in heads for w in head.split(', ')]


COMMANDS = [c for c in commands() if c != 'help']


@pytest.fixture(name='pages', scope='module')
def pages_fixture(tmp_path_factory):
    folder = tmp_path_factory.mktemp('docs') / 'man1'
    for _ in range(2):  # a folder that is there is used
        done = platter('docs', '--man', folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    return folder


def test_a_page_for_each(pages):
    assert len(COMMANDS) > 15 and 'docs' not in COMMANDS
    assert sorted(os.listdir(pages)) == sorted(['platter.1'] + [f'platter-{c}.1' for c in COMMANDS])
    index = (pages / 'platter.1').read_text()
    assert all(f'.BR platter\\-{c} (1)' in index for c in COMMANDS)


@pytest.mark.parametrize('command', COMMANDS)
def test_page_has_every_option(pages, command):
    text = (pages / f'platter-{command}.1').read_text().replace('\\-', '-')
    shown = re.findall(r'\\fB(-.*?)\\fR', text)
    assert options(command) == shown
    assert len(shown) > 2


def test_pages_have_no_faults(pages):
    if not all(shutil.which(tool) for tool in ('man', 'groff', 'mandoc')):
        pytest.skip('needs man, groff and mandoc')
    for page in sorted(pages.iterdir()):
        done = subprocess.run(['groff', '-man', '-Tutf8', '-ww', '-z', page], capture_output=True, text=True,
                              timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ''), page
    done = run(['mandoc', '-T', 'lint', '-W', 'all', *sorted(pages.iterdir())])
    assert done.returncode == 0, done.stdout


def test_example_is_copied_as_it_is(pages):
    if not shutil.which('groff'):
        pytest.skip('needs groff')
    text = subprocess.run(['groff', '-man', '-Tascii', '-P-cbou', pages / 'platter-io.1'], capture_output=True, text=True,
                          timeout=60, check=True).stdout
    assert "platter io -f raw -c 'write -P 7 0 4k' -c 'read -P 7 0 4k' disk.img" in text


# ---- completion ----

DRIVE = r'''
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_platter
printf '%s\n' "${COMPREPLY[@]}"
'''


@pytest.fixture(name='complete', scope='module')
def complete_fixture(tmp_path_factory):
    script = tmp_path_factory.mktemp('bash') / 'platter.bash'
    script.write_text(platter('docs', '--bash').stdout)

    def complete(*words):
        done = run(['bash', '-c', DRIVE, 'bash', script, 'platter', *words])
        assert (done.returncode, done.stderr) == (0, '')
        return done.stdout.split()
    return complete


def test_complete_commands(complete):
    assert complete('') == [*commands(), '--help', '--version']
    assert complete('che') == ['check', 'checksum']
    assert complete('help', 'insp') == ['inspect']
    assert complete('help', '') == COMMANDS
    assert complete('help', '--') == complete('help', 'info', '') == []
    assert complete('nothing') == []


@pytest.mark.parametrize('command', COMMANDS)
def test_complete_options(complete, command):
    assert sorted(set(complete(command, '-'))) == sorted(set(options(command)) - {'-h'})


def test_complete_values(complete):
    for command, option in (('info', '-f'), ('compare', '-F'), ('nbd', '-f'), ('serve', '--format')):
        assert complete(command, option, '') == [*formats(), 'auto']
    assert complete('info', '--format', 'ra') == ['raw']
    # as bash cuts --output=j
    assert complete('info', '--output', '=', 'j') == ['json']
    assert complete('info', '--output', '=') == ['human', 'json']
    cache = ['none', 'off', 'writeback', 'writethrough', 'directsync', 'unsafe']
    for command, option in (('commit', '-t'), ('convert', '--cache'), ('check', '-T'), ('rebase', '--src-cache'),
                            ('nbd', '--cache'), ('serve', '--cache')):
        assert complete(command, option, '') == cache
    assert complete('nbd', '--aio', 'i') == complete('bench', '-i', 'i') == ['io_uring']
    assert complete('nbd', '--discard', '=', 'u') == complete('io', '-d', 'u') == ['unmap']
    assert complete('nbd', '--detect-zeroes', '') == ['off', 'on', 'unmap']
    assert complete('resize', '--preallocation', '=') == ['off', 'metadata', 'falloc', 'full']
    for command, option in (('convert', '-O'), ('create', '-F'), ('rebase', '-B'), ('dd', '-O')):
        assert complete(command, option, '') == formats()
    assert complete('info', '--image-refs', '') == ['none', 'listed', 'follow']
    assert complete('checksum', '-a', 'sha5') == ['sha512']
    assert complete('top', '--table', '') == ['backends', 'nodes', 'exports', 'jobs', 'all']
    assert complete('top', '-s', '') == complete('top', '--sort', '=') == ['name', 'ops', 'bytes', 'latency', 'depth']
    assert complete('info', 'disk') == []   # left to file names
    assert complete('convert', '-m', '4', '--source-s') == ['--source-size']
    assert complete('convert', '-m', '4', '--nothing') == []
    assert complete('info', '--out') == ['--output']


@pytest.mark.parametrize('command', [c for c in COMMANDS if '--progress' in options(c)])
def test_complete_a_value_that_may_lack(complete, command):
    assert complete(command, '--progress', '=') == complete(command, '--progress', '=', 'j') == ['json']
    # what stands apart is the next operand
    assert complete(command, '--progress', '') == complete(command, '-p', '') == []


def test_complete_settings(complete):
    settings = ['if=', 'of=', 'bs=', 'count=', 'skip=']
    assert complete('dd', '') == complete('dd', '-U', '') == complete('dd', '--image-opts', '') == settings
    assert complete('dd', 'i') == ['if=']
    assert complete('dd', '-f', 'ra') == ['raw']
    # left to file names
    assert complete('dd', 'if', '=') == complete('dd', 'of', '=', 'x') == complete('dd', '--allow-ref', '') == []


def test_complete_in_a_shell_that_is_strict(tmp_path):
    (tmp_path / 'c').write_text(platter('docs', '--bash').stdout)
    done = run(['bash', '-euc', 'source ./c; complete -p platter'], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert '-F _platter platter' in done.stdout


def test_zsh(tmp_path):
    text = platter('docs', '--zsh').stdout
    assert text.startswith('#compdef platter\n')
    assert all(f"'{c}:" in text for c in COMMANDS)
    assert ':MODE:(off on unmap)' in text
    assert ':MODE:_files' not in text
    if not shutil.which('zsh'):
        pytest.skip('needs zsh')
    (tmp_path / '_platter').write_text(text)
    done = run(['zsh', '-n', tmp_path / '_platter'])
    assert (done.returncode, done.stderr) == (0, '')


# A shell of its own terminal, where a key tells what stands on the line.
ZSH_RC = r'''
PS1=
fpath=($PWD $fpath)
autoload -U compinit
compinit -u -D
told() { print -r -- "$BUFFER" >>told; BUFFER=; print TOLD }
zle -N told
bindkey '^X' told
bindkey '^I' complete-word
print READY
'''
ZSH_DRIVE = r'''
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source ./rc'
zpty -r shell text '*READY*'
for line; do
    zpty -n -w shell "$line"$'\t\x18'
    zpty -r shell text '*TOLD*'
done
zpty -d shell
'''


def test_complete_in_zsh(tmp_path):
    if not shutil.which('zsh'):
        pytest.skip('needs zsh')
    for name, text in (('_platter', platter('docs', '--zsh').stdout), ('rc', ZSH_RC), ('disk.raw', '')):
        (tmp_path / name).write_text(text)
    lines = {'--v': '--version ', 'help insp': 'help inspect ', 'help --h': 'help --h', 'help he': 'help he',
             'dd i': 'dd if=', 'dd if=di': 'dd if=disk.raw ', 'dd of=./di': 'dd of=./disk.raw ', 'dd -O qc': 'dd -O qcow2 ',
             'check --progress=': 'check --progress=json ', 'check -p di': 'check -p disk.raw ',
             'top --table e': 'top --table exports ', 'top -s l': 'top -s latency '}
    done = run(['zsh', '-fc', ZSH_DRIVE, 'zsh', *(f'platter {line}' for line in lines)], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert (tmp_path / 'told').read_text().splitlines() == [f'platter {line}' for line in lines.values()]


@pytest.mark.parametrize('arguments, message', [
    ([], 'which of --man, --bash and --zsh?'),
    (['x'], "'x' is too much"),
    (['--man'], "option '--man' needs a value: DIR"),
])
def test_refuses(arguments, message):
    done = platter('docs', *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_folder_that_cannot_be(tmp_path):
    done = platter('docs', '--man', tmp_path / 'no' / 'where')
    assert done.returncode == 1
    assert 'could not create the folder' in done.stderr
