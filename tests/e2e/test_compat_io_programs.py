# SPDX-License-Identifier: MIT
"""Programs of io commands (io_programs.py) through our program under the name qemu-io and through
the installed one: the same lines, exit code and disk. Timings are masked."""
import os
import re
import shlex
import shutil
import subprocess
import time

import pytest

from io_programs import DIFFERENT, INPUTS, PROGRAMS
from tools_common import called, run

PROGRAM = 'qemu-io'

def content(path):
    with open(path, 'wb') as f:
        f.write(b'\1' * 4096 + bytes(range(256)) * 16)
        f.truncate(1 << 20)


def image(*arguments):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *arguments], check=True,
                   stdout=subprocess.DEVNULL)


# A disk: its file, its format, how it is made in the current folder.
DISKS = {
    'raw': ('raw.raw', 'raw', lambda: content('raw.raw')),
    'qcow2': ('qcow2.qcow2', 'qcow2', lambda: image('qcow2.qcow2', '1M')),
    'v2': ('v2.qcow2', 'qcow2', lambda: image('-o', 'compat=0.10', 'v2.qcow2', '1M')),
    'small': ('small.qcow2', 'qcow2', lambda: image('-o', 'cluster_size=512', 'small.qcow2', '1M')),
    'ext': ('ext.qcow2', 'qcow2', lambda: image('-o', 'extended_l2=on', 'ext.qcow2', '1M')),
    'datafile': ('datafile.qcow2', 'qcow2',
                 lambda: image('-o', 'data_file=data.raw', 'datafile.qcow2', '1M')),
    'lazy': ('lazy.qcow2', 'qcow2', lambda: image('-o', 'lazy_refcounts=on', 'lazy.qcow2', '1M')),
    'zstd': ('zstd.qcow2', 'qcow2', lambda: image('-o', 'compression_type=zstd', 'zstd.qcow2', '1M')),
    'full': ('full.qcow2', 'qcow2', lambda: image('-o', 'preallocation=full', 'full.qcow2', '1M')),
    'overlay': ('overlay.qcow2', 'qcow2', lambda: None),
    'nbd': ('nbd+unix:///?socket=nbd.sock', 'raw', lambda: content('nbd.raw')),
}


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """A folder that holds every disk, to be copied."""
    folder = tmp_path_factory.mktemp('models')
    before = os.getcwd()
    os.chdir(folder)
    for _, _, make in DISKS.values():
        make()
    content('other.raw')
    image('-b', 'other.raw', '-F', 'raw', 'overlay.qcow2')
    os.chdir(before)
    return folder


def masked(text):
    text = re.sub(r'\d+(:\d\d)*\.\d\d sec \(.*/sec\)|\d+:\d\d:\d\d\.\d\d \(.*/sec\)', 'TIME', text)
    text = re.sub(r'^(\d+,1),\d+:.*$', r'\1,TIME', text, flags=re.M)
    return re.sub(r"'#block\d+'", 'NODE', text)


def nbd_server(folder):
    socket = os.path.join(folder, 'nbd.sock')
    server = subprocess.Popen(['qemu-nbd', '-t', '-e', '4', '-f', 'raw', '--discard=unmap', '-k', socket,
                               os.path.join(folder, 'nbd.raw')])
    while not os.path.exists(socket) and server.poll() is None:
        time.sleep(0.01)
    return server


def outcome(program, disk, options, commands, models, folder, stdin=None):
    folder.mkdir()
    for name in ('other.raw', 'overlay.qcow2'):
        shutil.copy(models / name, folder)
    arguments = shlex.split(options)
    if disk:
        file, fmt, _ = DISKS[disk]
        for name in os.listdir(models):
            if name.startswith((f'{disk}.', 'data.') if disk == 'datafile' else f'{disk}.'):
                shutil.copy(models / name, folder)
        if '--image-opts' not in options:
            arguments += ['-f', fmt, file]
    for c in commands:
        arguments += ['-c', c]
    server = nbd_server(folder) if disk == 'nbd' else None
    try:
        done = run([program, *arguments], cwd=folder, stdin=stdin)
    finally:
        if server:
            server.terminate()
            server.wait()
    held = {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))
            if name.endswith('.raw')}
    checks = [subprocess.run(['qemu-img', 'check', '-U', folder / name], capture_output=True,
                             check=False).returncode
              for name in sorted(os.listdir(folder)) if name.endswith('.qcow2')] if disk else []
    shutil.rmtree(folder)
    return masked(done.stdout), masked(done.stderr), done.returncode, held, checks


def both(link, models, tmp_path, disk, options, commands, stdin=None):
    return [outcome(program, disk, options, commands, models, tmp_path / 'work', stdin)
            for program in (link, PROGRAM)]


def compare(link, models, tmp_path, *program, stdin=None):
    ours, theirs = both(link, models, tmp_path, *program, stdin=stdin)
    assert ours[:3] == theirs[:3]
    for name, held in theirs[3].items():
        assert ours[3][name] == held, name
    # a check finds no more than in the disk of the reference, which may leak
    assert all(mine in (0, other) for mine, other in zip(ours[4], theirs[4], strict=True))


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


@pytest.mark.parametrize('program', DIFFERENT, ids=lambda p: name_of(p[:3]))
def test_difference_is_there(program, link, models, tmp_path):
    """One that is gone leaves the list."""
    ours, theirs = both(link, models, tmp_path, *program[:3])
    assert ours[:3] != theirs[:3]
    assert ours[2] >= 0 or 'abort' in program[2]
