# SPDX-License-Identifier: MIT
"""platter convert --journal: interrupted by SIGKILL anywhere, the same command ends with the same
disk."""
import fcntl
import json
import os
import random
import re
import signal
import struct
import subprocess

import pytest

from qemu_image import clean, make, qemu_img, write
from tools_common import TIMEOUT, guessing, needs, platter

pytestmark = needs('qcow2')
MIB = 1 << 20


@pytest.fixture(name='folder', scope='module')
def folder_fixture(tmp_path_factory):
    """An overlay of 96 MiB, most of it data, part of it in the base."""
    folder = tmp_path_factory.mktemp('sources')
    make(folder, 'base.qcow2', 96 * MIB)
    write(folder, 'base.qcow2', *(f'write -P {i + 1} {3 * i}M 2M' for i in range(30)))
    make(folder, 'top.qcow2', 96 * MIB, backing='base.qcow2')
    write(folder, 'top.qcow2', *(f'write -P {i + 100} {5 * i}M 3M' for i in range(15)), 'write -z 20M 3M')
    return folder


def records(path):
    """The lines of a journal that are whole."""
    if not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as f:
        return [json.loads(line) for line in f.read().split('\n')[:-1]]


def killed(arguments, folder, journal, wanted):
    """Run until the journal has so many records, then kill; False when it came to its end."""
    with subprocess.Popen([os.environ['PLATTER_BIN'], *guessing('convert', *arguments)], cwd=folder,
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and len(records(journal)) < wanted:
                try:
                    process.wait(0.005)
                except subprocess.TimeoutExpired:
                    pass
            process.send_signal(signal.SIGKILL)
        finally:
            if process.poll() is None:
                process.kill()
        return process.wait(TIMEOUT) != 0


def gone_on(line, folder):
    """The same command again. A killed process's ring lets go of its files, and so of their locks, a
    little after the process is gone: the command waits for that."""
    done = platter('convert', *line, cwd=folder)
    assert 'lock' not in done.stderr
    return done


@pytest.mark.parametrize('options', [
    ['-O', 'raw'], ['-O', 'qcow2'], ['-O', 'qcow2', '-c'], ['-O', 'qcow2', '-B', 'base.qcow2', '-F', 'qcow2'],
    ['-O', 'qcow2', '-o', 'cluster_size=4k'], ['-n', '-O', 'raw']], ids=' '.join)
def test_killed_and_gone_on_with(folder, tmp_path, options):
    target, journal = folder / f'out{tmp_path.name}', tmp_path / 'journal'
    fmt = 'qcow2' if 'qcow2' in options else 'raw'
    if '-n' in options:
        target.write_bytes(b'\xee' * (96 * MIB))
    line = ['--journal', journal, '-r', '100M', '-f', 'qcow2', *options, 'top.qcow2', target]
    before = [(folder / name).read_bytes() for name in ('base.qcow2', 'top.qcow2')]
    runs = 0
    while killed(line, folder, journal, 3):
        done = records(journal)
        assert all(a['offset'] <= b['offset'] for a, b in zip(done[1:], done[2:]))
        runs += 1
        if runs == 2:
            line[2:4] = ['-r', '100M']
            break
    assert runs == 2 and records(journal)[-1]['offset'] > 0
    done = gone_on(line, folder)
    assert done.returncode == 0, done.stderr
    assert not journal.exists()
    same = qemu_img('compare', '-f', fmt, '-F', 'qcow2', target, 'top.qcow2', cwd=folder)
    assert same.returncode == 0, same.stdout + same.stderr
    if fmt == 'qcow2':
        clean(folder, target.name)
    assert before == [(folder / name).read_bytes() for name in ('base.qcow2', 'top.qcow2')]
    target.unlink()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_cancelled_and_gone_on_with(folder, tmp_path, number):
    """A signal ends the job in order: the target is closed, nothing of it is leaked or in use."""
    target, journal = folder / f'out{tmp_path.name}', tmp_path / 'journal'
    line = ['--progress=json', '--journal', journal, '-r', '100M', '-f', 'qcow2', '-O', 'qcow2', 'top.qcow2', target]
    with subprocess.Popen([os.environ['PLATTER_BIN'], *guessing('convert', *line)], cwd=folder,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            for text in process.stdout:
                if json.loads(text).get('percent', 100) >= 20:
                    break
            process.send_signal(number)
            rest = process.communicate(timeout=TIMEOUT)[0]
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode == -number
    assert json.loads(rest.splitlines()[-1]) == {'event': 'end', 'ok': False}
    clean(folder, target.name)
    assert len(records(journal)) > 1
    done = platter('convert', '-pq', *line[1:], cwd=folder)  # the same but for what it shows
    assert done.returncode == 0, done.stderr
    assert not journal.exists()
    same = qemu_img('compare', '-f', 'qcow2', '-F', 'qcow2', target, 'top.qcow2', cwd=folder)
    assert same.returncode == 0, same.stdout + same.stderr
    target.unlink()


def small(tmp_path, text):
    (tmp_path / 'a.raw').write_bytes(random.Random(1).randbytes(MIB))
    if text is not None:
        (tmp_path / 'journal').write_bytes(text)
    return platter('convert', '--journal', 'journal', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'b.qcow2', cwd=tmp_path)


@pytest.mark.parametrize('text', [None, b'', b'{"conv', b'{"convert": 12345'])
def test_begins_anew(tmp_path, text):
    """There is no journal, or one of which no line was written whole."""
    assert small(tmp_path, text).returncode == 0
    assert not (tmp_path / 'journal').exists()


@pytest.mark.parametrize('text', [b'hello', b'hello\n', b'{}\n', b'{"convert": 5, "target": "1:2"}\n',
                                  b'{"convert": "x", "target": 7}\n', b'\0\n', b'[' * 100000 + b'\n'])
def test_other_files_are_left_alone(tmp_path, text):
    done = small(tmp_path, text)
    assert done.returncode == 1 and 'journal' in done.stderr
    assert (tmp_path / 'journal').read_bytes() == text
    assert not (tmp_path / 'b.qcow2').exists()


@pytest.mark.parametrize('harm', [
    lambda last: last.replace(b'{"offset": ', b'{"offset": 9'), # a digit more: behind the end of the disk
    lambda last: re.sub(rb'"offset": \d+', b'"offset": 94371840', last),
    lambda last: b'{"offset": 100663296, "zero": true}\n',
    lambda last: bytes(len(last)),                              # as a power cut leaves it
    lambda last: b'{}\n' + last,
], ids=['beyond', 'later', 'unproven', 'zeroes', 'foreign'])
def test_a_damaged_line_and_what_follows_do_not_count(folder, tmp_path, harm):
    """Nothing is taken as copied that was not; it is gone on from the line before. What is only shown of it
    may change."""
    journal, target = tmp_path / 'journal', tmp_path / 'out'
    line = ['--journal', journal, '-r', '100M', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', target]
    assert killed(line, folder, journal, 4)
    first, *more = journal.read_bytes().splitlines(keepends=True)
    harmed = [harm(text) for text in more[1:]]
    assert all(text != was for text, was in zip(harmed, more[1:]))
    journal.write_bytes(b''.join([first, more[0], *harmed]))
    done = platter('convert', '--progress=json', *line, cwd=folder)
    assert done.returncode == 0, done.stderr
    same = qemu_img('compare', '-f', 'raw', '-F', 'qcow2', target, 'top.qcow2', cwd=folder)
    assert same.returncode == 0, same.stdout + same.stderr


def test_source_or_target_that_changed(folder, tmp_path):
    for name in ('base.qcow2', 'top.qcow2'):
        os.link(folder / name, tmp_path / name)
    line = ['--journal', 'journal', '-r', '100M', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'out']
    assert killed(line, tmp_path, tmp_path / 'journal', 3)
    text = (tmp_path / 'journal').read_bytes()
    done = platter('convert', '-c', *line, cwd=tmp_path)
    assert done.returncode == 1 # another command line
    os.rename(tmp_path / 'out', tmp_path / 'kept')
    (tmp_path / 'out').write_bytes(bytes(96 * MIB))
    done = platter('convert', *line, cwd=tmp_path)
    assert done.returncode == 1 and 'is not the file that the journal' in done.stderr
    os.rename(tmp_path / 'kept', tmp_path / 'out')
    os.utime(tmp_path / 'top.qcow2')
    done = platter('convert', *line, cwd=tmp_path)
    assert done.returncode == 1 and 'or a source has changed' in done.stderr
    assert (tmp_path / 'journal').read_bytes() == text


@pytest.mark.parametrize('line,said', [
    (['-t', 'unsafe', 'a', 'b'], 'not -t unsafe'),
    (['--bitmaps', '-O', 'qcow2', 'a', 'b'], 'exclude each other'),
    (['-f', 'raw', '-', 'b'], 'a pipe cannot be gone on with'),
    (['-f', 'raw', 'a', '-'], 'a pipe cannot be gone on with'),
])
def test_refused(tmp_path, line, said):
    done = platter('convert', '--journal', 'journal', *line, cwd=tmp_path)
    assert done.returncode != 0 and said in done.stderr
    assert os.listdir(tmp_path) == []


def locked(path, start, length):
    """The file with a lock, as another program has it that lives."""
    file = open(path, 'r+b')  # pylint: disable=consider-using-with
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, start, length, 0))
    return file


def test_in_use(folder, tmp_path):
    """Of a journal that another has, and of a target that another keeps, it is told."""
    journal, target = tmp_path / 'journal', tmp_path / 'out'
    line = ['--journal', journal, '-r', '100M', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', target]
    assert killed(line, folder, journal, 3)
    with locked(journal, 0, 0):
        assert f"the journal '{journal}' is in use by another convert" in platter('convert', *line, cwd=folder).stderr
    with locked(target, 100, 200):
        done = platter('convert', *line, cwd=folder)
        assert done.returncode == 1 and 'lock' in done.stderr
    assert gone_on(line, folder).returncode == 0
