# SPDX-License-Identifier: MIT
"""What should never have been typed: each line with the exit code and a piece of the message that it
gets. 2: the line makes no sense; 1: what it asks for cannot be done. Nothing is created or changed."""
import json
import os
import shlex
import socket
import stat
import subprocess

import pytest

from tools_common import platter

LONG = 'n' * 5000
USAGE, FAILED, OK = 2, 1, 0

# command line (NAME is a 1 MiB raw disk), exit code, piece of the message
LINES = '''
|2|which command?
-x|2|a command comes first
--helpp|2|a command comes first
-h extra|2|no command 'extra'
create|2|which FILE?
craete x 1M|2|did you mean 'create'?
CREATE x 1M|2|no command 'CREATE'
'' x|2|no command ''
help nothing|2|no command 'nothing'
serve-disk|2|no command
info|2|which FILE?
info a b|2|'b' is too much
info --|2|which FILE?
info --output NAME|2|which FILE?
info --output=xml NAME|2|there are human and json
info --output= NAME|2|no output form ''
info --outptu=json NAME|2|did you mean '--output'?
info --output|2|needs a value
info -f|2|needs a value
info --force-share=yes NAME|2|takes no value
info -Z NAME|2|no option '-Z'
info -UZ NAME|2|no option '-Z'
info ---output=json NAME|2|no option
info --=x NAME|2|no option
info -f nonsense NAME|1|nonsense
info -f '' NAME|1|
info -f raw,size=1 NAME|1|raw,size=1
info --image-opts -f raw driver=raw|2|exclude each other
info --image-opts NAME|1|
info --image-opts ''|1|
info --image-opts driver=|1|
info --image-opts driver=nonsense|1|nonsense
info --image-opts driver=raw|1|file
info --image-opts driver=raw,driver=raw,file.filename=NAME|0|
info --image-opts driver=raw,file.filename=NAME,bogus=1|1|bogus
info --image-opts driver=raw,file.filename=NAME,file.bogus=1|1|bogus
info --image-opts driver=raw,file.filename=NAME,file=other|1|
info --image-opts driver=raw,file=nosuchnode|1|nosuchnode
info --image-opts =raw|1|
info --image-opts =|1|
info --image-opts ,|1|
info --image-opts ,,|1|
info --image-opts driver=raw,,file.filename=NAME|1|
info --image-opts driver=raw,file..filename=NAME|1|
info --image-opts driver=raw,.file=NAME|1|
info --image-opts driver=raw,file.=NAME|1|
info --image-opts driver=raw,offset=-1,file.filename=NAME|1|-1
info --image-opts driver=raw,offset=2M,file.filename=NAME|1|
info --image-opts driver=raw,size=2M,file.filename=NAME|1|
info --image-opts driver=raw,offset=1,size=9223372036854775807,file.filename=NAME|1|
info --image-opts driver=raw,size=18446744073709551616,file.filename=NAME|1|18446744073709551616
info --image-opts driver=raw,size=1.5.5M,file.filename=NAME|1|1.5.5M
info --image-opts driver=raw,read-only=maybe,file.filename=NAME|1|maybe
info --image-opts driver=raw,cache.direct=2,file.filename=NAME|1|2
info --image-opts driver=raw,discard=sometimes,file.filename=NAME|1|sometimes
info --image-opts driver=raw,detect-zeroes=unmap,file.filename=NAME|1|detect-zeroes
info --image-opts driver=raw,node-name=9bad,file.filename=NAME|1|9bad
info --image-opts 'driver=raw,node-name=a b,file.filename=NAME'|1|a b
info --image-opts driver=raw,node-name=x,file.node-name=x,file.filename=NAME|1|x
info --image-opts driver=file|1|filename
info --image-opts driver=file,filename=|1|
info --image-opts driver=file,filename=NAME,aio=fast|1|fast
info --image-opts driver=file,filename=NAME,locking=perhaps|1|perhaps
info --image-opts driver=null-co,size=-5|1|-5
info --image-opts driver=null-co,size=10Q|1|10Q
info --image-opts driver=null-co,size=9E|1|
info --image-opts driver=null-co,latency-ns=-1|1|-1
info --image-opts driver=null-co,latency-ns=99999999999999999999|1|99999999999999999999
info --image-opts driver=null-co,read-zeroes=7|1|7
info --image-opts driver=mem|1|
info --image-opts driver=mem,size=nan|1|nan
info --image-opts driver=mem,size=inf|1|inf
info --image-opts driver=mem,size=0x|1|0x
info --image-opts driver=mem,size=1e9|1|1e9
info --image-opts '{'|1|
info --image-opts '{}'|1|
info --image-opts '{"driver":"raw"'|1|
info --image-opts '{"driver":7}'|1|
info --image-opts '{"driver":null}'|1|
info --image-opts '{"driver":["raw"]}'|1|
info --image-opts '{"driver":"null-co","driver":"raw"}'|1|
info --image-opts '{"driver":"null-co","size":1.5}'|1|
info --image-opts '{"driver":"null-co","size":-1}'|1|
info --image-opts '{"driver":"null-co","size":1e400}'|1|
info --image-opts '{"driver":"null-co","size":99999999999999999999}'|1|
info --image-opts '{"driver":"null-co","size":true}'|1|
info --image-opts '{"driver":"null-co","read-only":"maybe"}'|1|maybe
info --image-opts '{"driver":"null-co","read-only":1}'|1|read-only
info --image-opts '{"driver":"null-co"} x'|1|
info --image-opts '{"driver":"null-co","x":{}}'|1|
info --image-opts '{"driver":"raw","file":[]}'|1|
info --image-opts '{"driver":"raw","file":{"driver":"file","filename":"no\\u0000such"}}'|1|
info json:|1|
info json:{|1|
info json:[]|1|
info json:null|1|
info json:{}|1|
info 'json:{"driver":"null-co","bogus":1}'|1|bogus
info 'json:{"driver":"raw","file":"NAME"}'|1|
info ''|1|
info nosuchfile|1|nosuchfile
info ./no/such/folder/x|1|No such file
info NAME/x|1|Not a directory
info nbd://localhost:1/|1|localhost:1
info http://localhost/x|1|http
info unknown:thing|1|unknown
info file:|1|
info file:nosuchfile|1|nosuchfile
info host_device:NAME|1|NAME
info null-co://1M|1|
info null-co:1M|1|
info -f raw json:{"driver":"raw"}|1|
create x|2|needs a size
create x 1M 2|2|'2' is too much
create x ''|2|size
create x abc|2|abc
create x -1|2|no option '-1'
create -- x -1|2|-1
create x +1|2|+1
create x ' 1'|2| 1
create x '1 '|2|1
create x 1MM|2|1MM
create x 1Q|2|1Q
create x 1,5M|2|1,5M
create x .M|2|.M
create x 0x|2|0x
create x 0xg|2|0xg
create x 1e3|2|1e3
create x 1e999|2|1e999
create x nan|2|nan
create x inf|2|inf
create x 8E|2|8E
create x 16E|2|16E
create x 9223372036854775808|2|9223372036854775808
create x 18446744073709551616|2|18446744073709551616
create x 99999999999999999999999999999999|2|9999
create x 0.5|2|0.5
create -f|2|needs a value
create -f qcow9 x 1M|1|no format 'qcow9'
create -f '' x 1M|1|no format ''
create -f null-co x 1M|1|null-co
create -o|2|needs a value
create -o size=1M x 2M|2|given twice
create -o bogus=1 x 1M|2|bogus
create -o =1 x 1M|2|
create -o preallocation=half x 1M|2|half
create -o preallocation= x 1M|2|preallocation
create -o nocow=maybe x 1M|2|maybe
create -o size=-1 x|2|-1
create -o , x 1M|2|
create no/such/x 1M|1|No such file
create '' 1M|1|
create NAME/x 1M|1|Not a directory
create . 1M|1|
create /dev/full 1M|1|
create nbd://x/ 1M|1|nbd
create json:{} 1M|1|
create nope:x 1M|1|nope
serve|2|which FILE?
serve a b|2|'b' is too much
serve nosuchfile|1|nosuchfile
serve -f raw .|1|
serve -k s -p 1 NAME|2|unix socket
serve -k s -b 0 NAME|2|unix socket
serve -k '' -f raw NAME|1|socket path
serve -f raw -k NAME NAME|1|is not a socket
serve -f raw -k . NAME|1|is not a socket
serve -f raw -k no/such/s NAME|1|No such file
serve -p -1 NAME|2|-1
serve -p 65536 NAME|2|out of range
serve -p '' NAME|2|not a number
serve -p 1x NAME|2|1x
serve -p 0x10000 NAME|2|out of range
serve -b 300.1.1.1 -p 0 -f raw NAME|1|300.1.1.1
serve -e 0 NAME|2|out of range
serve -e -1 NAME|2|-1
serve -e 10001 NAME|2|out of range
serve -e 1.5 NAME|2|1.5
serve --threads 65 NAME|2|out of range
serve --threads= NAME|2|not a number
serve --cache sometimes NAME|2|no cache mode
serve --cache= NAME|2|no cache mode ''
serve --aio uring NAME|2|there are threads, native and io_uring
serve --discard maybe NAME|2|no discard mode
serve -f raw -p 0 --aio native NAME|1|direct
serve -f raw -r -p 0 --image-opts NAME|2|exclude each other
serve -kx|2|which FILE?
bench|2|which FILE?
bench a b|2|'b' is too much
bench -c NAME|2|not a number
bench -c -1 NAME|2|-1
bench -c 1k NAME|2|1k
bench -c 9223372036854775808 NAME|2|
bench -d 0 NAME|2|out of range
bench -d 65537 NAME|2|out of range
bench -d 65536 -s 1G NAME|2|4 GiB of memory
bench -s 4Q NAME|2|4Q
bench -s -4k NAME|2|-4k
bench -s 2G NAME|2|out of range
bench -S 3G NAME|2|out of range
bench -o -1 NAME|2|-1
bench -o 8E NAME|2|8E
bench --pattern 256 NAME|2|out of range
bench --pattern -1 NAME|2|-1
bench --flush-interval 64 NAME|2|only for writes
bench -w --flush-interval 8 -d 64 NAME|2|smaller than the depth
bench -w -U NAME|1|
bench -t fast NAME|2|no cache mode
bench -i fast NAME|2|no aio mode
bench -c 1 -s 1M -o 512k NAME|1|
bench -c 1 -o 2M NAME|1|
bench nosuchfile|1|nosuchfile
bench --no-drian NAME|2|did you mean '--no-drain'?
io -c NAME|1|command "d.raw" not found
io -c|2|needs a value
io a b|2|'b' is too much
io nosuchfile -c length|1|nosuchfile
io -c 'read 0 512'|1|no file open
io -c bogus NAME|1|command "bogus" not found
io -c 'read' NAME|1|bad argument count 0
io -c 'read 0' NAME|1|bad argument count 1
io -c 'read 0 1 2' NAME|1|
io -c 'read -1 512' NAME|1|invalid option
io -c 'read 0 -512' NAME|1|invalid option
io -c 'read 0 2M' NAME|1|read failed
io -c 'read 1M 1' NAME|1|read failed
io -c 'read 9223372036854775807 1' NAME|1|read failed
io -c 'read 18446744073709551615 1' NAME|1|too large
io -c 'read 0 4G' NAME|1|length cannot exceed
io -c 'read 0 abc' NAME|1|non-numeric
io -c 'read 0 0x' NAME|1|non-numeric
io -c 'read -P 256 0 512' NAME|1|not a valid pattern
io -c 'read -P' NAME|1|bad argument count
io -c 'read -s 1 0 512' NAME|1|
io -c 'read -P 0 -s 513 0 512' NAME|1|exceeds end
io -c 'read -P 0 -s 1 -l 512 0 512' NAME|1|exceeds end
io -c 'read -P 1 0 512' NAME|1|verification failed
io -c 'read -Y 0 512' NAME|1|invalid option
io -c 'read -b 0 512' NAME|1|read failed
io -c 'write -n 0 512' NAME|1|-n requires -z
io -c 'write -u 0 512' NAME|1|-u requires -z
io -c 'write -z -P 1 0 512' NAME|1|Only one of
io -c 'write -c 0 512' NAME|1|write failed
io -c 'write -s nosuchfile 0 512' NAME|1|nosuchfile
io -c 'write -s . 0 512' NAME|1|Is a directory
io -c 'write -s /dev/null 0 512' NAME|1|file is empty
io -c 'write 0 2M' NAME|1|write failed
io -c 'write -z 1M 1' NAME|1|write failed
io -c 'write -z 9223372036854775807 9223372036854775807' NAME|1|length cannot exceed
io -r -c 'write 0 512' NAME|1|read-only
io -r -c 'truncate 2M' NAME|1|read-only
io -c 'discard 1M 1' NAME|1|discard failed
io -c 'discard 0' NAME|1|bad argument count
io -c 'truncate -1' NAME|1|invalid option
io -c 'truncate 8E' NAME|1|too large
io -c 'truncate -m half 1M' NAME|1|half
io -c 'alloc x' NAME|1|non-numeric
io -c 'alloc' NAME|1|bad argument count
io -c 'help bogus' NAME|1|not found
io -U -c 'write 0 512' NAME|1|
io -n -t writeback -d x NAME|2|no discard mode
'''.strip('\n').split('\n')


