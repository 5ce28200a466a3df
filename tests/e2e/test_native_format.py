# SPDX-License-Identifier: MIT
"""The native program guesses no format unless it is told to: bytes that a guest wrote can look like
any format, and an image names files of the host."""
import os
import shutil

import pytest

from tools_common import called, needs, qemu, run

pytestmark = needs('qcow2')


def native(*arguments, cwd):
    return run([os.environ['PLATTER_BIN'], *arguments], cwd=cwd)


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    (tmp_path / 'disk.raw').write_bytes(bytes(1 << 20))
    for line in (['create', '-q', '-f', 'qcow2', 'disk.qcow2', '1M'],
                 ['snapshot', '-c', 'one', 'disk.qcow2'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw', 'over.qcow2']):
        assert qemu('qemu-img', *line, cwd=tmp_path).returncode == 0
    return tmp_path


# In front of the disk's name, and behind it.
WANT = [
    ('amend -o lazy_refcounts=on', ''),
    ('bench -c 1', ''),
    ('bitmap --add', 'b'),
    ('check -r leaks', ''),
    ('checksum', ''),
    ('commit', ''),
    ('compare -F raw', 'disk.raw'),
    ('convert -O raw', 'new.raw'),
    ('io -c length', ''),
    ('io -r -c length', ''),
    ('map', ''),
    ('measure -O raw', ''),
    ('nbd -k s', ''),
    ('rebase -u -b disk.raw -F raw', ''),
    ('resize', '2M'),
    ('serve -k s', ''),
    ('snapshot -c two', ''),
    ('snapshot -a one', ''),
]


@pytest.mark.parametrize('before,behind', WANT, ids=[w[0] for w in WANT])
@pytest.mark.parametrize('image', ['disk.qcow2', 'disk.raw'])
def test_refused(before, behind, image, folder):
    was = (folder / image).read_bytes()
    done = native(*before.split(), image, *behind.split(), cwd=folder)
    looks = image.rsplit('.', maxsplit=1)[-1]
    name = before.split()[0]
    assert done.returncode == (2 if name in ('checksum', 'compare') else 1) and done.stdout == ''
    assert done.stderr == (f"platter: {name}: the format of '{image}' is not told, and it is not guessed\n"
                           f'It looks like {looks}: if that is right, say -f {looks}; -f auto has it guessed.\n')
    assert (folder / image).read_bytes() == was
    assert not (folder / 'new.raw').exists()


def test_dd(folder):
    done = native('dd', 'if=disk.qcow2', 'of=new.raw', cwd=folder)
    assert done.returncode == 1 and 'say -f qcow2' in done.stderr


def test_second_one_has_its_own_switch(folder):
    done = native('compare', '-f', 'raw', 'disk.raw', 'disk.qcow2', cwd=folder)
    assert done.returncode > 1 and 'say -F qcow2' in done.stderr
    assert native('compare', '-f', 'raw', '-F', 'auto', 'disk.raw', 'disk.qcow2', cwd=folder).returncode == 0
    assert native('compare', '-f', 'auto', '-F', 'auto', 'disk.raw', 'disk.qcow2', cwd=folder).returncode == 0


def test_options_tell_it(folder):
    done = native('map', '--image-opts', 'file.filename=disk.qcow2', cwd=folder)
    assert done.returncode == 1 and 'say driver=qcow2' in done.stderr
    for line in (['--image-opts', 'driver=qcow2,file.filename=disk.qcow2'],
                 ['json:{"driver":"qcow2","file":{"driver":"file","filename":"disk.qcow2"}}'],
                 ['-f', 'auto', '--image-opts', 'file.filename=disk.qcow2']):
        assert native('map', *line, cwd=folder).returncode == 0
    assert native('map', 'json:{"file":{"driver":"file","filename":"disk.qcow2"}}', cwd=folder).returncode == 1


def test_auto_guesses_and_tells_it(folder):
    done = native('io', '-f', 'auto', '-c', 'write 0 512', 'disk.raw', cwd=folder)
    assert done.returncode == 0 and "format of 'disk.raw' was guessed: raw" in done.stderr
    done = native('convert', '-f', 'auto', '-O', 'raw', 'disk.qcow2', 'new.raw', cwd=folder)
    assert (done.returncode, done.stderr) == (0, '')
    assert (folder / 'new.raw').stat().st_size == 1 << 20


@pytest.mark.parametrize('line', ['info', 'info --backing-chain', 'inspect', 'check', 'snapshot -l'])
def test_looking_only(line, folder):
    assert native(*line.split(), 'disk.qcow2', cwd=folder).returncode == 0


def test_open_of_io(folder):
    done = native('io', '-c', 'open disk.raw', '-c', 'open -o driver=raw disk.raw', '-c', 'length', cwd=folder)
    assert done.stdout == '1 MiB\n' and 'say -o driver=raw' in done.stderr


def test_backing_file_whose_format_no_image_tells(folder):
    """With the overlay's format told, that of the backing file still is not."""
    assert native('io', '-f', 'qcow2', '-c', 'length', 'over.qcow2', cwd=folder).returncode == 0
    image = (folder / 'over.qcow2').read_bytes()
    told = bytes.fromhex('e2792aca')  # the header extension; one that nobody knows is passed over
    assert image.count(told) == 1
    (folder / 'over.qcow2').write_bytes(image.replace(told, bytes.fromhex('12345678')))
    done = native('io', '-f', 'qcow2', '-c', 'length', 'over.qcow2', cwd=folder)
    assert done.returncode == 1 and "does not say which format its backing file 'disk.raw' has" in done.stderr
    assert native('io', '-f', 'auto', '-c', 'length', 'over.qcow2', cwd=folder).returncode == 0


def test_no_file_is_told_as_such(folder):
    done = native('convert', '-O', 'raw', 'nofile', 'new.raw', cwd=folder)
    assert done.returncode == 1 and 'No such file' in done.stderr and 'guessed' not in done.stderr


def test_other_names_guess(folder, tmp_path_factory):
    """... as scripts expect of them, and know no format 'auto'."""
    link = called(tmp_path_factory.mktemp('compat'), 'qemu-img')
    shutil.copy(folder / 'disk.qcow2', folder / 'copy.qcow2')
    assert run([link, 'convert', '-O', 'raw', 'copy.qcow2', 'new.raw'], cwd=folder).returncode == 0
    assert "'auto'" in run([link, 'info', '-f', 'auto', 'disk.raw'], cwd=folder).stderr


@pytest.mark.parametrize('line, code, message', [
    ('compare -f auto a c', 2, 'say -F raw; -F auto has it guessed.'),
    ('convert -f raw -n --target-image-opts a file.filename=c', 1, 'say driver=raw.\n'),
    ('info -f qcow2 a', 1, "info: Could not open 'a': Image is not in qcow2 format"),
    ('inspect -f qcow2 a', 1, "inspect: Could not open 'a': Image is not in qcow2 format"),
    ('checksum -l x -f qcow2 q', 2, "checksum: Could not open 'q': snapshot 'x' not found"),
    ('info -f raw none', 1, "info: Could not open 'none': No such file or directory"),
    ('compare a c q', 2, "two FILEs are wanted, 'q' is too much"),
    ('bitmap -f qcow2 --add -g 4G q b', 2, "'4G' is out of range: it must be 0 to 2147483648"),
])
def test_what_is_wrong_is_told_of_whom(line, code, message, tmp_path):
    for name in 'ac':
        (tmp_path / name).write_bytes(bytes(1 << 16))
    run([os.environ['PLATTER_BIN'], 'create', '-f', 'qcow2', 'q', '1M'], tmp_path)
    done = run([os.environ['PLATTER_BIN'], *line.split()], tmp_path)
    assert done.returncode == code
    assert message in done.stderr


def test_amend_lists_the_options_of_every_format():
    done = run([os.environ['PLATTER_BIN'], 'amend', '-o', 'help'])
    assert done.returncode == 0
    assert "Amend options for 'qcow2':" in done.stdout and 'lazy_refcounts' in done.stdout
