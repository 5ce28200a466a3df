# SPDX-License-Identifier: MIT
"""The link named qemu-img beside the installed qemu-img: a table of command lines (img_table.py), each run once
by either in its own folder of equal images; what they print, the exit code and what the images hold
must be the same."""
import filecmp
import functools
import hashlib
import os
import re
import shutil
import struct

import pytest

import img_differs
from img_lines import patch
from img_table import DIFFERS, LINES
from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAM = 'qemu-img'


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    if not shutil.which(PROGRAM) or not shutil.which('qemu-io'):
        pytest.skip(f'{PROGRAM} is not installed')
    with open(folder / 'plain.raw', 'wb') as f:
        f.write(bytes(range(256)) * 256)
        f.truncate(1 << 20)
    for line in (['qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '1M'],
                 ['qemu-io', '-c', 'write -q -P 7 64k 128k', 'base.qcow2'],
                 ['qemu-img', 'snapshot', '-c', 'first', 'base.qcow2'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2',
                  'overlay.qcow2'],
                 ['qemu-io', '-c', 'write -q -P 9 256k 64k', 'overlay.qcow2'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'data_file=beside.bin', 'beside.qcow2', '1M'],
                 ['qemu-img', 'create', '-q', '-f', 'qcow2', 'marked.qcow2', '1M'],
                 ['qemu-img', 'bitmap', '--add', 'marked.qcow2', 'b']):
        assert run(line, cwd=folder).returncode == 0
    return folder


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


def masked(text):
    """Sizes on disk and dates are the machine's, not the program's."""
    text = re.sub(r'(disk size: ).*', r'\1SIZE', text)
    text = re.sub(r'("actual-size": )\d+', r'\1SIZE', text)
    text = re.sub(r'("date-n?sec": )\d+', r'\1DATE', text)
    return re.sub(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE', text)


def content(path):
    """What a disk holds, read by the reference."""
    fmt = 'qcow2' if path.suffix == '.qcow2' else 'raw'
    out = path.parent / 'content'
    done = run([PROGRAM, 'convert', '-f', fmt, '-O', 'raw', path.name, out.name], cwd=path.parent)
    held = done.stderr if done.returncode else hashlib.sha256(out.read_bytes()).hexdigest()
    out.unlink(missing_ok=True)
    return held


first_content = functools.cache(content)


def contents(folder, images):
    """What each disk holds. One whose file is as it was in images is not read again: what it has below
    is a disk of its own here."""
    held = {}
    for path in sorted(folder.iterdir()):
        first = images / path.name
        same = first.exists() and filecmp.cmp(first, path, shallow=False)
        held[path.name] = first_content(first) if same else content(path)
    return held


WRITES = ('create', 'resize', 'snapshot -', 'amend', 'bitmap', 'rebase', 'commit', 'convert', 'dd')


def outcome(program, line, images, folder):
    arguments = [word.strip('"') for word in line.split()]
    shutil.copytree(images, folder)
    done = run([program, *arguments], cwd=folder)
    held = contents(folder, images) if line.startswith(WRITES) and '-l' not in arguments[:2] else None
    return masked(done.stdout), masked(done.stderr), done.returncode, held


def outcomes(line, images, link, tmp_path):
    # The name of the folder is in some answers: both run where the other did.
    ours = outcome(link, line, images, tmp_path / 'work')
    shutil.rmtree(tmp_path / 'work')
    return ours, outcome(PROGRAM, line, images, tmp_path / 'work')


@pytest.mark.parametrize('line', LINES)
def test_same(line, images, link, tmp_path):
    ours, theirs = outcomes(line, images, link, tmp_path)
    assert ours == theirs


@pytest.mark.parametrize('line', DIFFERS | img_differs.DIFFERS)
def test_difference_is_there(line, images, link, tmp_path):
    """One that is gone leaves the list."""
    ours, theirs = outcomes(line, images, link, tmp_path)
    assert ours != theirs
    assert ours[2] == 0 or ours[2] == 1 and ours[1]


@pytest.mark.parametrize('name', ['/proc/version', '/proc/self/maps'])
def test_what_has_no_end_is_not_empty(name, link, tmp_path):
    """These files are 0 bytes long, they say."""
    done = run([link, 'convert', '-O', 'raw', name, 'new'], cwd=tmp_path)
    assert done.returncode == 1 and f"Could not find the end of '{name}'" in done.stderr
    assert not (tmp_path / 'new').exists()


def test_the_image_outlives_a_data_file_that_cannot_be_made(images, link, tmp_path):
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    before = contents(folder, images)
    done = run([link, 'create', '-f', 'qcow2', '-o', 'data_file=nowhere/x', 'base.qcow2', '1M'], cwd=folder)
    assert done.returncode == 1 and "Could not create 'nowhere/x'" in done.stderr
    assert contents(folder, images) == before


@pytest.mark.parametrize('name,kept', [('new.qcow2', 'data.bin'), ('base.qcow2', 'new.bin')])
def test_what_is_not_finished_is_taken_away(name, kept, images, link, tmp_path):
    """Only files that were not there."""
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    (folder / 'data.bin').write_bytes(b'there')
    before = {p.name for p in folder.iterdir()}
    done = run([link, 'create', '-f', 'qcow2', '-o', f'preallocation=falloc,data_file={kept}', name,
                '1P'], cwd=folder)
    assert done.returncode == 1 and 'image size is too large' in done.stderr
    assert {p.name for p in folder.iterdir()} == before


@pytest.mark.parametrize('options', ['preallocation=falloc,cluster_size=2M', 'preallocation=falloc,data_file=beside',
                                     'raw'])
def test_a_link_to_nothing_stays(options, link, tmp_path):
    """And what was made behind it, which is not looked for by its links."""
    (tmp_path / 'folder').mkdir()
    for name in ('name', 'beside'):
        (tmp_path / name).symlink_to(f'folder/{name}')
    (tmp_path / 'folder' / 'name').symlink_to(tmp_path / 'file')
    made = ['-f', 'raw'] if options == 'raw' else ['-f', 'qcow2', '-o', options]
    assert run([link, 'create', *made, 'name', '7E' if options[-1] != 'e' else '1P'], cwd=tmp_path).returncode == 1
    assert (tmp_path / 'name').is_symlink() and (tmp_path / 'beside').is_symlink()
    assert run([link, 'create', '-q', '-f', 'qcow2', 'name', '1M'], cwd=tmp_path).returncode == 0
    assert (tmp_path / 'name').is_symlink() and (tmp_path / 'file').is_file()


def test_nothing_is_written_where_nothing_can_be_compressed(images, link, tmp_path):
    """Into an image whose data lies in another file."""
    folder = tmp_path / 'work'
    shutil.copytree(images, folder)
    assert run(['qemu-io', '-c', 'write -q -P 5 0 1M', 'beside.qcow2'], cwd=folder).returncode == 0
    before = contents(folder, images)
    line = ['convert', '-c', '-n', '-O', 'qcow2', 'base.qcow2', 'beside.qcow2']
    ours = run([link, *line], cwd=folder)
    assert contents(folder, images) == before
    theirs = run([PROGRAM, *line], cwd=folder)
    assert ours.returncode == theirs.returncode == 1
    assert ours.stderr == theirs.stderr == 'qemu-img: error while writing at byte 65536: Operation not supported\n'


HINTED = [
    'check many.qcow2', 'check -q many.qcow2', 'check -r leaks many.qcow2', 'check --output=json extra.qcow2',
    'info many.qcow2', 'info extra.qcow2', 'check extra.qcow2', 'check -r all extra.qcow2', 'snapshot -l extra.qcow2',
    'bitmap --enable stale.qcow2 b', 'bitmap --add --merge b stale.qcow2 c', 'resize stale.qcow2 2M',
    'amend -o backing_file=x over.qcow2', 'amend -o backing_fmt=raw over.qcow2', 'resize over.qcow2 4q',
    'create -f qcow2 -o cluster_size=512 new.qcow2 1P', 'create -f qcow2 -o cluster_size=4q new.qcow2 1M',
    'measure -O qcow2 -o cluster_size=512 --size 1P', 'measure -O qcow2 -o cluster_size=4q --size 1M',
    'check --image-opts driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=over.qcow2,'
    'file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.sector=256',
]
# Of clusters whose refcount cannot be read the first is told, the number of all is counted.
AGAIN = re.compile("Can't get refcount for cluster [1-9].*\n")


@pytest.fixture(scope='module')
def faulty(images, tmp_path_factory):
    """Images with faults that the reference has a word of advice for."""
    folder = tmp_path_factory.mktemp('faulty')
    for name in ('many', 'extra', 'stale', 'over'):
        shutil.copy(images / 'base.qcow2', folder / f'{name}.qcow2')
    run([PROGRAM, 'bitmap', '--add', 'stale.qcow2', 'b'], cwd=folder)
    run([PROGRAM, 'rebase', '-u', '-b', 'extra.qcow2', '-F', 'qcow2', 'over.qcow2'], cwd=folder)
    data = (folder / 'extra.qcow2').read_bytes()
    patch(folder, 'many.qcow2', 60, struct.pack('>I', 70000))
    patch(folder, 'extra.qcow2', struct.unpack_from('>Q', data, 64)[0] + 36, struct.pack('>I', 1032))
    data = (folder / 'stale.qcow2').read_bytes()
    directory = struct.unpack_from('>Q', data, data.index(b'\x23\x85\x28\x75') + 24)[0]
    patch(folder, 'stale.qcow2', directory + 15, b'\x03')
    return folder


@pytest.mark.parametrize('line', HINTED)
def test_hints_below_an_error(line, faulty, link, tmp_path):
    ours, theirs = (outcome(program, line, faulty, tmp_path / str(program)[-12:].replace('/', '_'))[:3]
                    for program in (link, PROGRAM))
    assert theirs[2] == 0 or theirs[1]
    assert ours[::2] == theirs[::2] and ours[1] == AGAIN.sub('', theirs[1])


@pytest.mark.parametrize('option', ['encryption=on', 'encrypt.format=luks', 'encrypt.key-secret=s'])
def test_encryption_is_refused_by_its_name(option, images, link, tmp_path):
    """An image that anybody can read is no answer to a wish for a secret."""
    shutil.copytree(images, tmp_path / 'work')
    key = option.split('=', maxsplit=1)[0]
    for line in (['create', '-f', 'qcow2', '-o', option, 'new.qcow2', '1M'],
                 ['convert', '-O', 'qcow2', '-o', option, 'base.qcow2', 'new.qcow2'],
                 ['measure', '-O', 'qcow2', '-o', option, '--size', '1M']):
        done = run([link, *line], cwd=tmp_path / 'work')
        assert done.returncode == 1
        assert f"Encryption is not in this build: '{key}' cannot be honoured" in done.stderr
        assert not (tmp_path / 'work/new.qcow2').exists()
    assert run([link, 'create', '-q', '-f', 'qcow2', '-o', 'encryption=off', 'new.qcow2', '1M'],
               cwd=tmp_path / 'work').returncode == 0


@pytest.mark.parametrize('options', ['refcount_bits=8,data_file=x', 'lazy_refcounts=on,extended_l2=on',
                                     'lazy_refcounts=on,refcount_bits=8', 'compression_type=zstd',
                                     'compression_type=zstd,data_file=x'])
def test_what_an_old_level_has_not(options, link, tmp_path):
    """In the reference's words, but for the name of the option that raises the level."""
    line = ['create', '-q', '-f', 'qcow2', '-o', f'compat=0.10,{options}', 'new.qcow2', '1M']
    ours, theirs = (run([p, *line], cwd=tmp_path) for p in (link, PROGRAM))
    assert ours.stderr == theirs.stderr.replace('version=v3', 'compat=v3') != ''
    assert ours.returncode == theirs.returncode == 1


def test_map_of_layers_of_different_lengths(link, tmp_path):
    for line in (['create', '-q', '-f', 'raw', 'b0', '1M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b0', '-F', 'raw', 'b1', '2M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b1', '-F', 'qcow2', 'b2', '3M'],
                 ['create', '-q', '-f', 'qcow2', '-b', 'b2', '-F', 'qcow2', 'b3', '4M']):
        assert run([PROGRAM, *line], cwd=tmp_path).returncode == 0
    done = run(['qemu-io', '-c', 'write 128k 64k', '-c', 'write 1152k 64k', 'b2'], cwd=tmp_path)
    assert done.returncode == 0
    for name in ('b1', 'b2', 'b3'):
        line = ['map', '-f', 'qcow2', '--output=json', name]
        assert run([link, *line], cwd=tmp_path).stdout == run([PROGRAM, *line], cwd=tmp_path).stdout


@pytest.mark.parametrize('form', ['human', 'json'])
def test_map_where_storage_knows_more(form, link, tmp_path):
    """Holes of a data file are not told, and a null disk without zeroes decides nothing."""
    null = 'json:{"driver":"null-co","size":262144}'
    zeroes = 'json:{"driver":"null-aio","size":65536,"read-zeroes":true}'
    for line in (['-o', 'data_file=raw.bin,data_file_raw=on', 'raw', '1M'],
                 ['-o', 'data_file=meta.bin,preallocation=metadata', 'meta', '1M'],
                 ['-o', 'preallocation=metadata', 'plain', '1M'],
                 ['-u', '-b', null, '-F', 'null-co', 'over', '1M'],
                 ['-b', 'raw', '-F', 'qcow2', 'above']):
        assert run([PROGRAM, 'create', '-q', '-f', 'qcow2', *line], cwd=tmp_path).returncode == 0
    for name in ('raw', 'over'):
        assert run(['qemu-io', '-c', 'write 64k 64k', '-c', 'write -z 512k 64k', name],
                   cwd=tmp_path).returncode == 0
    for name in ('raw', 'meta', 'plain', 'over', 'above', null, zeroes,
                 f'json:{{"driver":"raw","file":{null[5:]}}}'):
        line = ['map', f'--output={form}', name]
        ours, theirs = run([link, *line], cwd=tmp_path), run([PROGRAM, *line], cwd=tmp_path)
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)


def test_version_names_program(link):
    done = run([link, '--version'])
    assert done.returncode == 0 and re.match(r'qemu-img version \d+\.\d+', done.stdout)


def test_images_may_name_files_elsewhere(images, link, tmp_path):
    """As with the tool whose name it carries, and unlike platter itself."""
    elsewhere = tmp_path / 'elsewhere.qcow2'
    run([PROGRAM, 'create', '-q', '-f', 'qcow2', '-b', images / 'base.qcow2', '-F', 'qcow2',
         elsewhere])
    assert run([link, 'compare', elsewhere, images / 'base.qcow2']).returncode == 0
    refused = run([os.environ['PLATTER_BIN'], 'compare', '-f', 'qcow2', '-F', 'qcow2', elsewhere,
                   images / 'base.qcow2'])
    assert refused.returncode != 0


@pytest.mark.parametrize('driver', [[], ['-f', 'raw'], ['-f', 'host_device']], ids=' '.join)
def test_pipe_is_refused(driver, link, tmp_path):
    """Without waiting for somebody at its other end, as the reference does."""
    os.mkfifo(tmp_path / 'pipe')
    done = run([link, 'info', *driver, tmp_path / 'pipe'])
    assert done.returncode == 1 and 'requires' in done.stderr


def object_lines(done):
    """The lines of an answer, without the kinds of objects that one of both alone has."""
    lines = done.stdout.splitlines()
    if lines and lines[0].startswith('List'):
        lines = [line for line in lines if line in (lines[0], '  secret', '  throttle-group')]
    return lines, done.stderr, done.returncode


@pytest.mark.parametrize('line', ['qemu-img info', 'qemu-img create -f raw', 'qemu-io', 'qemu-nbd -t',
                                  'qemu-storage-daemon'])
def test_help_of_objects(line, tmp_path):
    program, *before = line.split()
    ours = called(tmp_path, program)
    for text in ('help', '?', 'secret,help', 'throttle-group,?', 'nosuch,help', 'help,id=a',
                 'id=a,help', 'qom-type=secret,help', 'secret,a=,,,help'):
        mine, other = (object_lines(run([p, *before, '--object', text])) for p in (ours, program))
        assert mine == other, text
        assert mine[0] and mine[1:] == ('', 0)


@pytest.mark.parametrize('text', ['help=1', 'secret,x,help', 'secret,id=a,data=,,help', '{"qom-type":"help"}',
                                  'secret,id'])
def test_no_help_of_objects(text, images, link):
    """A word "help" that belongs to something else."""
    ours, theirs = (run([p, 'info', '--object', text, images / 'plain.raw']) for p in (link, PROGRAM))
    assert ours.stderr == theirs.stderr
    assert ours.returncode == theirs.returncode
