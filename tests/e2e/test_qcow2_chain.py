# SPDX-License-Identifier: MIT
"""Chains of real images: a thousand overlays, loops, and which files an image may name."""
import json
import os
import resource

import pytest

from qemu_image import content, make, write
from tools_common import needs, platter, qemu, run

pytestmark = needs('qcow2')


def reads(cwd, name, command, *options):
    return platter('io', *options, '-f', 'qcow2', '-c', command, name, cwd=cwd)


def opens(cwd, name, *options):
    done = reads(cwd, name, 'read 0 512', *options)
    assert done.returncode == 0, done.stderr


def refused(cwd, name, *options):
    done = reads(cwd, name, 'read 0 512', *options)
    assert done.returncode == 1
    return done.stderr


def name_backing(cwd, image, name, fmt='qcow2'):
    """Write a name into a header, whatever it is."""
    done = qemu('qemu-img', 'rebase', '-u', '-b', name, '-F', fmt, image, cwd=cwd)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip('too few descriptors')
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures('many_files')
def test_a_thousand_overlays(tmp_path):
    """The first is made by platter; the others differ from it in the name of the next."""
    make(tmp_path, 'n0000', 1 << 20)
    write(tmp_path, 'n0000', 'write -P 5 0 64k', 'write -P 6 960k 64k')
    (tmp_path / 'n0777').write_bytes((tmp_path / 'n0000').read_bytes())  # create looks whether it is there
    for number, below in ((1, 0), (778, 777)):
        done = platter('create', '-q', '-f', 'qcow2', '-o',
                       f'backing_file=n{below:04},backing_fmt=qcow2', f'n{number:04}', '1M',
                       cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    first = (tmp_path / 'n0001').read_bytes()
    by_hand = (tmp_path / 'n0778').read_bytes()
    for i in range(2, 1001):
        (tmp_path / f'n{i:04}').write_bytes(first.replace(b'n0000', b'n%04d' % (i - 1)))
    assert (tmp_path / 'n0778').read_bytes() == by_hand
    write(tmp_path, 'n0500', 'write -P 7 128k 64k')
    assert 'more than 64 files deep' in refused(tmp_path, 'n1000')
    opens(tmp_path, 'n0064')
    done = platter('io', '--backing-depth', '1000', '-f', 'qcow2', '-c', 'read -P 5 0 64k',
                   '-c', 'read -P 7 128k 64k', '-c', 'read -P 6 1000k 24k', '-c', 'write -P 8 1k 1k',
                   '-c', 'read -P 5 0 1k', '-c', 'read -P 5 2k 62k', 'n1000', cwd=tmp_path)
    assert done.returncode == 0 and 'failed' not in done.stdout, done.stdout + done.stderr
    done = platter('map', '--backing-depth', '1000', '--output=json', 'n1000', cwd=tmp_path)
    depths = {row['start']: row['depth'] for row in json.loads(done.stdout) if row['present']}
    assert depths == {0: 0, 0x20000: 500, 0xf0000: 1000}


def test_loops(tmp_path):
    for name in ('a', 'b', 'c'):
        make(tmp_path, name, 1 << 20)
    name_backing(tmp_path, 'a', 'a')
    assert 'would be a loop' in refused(tmp_path, 'a')
    name_backing(tmp_path, 'a', 'b')
    name_backing(tmp_path, 'b', 'c')
    name_backing(tmp_path, 'c', './../' + tmp_path.name + '/a')
    for name in ('a', 'b', 'c'):
        assert 'would be a loop' in refused(tmp_path, name)
    os.symlink('a', tmp_path / 'link')
    name_backing(tmp_path, 'c', 'link')
    assert 'would be a loop' in refused(tmp_path, 'b')
    name_backing(tmp_path, 'c', "json:{'driver':'qcow2','file':{'driver':'file','filename':'a'}}")
    assert 'would be a loop' in refused(tmp_path, 'b', '--image-refs', 'follow')


@pytest.fixture(name='folders')
def folders_fixture(tmp_path):
    """An image in "mine" over one in "other"; one beside it; a file nobody should see."""
    for name in ('mine', 'other'):
        (tmp_path / name).mkdir()
    make(tmp_path / 'other', 'base', 1 << 20)
    make(tmp_path / 'mine', 'near', 1 << 20)
    make(tmp_path / 'mine', 'top', 1 << 20, backing='near')
    (tmp_path / 'secret').write_bytes(bytes(1 << 20))
    return tmp_path


def test_own_folder_is_listed(folders):
    opens(folders, 'mine/top')
    opens(folders / 'mine', 'top')
    opens(folders, folders / 'mine' / 'top')
    done = platter('io', '--image-opts', '-c', 'read 0 512',
                   'driver=qcow2,file.filename=mine/top', cwd=folders)
    assert done.returncode == 0, done.stderr
    done = platter('io', '-c', 'read 0 512',
                   "json:{'driver':'qcow2','file':{'driver':'file','filename':'mine/top'}}",
                   cwd=folders)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name, fmt', [
    ('../secret', 'raw'), ('/etc/hostname', 'raw'), ('../other/base', 'qcow2'),
    ('../mine/../secret', 'raw'), ('link', 'raw'), ('up/secret', 'raw'),
    ("json:{'driver':'raw','file':{'driver':'file','filename':'secret'}}", 'raw'),
])
def test_other_files_are_not(folders, name, fmt):
    os.symlink('../secret', folders / 'mine' / 'link')
    os.symlink('..', folders / 'mine' / 'up')
    name_backing(folders / 'mine', 'top', name, fmt)
    text = refused(folders, 'mine/top')
    assert 'not allowed to it' in text
    assert '--allow-ref' in text and '--image-refs follow' in text
    opens(folders, 'mine/top', '--image-refs', 'follow')
    assert '--image-refs listed' in refused(folders, 'mine/top', '--image-refs', 'none')
    done = platter('io', '--image-refs', 'none', '--allow-ref', '.', '-c', 'read 0 512', 'mine/top', cwd=folders)
    assert done.returncode == 2 and '--image-refs none allows nothing' in done.stderr


