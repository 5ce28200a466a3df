# SPDX-License-Identifier: MIT
"""--progress=json of every command that shows how far it is."""
import json

import pytest

from tools_common import needs, platter, qemu

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