def rows():
    for line in LINES:
        command, code, piece = line.rsplit('|', 2)
        yield pytest.param(shlex.split(command), int(code), piece, id=command or 'nothing')


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    (tmp_path / 'd.raw').write_bytes(bytes(1 << 20))
    return tmp_path


def sane(done, folder, files):
    """No crash, one clear line or two, nothing left behind."""
    assert done.returncode in (0, 1, 2), done
    assert 'Sanitizer' not in done.stderr and 'runtime error' not in done.stderr, done.stderr
    for line in done.stderr.splitlines():
        assert not line.endswith(': '), done.stderr
    assert sorted(os.listdir(folder)) == files
    assert not any(ord(c) < 32 and c != '\n' for c in done.stderr + done.stdout), done.stderr


@pytest.mark.parametrize('arguments, code, piece', rows())
def test_line(folder, arguments, code, piece):
    arguments = [a.replace('NAME', 'd.raw') for a in arguments]
    piece = piece.replace('NAME', 'd.raw')
    done = platter(*arguments, cwd=folder)
    sane(done, folder, ['d.raw'])
    assert done.returncode == code, done.stderr + done.stdout
    assert piece in done.stderr + done.stdout, done.stderr + done.stdout
    if code != OK:
        assert done.stderr or done.stdout
    assert (folder / 'd.raw').read_bytes() == bytes(1 << 20)