def test_allow_ref(folders):
    name_backing(folders / 'mine', 'top', '../other/base')
    opens(folders, 'mine/top', '--allow-ref', 'other')
    opens(folders, 'mine/top', '--allow-ref', 'other/base')
    opens(folders, 'mine/top', '--allow-ref', 'mine', '--allow-ref', 'other')
    refused(folders, 'mine/top', '--allow-ref', 'secret')
    assert 'No such file' in refused(folders, 'mine/top', '--allow-ref', 'nothing')
    assert reads(folders, 'mine/top', 'read 0 512', '--image-refs', 'some').returncode == 2
    assert reads(folders, 'mine/top', 'read 0 512', '--backing-depth', '0').returncode == 2


@pytest.mark.parametrize('line', ['info mine/top', 'map -f qcow2 mine/top',
                                  'compare -f qcow2 -F qcow2 mine/top mine/top',
                                  'nbd -L -k none --object secret,id=s,data=x --tls-creds s'])
def test_allow_ref_too_often(folders, line):
    name_backing(folders / 'mine', 'top', 'base')
    command, *rest = line.split()
    done = run([os.environ['PLATTER_BIN'], command, *['--allow-ref=other'] * 70, *rest], cwd=folders)
    assert done.returncode == 2 and 'more than 64 times --allow-ref' in done.stderr
    opens(folders, 'mine/near', '--image-refs', 'none')


def test_data_file(folders):
    done = qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=data', 'disk', '1M',
                cwd=folders / 'mine')
    assert done.returncode == 0, done.stderr
    write(folders / 'mine', 'disk', 'write -P 3 0 64k')
    done = reads(folders, 'mine/disk', 'read -P 3 0 64k')
    assert done.returncode == 0 and 'failed' not in done.stdout, done.stderr
    os.rename(folders / 'mine' / 'data', folders / 'elsewhere')
    os.symlink('../elsewhere', folders / 'mine' / 'data')
    text = refused(folders, 'mine/disk')
    assert 'names the data-file' in text and '--allow-ref' in text
    opens(folders, 'mine/disk', '--allow-ref', 'elsewhere')
    os.unlink(folders / 'mine' / 'data')
    os.symlink('disk', folders / 'mine' / 'data')
    assert 'would be a loop' in refused(folders, 'mine/disk', '--image-refs', 'follow')


def test_format_of_the_backing_file_is_guessed_and_told(tmp_path):
    """Old images do not say it: -f auto guesses that too."""
    make(tmp_path, 'base', 1 << 20)
    make(tmp_path, 'top', 1 << 20)
    write(tmp_path, 'base', 'write -P 3 0 64k')
    data = bytearray((tmp_path / 'top').read_bytes())
    name = b'base'
    data[8:16] = (1024).to_bytes(8, 'big')
    data[16:20] = len(name).to_bytes(4, 'big')
    data[1024:1024 + len(name)] = name
    (tmp_path / 'top').write_bytes(data)
    done = platter('io', '-f', 'qcow2', '-r', '-c', 'read -P 3 0 64k', 'top', cwd=tmp_path)
    assert done.returncode == 1 and 'does not say which format' in done.stderr
    done = platter('io', '-f', 'auto', '-r', '-c', 'read -P 3 0 64k', 'top', cwd=tmp_path)
    assert done.returncode == 0 and 'failed' not in done.stdout, done.stdout + done.stderr
    done = platter('io', '-f', 'auto', '-c', 'write -P 4 0 512', 'top', cwd=tmp_path)
    assert done.returncode == 0
    assert "the format of the backing file 'base' was guessed: qcow2" in done.stderr
    assert content(tmp_path, 'top')[:65536] == b'\4' * 512 + b'\3' * (65536 - 512)


def test_format_wins_over_the_driver_of_a_name(tmp_path):
    """Who reads that its backing file is raw trusts the chain to end there."""
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'base', '1M', cwd=tmp_path).returncode == 0
    name = 'json:{"driver":"%s","file":{"driver":"file","filename":"base"}}'
    for fmt, other, size in (('raw', 'qcow2', os.path.getsize(tmp_path / 'base')), ('qcow2', 'raw', 1 << 20)):
        assert qemu('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-b', name % other, '-F', fmt, 'top', '1M',
                    cwd=tmp_path).returncode == 0
        done = platter('info', '-f', 'qcow2', '--backing-chain', '--output=json', '--image-refs', 'follow', 'top', cwd=tmp_path)
        below = json.loads(done.stdout)[1]
        assert (below['format'], below['virtual-size']) == (fmt, size)
