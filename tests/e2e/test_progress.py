# SPDX-License-Identifier: MIT
"""--progress=json of every command that shows how far it is."""
import json
import os
import signal
import socket
import subprocess

import pytest

from tools_common import TIMEOUT, needs, platter, qemu

pytestmark = needs('qcow2')

COMMANDS = {
    'amend': ['-f', 'qcow2', '-o', 'refcount_bits=64', 'base'],
    'check': ['-f', 'qcow2', 'base'],
    'checksum': ['-f', 'qcow2', 'base'],
    'commit': ['-f', 'qcow2', 'top'],
    'compact': ['-f', 'qcow2', 'base'],
    'compare': ['-f', 'qcow2', '-F', 'qcow2', 'base', 'copy'],
    'convert': ['-f', 'qcow2', '-O', 'qcow2', 'top', 'new'],
    'rebase': ['-f', 'qcow2', '-b', '', 'top'],
    'rebase -u': ['-u', '-f', 'qcow2', '-b', '', 'top'],
}


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    for line in (['qemu-img', 'create', '-q', '-f', 'qcow2', 'base', '8M'],
                 ['qemu-io', '-c', 'write -q -P 5 0 5M', 'base'], ['cp', 'base', 'copy'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'base', 'top'],
                 ['qemu-io', '-c', 'write -q -P 6 4M 2M', 'top']):
        assert qemu(*line, cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.mark.parametrize('name', COMMANDS)
@pytest.mark.parametrize('quiet', [[], ['-q']], ids=['loud', 'quiet'])
def test_a_line_each(folder, name, quiet):
    done = platter(name.split()[0], '--progress=json', *quiet, *COMMANDS[name], cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines.pop() == {'event': 'end', 'ok': True}
    assert {line['event'] for line in lines} <= {'progress'}
    assert len({line['total'] for line in lines}) <= 1
    assert [line['done'] for line in lines] == sorted({line['done'] for line in lines})
    assert all(line['percent'] == pytest.approx(100 * line['done'] / line['total'], abs=.01)
               for line in lines if line['total'] > 0)
    if lines:
        assert (lines[-1]['done'], lines[-1]['percent']) == (lines[-1]['total'], 100)


@pytest.mark.parametrize('name', ['check', 'checksum', 'compact'])
def test_an_answer_in_json_stands_alone(folder, name):
    done = platter(name, '-p', '--output=json', *COMMANDS[name], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert '(100.00/100%)' in done.stderr


@pytest.mark.parametrize('name', COMMANDS)
def test_another_form_is_refused(folder, name):
    done = platter(name.split()[0], '--progress=xml', *COMMANDS[name], cwd=folder)
    assert (done.returncode, done.stdout) == (1 if name == 'check' else 2, '')
    assert "no form of progress 'xml': there is json" in done.stderr


END_OF_FAILURE = '{"event": "end", "ok": false}\n'
# what is opened is the last word
MISSING = {**{name: [*words[:-1], 'missing'] for name, words in COMMANDS.items()},
           'convert': ['-f', 'qcow2', '-O', 'qcow2', 'missing', 'new']}


@pytest.mark.parametrize('name', MISSING)
def test_a_disk_that_is_not_there(folder, name):
    done = platter(name.split()[0], '--progress=json', *MISSING[name], cwd=folder)
    assert done.returncode == (2 if name in ('checksum', 'compare') else 1)
    assert done.stdout == END_OF_FAILURE
    assert "Could not open 'missing'" in done.stderr


def test_a_failure_beside_a_success(folder):
    """One end of all disks, in whatever order they are."""
    for files in (['base', 'missing'], ['missing', 'base']):
        done = platter('checksum', '--progress=json', '-f', 'qcow2', *files, cwd=folder)
        assert done.returncode == 2
        assert [json.loads(line).get('ok') for line in done.stdout.splitlines()][-2:] == [None, False]
        assert done.stdout.count('"end"') == 1


@pytest.mark.parametrize('name', ['check', 'checksum'])
def test_a_failure_beside_an_answer_in_json(folder, name):
    done = platter(name, '--progress=json', '--output=json', '-f', 'qcow2', 'missing', cwd=folder)
    assert done.returncode > 0
    assert json.loads(done.stdout or '[]') == []
    assert done.stderr.splitlines()[-1] + '\n' == END_OF_FAILURE


def test_a_check_that_is_not_done(folder):
    done = platter('check', '--progress=json', '-f', 'raw', 'base', cwd=folder)
    assert (done.returncode, done.stdout) == (63, END_OF_FAILURE)


def wait_for_server(folder, name, *numbers, ignored=()):
    """The command waits for a server that says nothing, when the signals come. Its exit code, stdout and stderr."""
    words = ['nbd+unix:///?socket=server' if word == 'missing' else word for word in MISSING[name]]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / 'server'))
        server.listen()
        server.settimeout(TIMEOUT)
        with subprocess.Popen([os.environ['PLATTER_BIN'], name.split()[0], '--progress=json', *words], cwd=folder,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              preexec_fn=lambda: [signal.signal(n, signal.SIG_IGN) for n in ignored]) as process:
            try:
                with server.accept()[0]:
                    for number in numbers:
                        process.send_signal(number)
                    out, err = process.communicate(timeout=TIMEOUT)
            finally:
                if process.poll() is None:
                    process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=['INT', 'TERM', 'HUP'])
@pytest.mark.parametrize('name', MISSING)
def test_a_signal(folder, name, number):
    assert wait_for_server(folder, name, number) == (-number, END_OF_FAILURE, '')


@pytest.mark.parametrize('name', ['check', 'commit'])
def test_a_signal_that_is_ignored(folder, name):
    assert wait_for_server(folder, name, signal.SIGINT, signal.SIGTERM, ignored=[signal.SIGINT]) == (
        -signal.SIGTERM, END_OF_FAILURE, '')