# ---- files that are no disks ----

def make_odd(kind, path):
    if kind == 'folder':
        path.mkdir()
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(str(path))
    elif kind == 'dangling link':
        path.symlink_to('nowhere')
    elif kind == 'link to itself':
        path.symlink_to(path.name)
    elif kind == 'character device':
        path.symlink_to('/dev/null')
    elif kind == 'unreadable':
        path.write_bytes(bytes(512))
        path.chmod(0)


ODD = ['folder', 'fifo', 'socket', 'dangling link', 'link to itself', 'unreadable']


@pytest.mark.parametrize('command', [['info'], ['serve', '-f', 'raw', '-k', 'sock'],
                                     ['bench', '-f', 'raw', '-c', '1'], ['io', '-c', 'length']],
                         ids=lambda c: c[0])
@pytest.mark.parametrize('kind', ODD)
def test_odd_file(tmp_path, kind, command):
    path = tmp_path / 'odd'
    make_odd(kind, path)
    if kind == 'unreadable' and os.access(path, os.R_OK):
        pytest.skip('this user may read everything')
    done = platter(*command, 'odd', cwd=tmp_path)
    sane(done, tmp_path, ['odd'])
    assert done.returncode == 1 and "odd" in done.stderr, done


def test_character_device_is_empty(tmp_path):
    make_odd('character device', tmp_path / 'odd')
    done = platter('io', '-r', '-f', 'raw', '-c', 'length', '-c', 'read 0 512', 'odd', cwd=tmp_path)
    sane(done, tmp_path, ['odd'])
    assert done.returncode == 1 and done.stdout.startswith('0 bytes'), done


