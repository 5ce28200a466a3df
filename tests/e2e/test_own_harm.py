# SPDX-License-Identifier: MIT
"""No command writes over what it reads, whatever it is called."""
import os

import pytest
from qemu_image import qemu_img
from tools_common import platter, run

SIZE = 1 << 20


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    (tmp_path / 's.raw').write_bytes(os.urandom(SIZE))
    qemu_img('convert', '-f', 'raw', '-O', 'qcow2', 's.raw', 's.qcow2', cwd=tmp_path)
    qemu_img('create', '-f', 'qcow2', '-b', 's.qcow2', '-F', 'qcow2', 'over.qcow2', cwd=tmp_path)
    os.link(tmp_path / 's.raw', tmp_path / 'hard.raw')
    os.symlink('s.qcow2', tmp_path / 'soft.qcow2')
    return tmp_path


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


UNLOCKED = '--image-opts -O {} driver=raw,file.driver=file,file.filename=s.raw,file.locking=off'
LINES = [
    (UNLOCKED.format('raw') + ' s.raw', 'is what is to be copied'),
    (UNLOCKED.format('qcow2') + ' ./s.raw', 'is what is to be copied'),
    (UNLOCKED.format('raw') + ' file:hard.raw', 'is what is to be copied'),
    ('-f qcow2 -O raw over.qcow2 soft.qcow2', 'is what is to be copied'),
    ('-f qcow2 -O qcow2 -B ./x.qcow2 -F qcow2 over.qcow2 x.qcow2', 'cannot be its own backing file'),
]


@pytest.mark.parametrize('line,said', LINES, ids=range(len(LINES)))
def test_convert(folder, line, said):
    (folder / 'x.qcow2').write_bytes((folder / 's.qcow2').read_bytes())
    before = everything(folder)
    done = platter('convert', *line.split(), cwd=folder)
    assert done.returncode == 1 and said in done.stderr
    assert everything(folder) == before


@pytest.mark.parametrize('target', ['s.raw', './s.raw', 'file:s.raw', 'hard.raw'])
@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_convert_from_standard_input(folder, target, fmt):
    before = everything(folder)
    done = run(['sh', '-c', f'"$PLATTER_BIN" convert -f raw -O {fmt} - {target} < s.raw'], cwd=folder)
    assert done.returncode == 1 and f"'{target}' is what comes through standard input" in done.stderr
    assert everything(folder) == before


@pytest.mark.parametrize('arguments,source', [
    ('-f raw -O raw s.raw -', 's.raw'), ('-f raw -O qcow2 hard.raw -', 's.raw'), ('-f raw -O raw - -', 's.raw'),
    ('-f qcow2 -O raw over.qcow2 -', 's.qcow2')])
def test_convert_to_standard_output(folder, arguments, source):
    before = everything(folder)
    line = f'"$PLATTER_BIN" convert {arguments} < {source} 1<> {source}'
    done = run(['sh', '-c', line], cwd=folder)
    assert done.returncode == 1 and 'standard output is what is to be copied' in done.stderr
    assert everything(folder) == before


@pytest.mark.parametrize('backing', ['s.qcow2', './s.qcow2', '../{}/s.qcow2', '{full}/s.qcow2', 'soft.qcow2'])
def test_create_over_its_own_backing_file(folder, backing):
    before = everything(folder)
    backing = backing.format(folder.name, full=folder)
    done = platter('create', '-f', 'qcow2', '-b', backing, '-F', 'qcow2', 's.qcow2', cwd=folder)
    assert done.returncode == 1 and "'s.qcow2' cannot be its own backing file" in done.stderr
    assert everything(folder) == before


def test_create_beside_its_backing_file(folder):
    """The name is seen from where the image is, not from here."""
    (folder / 'sub').mkdir()
    done = platter('create', '-f', 'qcow2', '-b', '../s.qcow2', '-F', 'qcow2', 'sub/s.qcow2', cwd=folder)
    assert done.returncode == 0 and done.stderr == ''
    done = platter('create', '-f', 'qcow2', '-b', 's.qcow2', '-F', 'qcow2', 'sub/s.qcow2', cwd=folder)
    assert done.returncode == 1 and "'sub/s.qcow2' cannot be its own backing file" in done.stderr


def test_picture_of_a_disk(folder):
    for name in ('disk.svg', 'link.svg'):
        os.link(folder / 's.raw', folder / name)
    before = everything(folder)
    for out in ('disk.svg', 'link.svg'):
        done = platter('map', '-f', 'raw', '-o', out, 'disk.svg', cwd=folder)
        assert done.returncode == 1 and f"'{out}' is the disk that is drawn" in done.stderr
    assert everything(folder) == before
