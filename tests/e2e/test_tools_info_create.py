# SPDX-License-Identifier: MIT
"""platter create and info beside qemu-img; and what wrong command lines get."""
import json
import os
import subprocess

import pytest

from tools_common import platter, qemu


def lines(text):
    return text.splitlines()


@pytest.mark.parametrize('size, bytes_', [
    ('512', 512), ('4k', 4096), ('1M', 1 << 20), ('1.5M', 3 << 19), ('10G', 10 << 30),
    ('2T', 2 << 40), ('0x10000', 65536), ('0', 0),
])
def test_create_says_and_makes_what_qemu_img_does(tmp_path, size, bytes_):
    ours, theirs = tmp_path / 'ours.raw', tmp_path / 'theirs.raw'
    a = platter('create', '-f', 'raw', ours, size)
    b = qemu('qemu-img', 'create', '-f', 'raw', theirs, size)
    assert a.returncode == b.returncode == 0
    assert a.stdout == b.stdout.replace('theirs', 'ours')
    assert os.path.getsize(ours) == os.path.getsize(theirs) == bytes_


@pytest.mark.parametrize('mode', ['off', 'falloc', 'full'])
def test_create_preallocation(tmp_path, mode):
    disk = tmp_path / 'd.raw'
    done = platter('create', '-o', f'preallocation={mode}', disk, '1M')
    assert done.stdout == f"Formatting '{disk}', fmt=raw size=1048576 preallocation={mode}\n"
    allocated = os.stat(disk).st_blocks * 512
    assert allocated >= 1 << 20 if mode != 'off' else allocated < 1 << 20