@pytest.mark.parametrize('kind', ['folder', 'fifo', 'socket', 'link to itself', 'character device'])
def test_create_over_odd_file(tmp_path, kind):
    path = tmp_path / 'odd'
    make_odd(kind, path)
    before = os.lstat(path)
    done = platter('create', 'odd', '1M', cwd=tmp_path)
    sane(done, tmp_path, ['odd'])
    assert done.returncode == 1 and "odd" in done.stderr, done
    assert stat.S_IFMT(os.lstat(path).st_mode) == stat.S_IFMT(before.st_mode)


# ---- names ----

NAMES = {
    'newline': 'a\nb', 'escape': 'a\x1b[31mb', 'bell': '\a', 'carriage return': 'a\rb',
    'delete': 'a\x7fb', 'tab': 'a\tb', 'format': '%s%n%d', 'quote': "a'b\"c", 'blank': ' ',
    'not utf-8': b'a\xff\xfeb', 'c1 control': 'a\x9bb', 'utf-8': 'é漢', 'comma': 'a,b=c',
    'backslash': 'a\\nb', '200 bytes': 'n' * 200,
}


@pytest.mark.parametrize('name', NAMES.values(), ids=NAMES)
def test_odd_name(tmp_path, name):
    """Such a name is used as it is, and shown so that it is one line without control characters."""
    name = os.fsdecode(name)
    program = os.environ['PLATTER_BIN']
    for arguments in (['info', name], ['create', name, '64k'], ['info', name],
                      ['info', '--output=json', name], ['io', '-f', 'raw', '-c', 'write 0 4k', name],
                      ['serve', name, name], ['info', '-f', name, name], ['--' + name],
                      ['io', '-c', name]):
        done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, timeout=60,
                              check=False)
        for text in (done.stdout, done.stderr):
            assert b'Sanitizer' not in text
            if '--output=json' in arguments and text:
                assert json.loads(text)['virtual-size'] == 65536
                continue
            assert not any(c < 32 and c != 10 or c == 127 for c in text), text
            assert b'\xc2\x9b' not in text
        assert done.returncode in (0, 1, 2)
    assert os.path.getsize(tmp_path / name) == 65536


