# SPDX-License-Identifier: MIT
"""No command writes over what it reads, whatever it is called."""
import os

import pytest
from qemu_image import qemu_img
from tools_common import called, platter, run

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


@pytest.fixture(name='chain')
def chain_fixture(folder):
    """top on mid on ../sub/low on s.qcow2, each named from its own folder."""
    (folder / 'sub').mkdir()
    for name, backing in (('sub/low', '../s.qcow2'), ('mid', 'sub/low'), ('top', './mid')):
        done = qemu_img('create', '-f', 'qcow2', '-b', backing, '-F', 'qcow2', name, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def chain_holds(folder):
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('target', ['mid', './mid', 'sub/low', 's.qcow2', 'soft.qcow2'])
@pytest.mark.parametrize('size', [[], ['1M']], ids=['', '1M'])
def test_create_over_its_own_chain(chain, target, size):
    before = chain_holds(chain)
    done = platter('create', '-f', 'qcow2', '-b', f'{chain}/top', '-F', 'qcow2', target, *size, cwd=chain)
    assert (done.returncode, done.stdout) == (1, '')
    assert f"'{target}' belongs to the backing chain of '{chain}/top'" in done.stderr
    assert chain_holds(chain) == before


@pytest.mark.parametrize('target', ['mid', 'sub/low', 's.qcow2'])
def test_convert_over_the_chain_of_its_backing_file(chain, target):
    before = chain_holds(chain)
    done = platter('convert', '-f', 'raw', '-O', 'qcow2', '-B', f'{chain}/top', '-F', 'qcow2', 's.raw', target, cwd=chain)
    assert done.returncode == 1 and f"'{target}' belongs to the backing chain of" in done.stderr
    assert chain_holds(chain) == before


def test_create_over_a_chain_as_the_reference(chain):
    """Which makes it, and so does who stands in for it."""
    link = called(chain, 'qemu-img')
    line = ['create', '-f', 'qcow2', '-b', 'top', '-F', 'qcow2', 'mid']
    before = (chain / 'mid').read_bytes()
    theirs = qemu_img(*line, cwd=chain)
    made = (chain / 'mid').read_bytes()
    (chain / 'mid').write_bytes(before)
    ours = run([link, *line], cwd=chain)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    assert (ours.returncode, (chain / 'mid').read_bytes()) == (0, made)


def test_create_over_what_is_in_no_chain(chain):
    """A chain that cannot be walked to its end, or says no format, is no reason not to."""
    (chain / 's.qcow2').unlink()
    for target in ('new', 'over.qcow2'):
        done = platter('create', '-f', 'qcow2', '-b', 'top', '-F', 'qcow2', target, cwd=chain)
        assert (done.returncode, done.stderr) == (0, '')


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