def test_create_quiet_and_size_in_options(tmp_path):
    disk = tmp_path / 'd.raw'
    done = platter('create', '-q', '-o', 'size=3M', disk)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert os.path.getsize(disk) == 3 << 20


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['d'], "'d' needs a size"),
    (['d', '10Q'], "'10Q' is not a size"),
    (['d', ''], "'' is not a size"),
    (['d', '1.5'], "'1.5' is not a size"),
    (['d', '--', '-1'], "'-1' is not a size"),
    (['d', '8E'], "'8E' is too large"),
    (['d', '99999999999999999999'], 'is too large'),
    (['d', '1M', '2M'], "'2M' is too much"),
    (['-o', 'size=1M', 'd', '1M'], 'given twice'),
    (['-o', 'preallocation=bad', 'd', '1M'], "'preallocation' does not accept value 'bad'"),
    (['-o', 'preallocation', 'd', '1M'], "Expected '=' after parameter 'preallocation'"),
    (['-o', 'nope=1', 'd', '1M'], "'nope'"),
    (['-f', 'nope', 'd', '1M'], "no format 'nope'"),
    (['/no/such/dir/d', '1M'], 'No such file or directory'),
    (['null-co://', '1M'], "Protocol driver 'null-co' does not support image creation"),
    (['--sise', 'd', '1M'], "no option '--sise'"),
    (['-z', 'd', '1M'], "no option '-z'"),
    (['-o'], "'-o' needs a value"),
])
def test_create_refuses(tmp_path, arguments, message):
    done = platter('create', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith('platter: create: ')
    assert message in done.stderr
    assert not os.path.exists(tmp_path / 'd')


def disk_with_data(tmp_path):
    disk = tmp_path / 'd.raw'
    with open(disk, 'wb') as f:
        f.write(b'x' * 8192)
        f.truncate(5 << 20)
    return disk


@pytest.mark.parametrize('arguments', [['-f', 'raw'], [], ['-U']])
def test_info_human_has_the_lines_of_qemu_img(tmp_path, arguments):
    disk = disk_with_data(tmp_path)
    ours = platter('info', *arguments, disk)
    theirs = qemu('qemu-img', 'info', *arguments, disk)
    assert ours.returncode == 0
    assert lines(ours.stdout)[:4] == lines(theirs.stdout)
    assert ('format probed: yes' in ours.stdout) == ('-f' not in arguments)
    assert 'engine: ' in ours.stdout


def test_info_json_has_the_keys_of_qemu_img(tmp_path):
    disk = disk_with_data(tmp_path)
    ours = json.loads(platter('info', '--output=json', '-f', 'raw', disk).stdout)
    theirs = json.loads(qemu('qemu-img', 'info', '--output=json', '-f', 'raw', disk).stdout)
    assert theirs.items() <= ours.items()
    assert ours['format-probed'] is False
    assert ours['engine'] in ('io_uring', 'threads')


def test_info_json_keeps_the_order_of_qemu_img(tmp_path):
    disk = disk_with_data(tmp_path)
    ours = json.loads(platter('info', '--output=json', '-f', 'raw', disk).stdout)
    theirs = json.loads(qemu('qemu-img', 'info', '--output=json', '-f', 'raw', disk).stdout)
    assert [key for key in ours if key in theirs] == list(theirs)


@pytest.mark.parametrize('name', [
    ['null-co://'],
    ['--image-opts', 'driver=null-co,size=5G'],
    ['json:{"driver":"null-co","size":1048576}'],
    ["json:{'driver':'null-co','size':'1M'}"],
])
def test_info_of_null_disks(name):
    ours = json.loads(platter('info', '--output=json', *name).stdout)
    theirs = json.loads(qemu('qemu-img', 'info', '--output=json', *name).stdout)
    for key in ('virtual-size', 'format', 'actual-size'):
        assert ours[key] == theirs[key]
    assert 'engine' not in ours


def test_info_by_options_and_json(tmp_path):
    disk = disk_with_data(tmp_path)
    plain = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{disk}"}}}}'
    assert f'image: {disk}\n' in platter('info', plain).stdout
    window = platter('info', '--image-opts', f'driver=raw,offset=4k,size=1M,file.filename={disk}')
    assert '(1048576 bytes)' in window.stdout
    assert '"offset": "4k"' in window.stdout


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['nofile'], "'nofile': No such file or directory"),
    (['a', 'b'], "'b' is too much"),
    (['--output=xml', 'a'], "no output form 'xml'"),
    (['-f', 'nope', '/dev/null'], "'nope'"),
    (['json:{bad'], 'invalid JSON at byte 1'),
    (['json:{"driver":"null-co","size":1}{}'], 'text behind the value'),
    (['--image-opts', 'driver=null-co,size=10Q'], "'10Q' is none"),
    (['--image-opts', 'driver=null-co,nope=1'], "'nope'"),
    (['--image-opts', 'driver=null-co,size=1,size.x=2'], "'size' and 'size.x'"),
    (['--image-opts', '-f', 'raw', 'x'], 'exclude each other'),
])
def test_info_refuses(tmp_path, arguments, message):
    done = platter('info', *arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ''
    assert done.stderr.startswith('platter: info: ')
    assert message in done.stderr


def test_info_writes_nothing(tmp_path):
    disk = disk_with_data(tmp_path)
    os.chmod(disk, 0o400)
    before = os.stat(disk)
    assert platter('info', disk).returncode == 0
    after = os.stat(disk)
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_help_and_version():
    for arguments in (['--help'], ['help'], ['-h']):
        done = platter(*arguments)
        assert done.returncode == 0
        for command in ('create', 'info', 'serve', 'bench', 'io'):
            assert command in done.stdout
            assert platter('help', command).stdout == platter(command, '--help').stdout
    assert platter('--version').stdout.startswith('platter ')


@pytest.mark.parametrize('arguments, message', [
    ([], 'which command?'),
    (['cerate'], "did you mean 'create'?"),
    (['benhc'], "did you mean 'bench'?"),
    (['xyzzy'], "no command 'xyzzy'"),
    (['help', 'inof'], "did you mean 'info'?"),
    (['-f', 'raw'], 'a command comes first'),
    (['bench', '--cuont', '1'], "did you mean '--count'?"),
])
def test_wrong_commands(arguments, message):
    done = platter(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert '--help' in done.stderr


def test_full_output_is_an_error(tmp_path):
    disk = disk_with_data(tmp_path)
    with open('/dev/full', 'w', encoding='utf-8') as full:
        done = subprocess.run([os.environ['PLATTER_BIN'], 'info', disk], stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert 'could not write the output' in done.stderr


@pytest.mark.parametrize('line, code', [
    ('info -f raw disk.img', 1),
    ('create new.img 1M', 1),
    ('convert -p -f raw -O qcow2 disk.img disk.qcow2', 1),
    ('compare -f raw -F raw disk.img disk.img', 2),  # 1: they differ
    ('compare -p -f raw -F raw disk.img disk.img', 2),
    ('checksum -f raw disk.img', 2),
    ('checksum -f raw --progress=json disk.img', 2),
    ('check --progress=json disk2.qcow2', 1),
])
def test_an_answer_that_is_lost_is_no_answer(line, code, tmp_path):
    (tmp_path / 'disk.img').write_bytes(bytes(1 << 16))
    platter('create', '-f', 'qcow2', 'disk2.qcow2', '1M', cwd=tmp_path)
    command = [os.environ['PLATTER_BIN'], *line.split()]
    with open('/dev/full', 'w', encoding='utf-8') as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert done.returncode == code
    assert f'platter: {command[1]}: could not write the output: No space left on device\n' in done.stderr