@pytest.mark.parametrize('arguments', [
    ['info', LONG], ['create', LONG, '1M'], ['serve', LONG], ['io', LONG], ['bench', LONG],
    ['info', '-f', LONG, 'd.raw'], ['serve', '-f', 'raw', '-k', LONG, 'd.raw'],
    ['serve', '-f', 'raw', '-x', LONG, '-p', '0', 'd.raw'], ['io', '-c', LONG, 'd.raw'],
    ['serve', '-f', 'raw', '-b', LONG, 'd.raw'], ['--' + LONG], [LONG], ['info', '--' + LONG],
    ['create', 'x', LONG], ['create', '-o', LONG + '=1', 'x', '1M'], ['bench', '-c', LONG, 'd.raw'],
    ['info', '--image-opts', 'driver=' + LONG], ['info', '--image-opts', LONG + '=raw'],
    ['info', 'json:' + '[' * 5000], ['info', 'json:' + '{"a":' * 5000], ['info', LONG + ':x'],
    ['info', '--image-opts', 'a.' * 2500 + 'b=1'],
    ['info', '--image-opts', 'driver=raw,node-name=' + LONG + ',file.filename=d.raw'],
], ids=lambda a: ' '.join(a)[:40])
def test_5000_characters(folder, arguments):
    done = platter(*arguments, cwd=folder)
    sane(done, folder, ['d.raw'])
    assert done.returncode in (1, 2) and done.stderr


def test_many_arguments(folder):
    assert platter('info', *['-U'] * 5000, 'd.raw', cwd=folder).returncode == 0
    assert platter('io', *['-c', 'length'] * 2000, 'd.raw', cwd=folder).returncode == 0
    assert platter('io', '-c', ' '.join(['read'] * 200), 'd.raw', cwd=folder).returncode == 1
    keys = ','.join(f'k{i}=1' for i in range(5000))
    assert platter('info', '--image-opts', 'driver=null-co,' + keys).returncode == 1
