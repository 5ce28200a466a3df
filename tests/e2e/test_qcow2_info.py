# SPDX-License-Identifier: MIT
"""Facts of qcow2 images beside qemu-img info, and what inspect tells without opening a second file."""
import json
import struct

import pytest

from tools_common import needs, platter, qemu, same_json

pytestmark = needs('qcow2')

OURS = ('format probed: ', 'engine: ')
SECRET = ['--object', 'secret,id=s,data=abc']
LUKS = 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10'


def qemu_img(*arguments, cwd=None):
    done = qemu('qemu-img', *arguments, cwd=cwd)
    for _ in range(20):  # it measures the processor for a key, and fails where the clock stood still
        if 'Unable to get accurate CPU usage' not in done.stderr:
            break
        done = qemu('qemu-img', *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def human(text):
    return [line for line in text.splitlines() if not line.startswith(OURS)]


def check_same(folder, name='i.qcow2'):
    a, b = platter('info', name, cwd=folder), qemu_img('info', name, cwd=folder)
    assert a.returncode == 0, a.stderr
    assert human(a.stdout) == b.stdout.splitlines()
    assert same_json(platter('info', '--output=json', name, cwd=folder),
                     qemu_img('info', '--output=json', name, cwd=folder))


def create(folder, *arguments):
    qemu_img('create', '-q', '-f', 'qcow2', *arguments, cwd=folder)


@pytest.mark.parametrize('options', [
    'compat=v3', 'compat=v2', 'cluster_size=512', 'cluster_size=2M,refcount_bits=64',
    'lazy_refcounts=on', 'extended_l2=on', 'compression_type=zstd', 'data_file=data.raw',
    'data_file=data.raw,data_file_raw=on'])
def test_kinds(tmp_path, options):
    create(tmp_path, '-o', options, 'i.qcow2', '10M')
    check_same(tmp_path)


@pytest.mark.parametrize('name', ['base.raw', 'sub/../base.raw'])
def test_backing_file(tmp_path, name):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'base.raw').write_bytes(bytes(65536))
    create(tmp_path, '-b', name, '-F', 'raw', 'i.qcow2')
    check_same(tmp_path)
    check_same(tmp_path.parent, f'{tmp_path.name}/i.qcow2')
    check_same(tmp_path, tmp_path / 'i.qcow2')


def test_missing_backing_file(tmp_path):
    create(tmp_path, '-u', '-b', 'nothing.raw', '-F', 'raw', 'i.qcow2', '1M')
    check_same(tmp_path)


def test_snapshots_and_bitmaps(tmp_path):
    create(tmp_path, 'i.qcow2', '10M')
    qemu_img('snapshot', '-c', 'first', 'i.qcow2', cwd=tmp_path)
    qemu_img('snapshot', '-c', 'second', 'i.qcow2', cwd=tmp_path)
    qemu_img('bitmap', '--add', '-g', '1M', 'i.qcow2', 'b0', cwd=tmp_path)
    qemu_img('bitmap', '--add', '--disable', 'i.qcow2', 'b1', cwd=tmp_path)
    check_same(tmp_path)


@pytest.mark.parametrize('options', [LUKS, 'encrypt.format=aes,encrypt.key-secret=s'])
def test_encrypted(tmp_path, options):
    create(tmp_path, *SECRET, '-o', options, 'i.qcow2', '1M')
    check_same(tmp_path)
    done = platter('io', '-f', 'qcow2', '-c', 'read 0 512', 'i.qcow2', cwd=tmp_path)
    assert done.returncode != 0
    assert 'encrypted' in done.stderr


def patch(path, offset, fmt, *values):
    with open(path, 'r+b') as f:
        f.seek(offset)
        f.write(struct.pack(fmt, *values))


def test_dirty_and_corrupt(tmp_path):
    create(tmp_path, 'i.qcow2', '1M')
    patch(tmp_path / 'i.qcow2', 72, '>Q', 3)
    check_same(tmp_path)


# ---- inspect ----

def inspect(folder, name='i.qcow2'):
    done = platter('inspect', '--output=json', name, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)['metadata']


def test_inspect_tells_references_and_opens_none(tmp_path):
    create(tmp_path, '-u', '-b', '/etc/passwd', '-F', 'raw', '-o', 'data_file=data.raw', 'i.qcow2',
           '1M')
    (tmp_path / 'data.raw').unlink()
    facts = inspect(tmp_path)
    assert facts['references'] == [
        {'kind': 'backing-file', 'name': '/etc/passwd', 'format': 'raw', 'leads-away': True},
        {'kind': 'data-file', 'name': 'data.raw', 'leads-away': False}]
    assert facts['unsafe'] == ['backing-file', 'data-file']
    assert facts['features']['incompatible'] == ['data-file']


def test_inspect_encrypted(tmp_path):
    create(tmp_path, *SECRET, '-o', LUKS, 'i.qcow2', '1M')
    facts = inspect(tmp_path)
    theirs = json.loads(qemu_img('info', '--output=json', 'i.qcow2', cwd=tmp_path).stdout)
    assert facts['encrypt'] == theirs['format-specific']['data']['encrypt']
    assert 'encryption' in facts['unsafe']


def test_inspect_what_is_refused(tmp_path):
    create(tmp_path, 'i.qcow2', '1M')
    image = tmp_path / 'i.qcow2'
    patch(image, 72, '>Q', 1 << 17 | 1 << 20)
    patch(image, 112 + 8, '>BB46s', 0, 17, b'shiny\x1b[31m')
    facts = inspect(tmp_path)
    assert facts['features']['unknown-incompatible'] == ['shiny\x1b[31m', 'bit 20']
    assert 'shiny?[31m' in facts['refused']
    assert facts['unsafe'] == ['refused']
    done = platter('info', 'i.qcow2', cwd=tmp_path)
    assert done.returncode == 1
    assert 'shiny?[31m, unknown incompatible feature bit 20' in done.stderr
    assert '\x1b' not in done.stderr


def test_inspect_lists_snapshots_and_bitmaps(tmp_path):
    create(tmp_path, 'i.qcow2', '10M')
    qemu_img('snapshot', '-c', 'first', 'i.qcow2', cwd=tmp_path)
    qemu_img('bitmap', '--add', 'i.qcow2', 'b0', cwd=tmp_path)
    facts = inspect(tmp_path)
    assert [s['name'] for s in facts['snapshots']['list']] == ['first']
    assert [b['name'] for b in facts['bitmaps']['list']] == ['b0']
    patch(tmp_path / 'i.qcow2', 60, '>I', 65536)
    assert inspect(tmp_path)['snapshots']['count'] == 65536
