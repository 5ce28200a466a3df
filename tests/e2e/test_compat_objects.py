# SPDX-License-Identifier: MIT
"""--object of the links beside the installed tools: what is told of objects that are wrong, and which of several
faults of a command line is told. Compared are exit code, standard output and standard error."""
import base64
import json
import shutil
import subprocess

import pytest

from tools_common import called, needs, run

pytestmark = needs('qcow2')
PROGRAMS = ('qemu-img', 'qemu-io', 'qemu-nbd', 'qemu-storage-daemon')
KEY = '01234567890123456789012345678901'
IV = base64.b64encode(bytes(16)).decode()
ENCRYPTED = f'secret,id=k,data={KEY} --object secret,id=x,keyid=k'
LIMITS = 'throttle-group,id=t,limits'
RULES = 'authz-list,id=a,rules'
LONG = 'a' * 128

# What follows --object; each is given to qemu-io in front of -c quit.
OBJECTS = [
    # the text
    'secret', 'secret,', ',', '=', '=x', '', 'secret,,id=x', 'id=x', 'secret,data=a', 'qom-type=secret,id=x,data=a',
    'secret,qom-type=throttle-group,id=x,data=a', 'nosuch', 'nosuch,id=1x', 'secret=3', 'a.b=3', 'qom-type.x=1',
    'secret,id=x,=1', 'secret,id=x,data', 'secret,id=x,nodata', 'secret,id=x,data=1,data=2', 'secret,id=x,id=y,data=1',
    'secret,id=x,data.x=1', 'secret,id=x,data.=1', 'secret,id=x,.data=1', 'secret,id=x,data..x=1', 'secret,id=x,.',
    'secret,id=x,data=1,data.x=2', 'secret,id=x,data.x=1,data=2', 'secret,id=x,data=1,data.x', 'secret,id=x,data.x=1,data',
    'secret,id=x,data=1,data.x$=1', 'secret,id=x,data.0=1', 'secret,id=x,data.0=1,data.2=2', 'secret,id=x,data.0=1,data.x=2',
    'secret,id=x,a_b=1', 'secret,id=x,1a=1', 'secret,id=x,_a=1', 'secret,id=x,-a=1', 'secret,id=x,a$=1', 'secret,id=x,\xe9=1',
    'secret,id=x,__org.x_y=1', 'secret,id=x,__org.x_y.z=1', 'secret,id=x,__org=1', f'secret,id=x,{LONG}=1',
    f'secret,id=x,x.{LONG}=1', f'secret,id=x,{LONG[1:]}=1', 'secret,id=x,data=1,bogus=1', 'secret,id=x,bogus.y=1',
    # ids
    'secret,id=,data=a', 'secret,id=1x,data=a', 'secret,id=x/y,data=a', 'secret,id=x,,y,data=a', 'secret,id=1x,bogus=1',
    'secret,id=x,data=a --object secret,id=x,data=b', 'iothread,id=x', 'iothread,id=1x', 'iothread,id=x,poll-grow=a',
    # JSON
    '{}', '{"qom-type":"secret"}', '{"id":"x"}', '{"qom-type":"secret","id":"x","data":"a"}', '[1]',
    '{"qom-type":"secret","id":"x","data":1}', '{"qom-type":"secret","id":1,"data":"a"}',
    '{"qom-type":"secret","id":"x","data":"a","bogus":1}', '{"qom-type":"secret","id":"x","data":{"x":1}}',
    '{"qom-type":"nosuch","id":"x"}', '{"qom-type":1,"id":"x"}', 'json:{"qom-type":"secret","id":"x","data":"a"}',
    '{"qom-type":"authz-list","id":"a","rules":[{"match":"x","policy":"allow"}]}',
    '{"qom-type":"authz-list","id":"a","rules":[{"match":"x","policy":"bogus"}]}',
    '{"qom-type":"authz-list","id":"a","rules":[{"match":"x"}]}', '{"qom-type":"authz-list","id":"a","rules":[1]}',
    '{"qom-type":"authz-list","id":"a","rules":[{"match":"x","policy":"allow","format":"foo"}]}',
    '{"qom-type":"authz-list","id":"a","rules":{"match":"x"}}', '{"qom-type":"authz-list","id":"a","rules":"x"}',
    '{"qom-type":"authz-list","id":"a","rules":[{"match":"x","policy":"allow","bogus":1}]}',
    '{"qom-type":"throttle-group","id":"a","limits":{"iops-total":"1"}}',
    '{"qom-type":"throttle-group","id":"a","limits":{"iops-total":-1}}',
    '{"qom-type":"throttle-group","id":"a","limits":{"iops-total":1.5}}',
    '{"qom-type":"throttle-group","id":"a","limits":{"iops-total":18446744073709551615}}',
    '{"qom-type":"throttle-group","id":"a","limits":{}}', '{"qom-type":"throttle-group","id":"a","limits":[]}',
    '{"qom-type":"throttle-group","id":"a","limits":null}', '{"qom-type":"throttle-group","id":"a","limits.iops-total":1}',
    # secrets
    'secret,id=x', 'secret,id=x,format=raw', 'secret,id=x,format=hex,data=a', 'secret,id=x,format=,data=a',
    'secret,id=x,data=a,file=sec', 'secret,id=x,data=a,file=', 'secret,id=x,file=', 'secret,id=x,file=/nonexistent',
    'secret,id=x,file=dir', 'secret,id=x,file=empty', 'secret,id=x,file=bin', 'secret,id=x,file=bin,format=base64',
    'secret,id=x,file=zero,format=base64', 'secret,id=x,file=line,format=base64', 'secret,id=x,data=!!!,format=base64',
    'secret,id=x,data=MT I,format=base64', 'secret,id=x,data=,format=base64', 'secret,id=x,data=MTIz,format=base64',
    'secret,id=x,iv.x=3,keyid.x=3,format=bogus', 'secret,id=x,iv.x=3,data.x=3', 'secret,id=x,file.x=3,data.x=3',
    'secret,id=x,data=a,keyid=nope', 'secret,id=x,data=!!,keyid=nope,iv=!!,format=base64', 'secret,id=x,data=a,iv=!!',
    'secret,id=x,file=/nonexistent,keyid=nope', 'secret,id=x,data=a,file=sec,keyid=nope', 'secret,id=x,data=a,keyid=',
    'throttle-group,id=t --object secret,id=x,data=a,keyid=t,iv=!!', 'secret,id=k,data=short --object secret,id=x,data=a,keyid=k',
    f'{ENCRYPTED},data=a', f'{ENCRYPTED},data=a,iv=!!', f'{ENCRYPTED},data=a,iv=', f'{ENCRYPTED},data=a,iv=AAAA',
    f'{ENCRYPTED},data=!!,format=base64,iv=AAAA', f'{ENCRYPTED},data=!!,format=base64,iv={IV}',
    f'{ENCRYPTED},data=abc,iv={IV}', f'{ENCRYPTED},data=0123456789abcdef,iv={IV}',
    # limits
    f'{LIMITS}=1', f'{LIMITS}.=1', f'{LIMITS}.0=1', f'{LIMITS}', f'{LIMITS}.bogus=1', f'{LIMITS}.iops-total',
    f'{LIMITS}.iops-total=-1', f'{LIMITS}.iops-total=abc', f'{LIMITS}.iops-total=1.5', f'{LIMITS}.iops-total=',
    f'{LIMITS}.iops-total=99999999999999999999', f'{LIMITS}.iops-total=1k', f'{LIMITS}.iops-total=0x10',
    f'{LIMITS}.iops-total=1000000000000001', f'{LIMITS}.iops-total.x=1', f'{LIMITS}.iops-total=1,limits.iops-read=1',
    f'{LIMITS}.bps-total=1,limits.bps-write=1', f'{LIMITS}.iops-total-max=1', f'{LIMITS}.iops-total=10,limits.iops-total-max=1',
    f'{LIMITS}.iops-total=10,limits.iops-total-max-length=5', f'{LIMITS}.iops-total-max-length=0',
    f'{LIMITS}.iops-total-max-length=-1', f'{LIMITS}.iops-total-max-length=4294967296', f'{LIMITS}.iops-size=4096',
    f'{LIMITS}.iops-total=1,limits.iops-total-max=2,limits.iops-total-max-length=4294967295',
    f'{LIMITS}.iops-total=1,limits.iops-read=1,limits.bps-read-max-length=0', 'throttle-group,id=t,bogus=1',
    f'{LIMITS}.bps-read-max-length=0,limits.iops-total-max-length=5000000000', f'{LIMITS}.iops-size=-1,limits.iops-total=1',
    'throttle-group,id=t,x-iops-total=5,limits.iops-total=abc', f'{LIMITS}.iops-total=-1,x-iops-total=-1',
    'throttle-group,id=t,x-iops-total-max-length=0,x-iops-size=-1', 'throttle-group,id=t,x-iops-total=1,x-iops-read=1',
    # rules
    'authz-simple,id=a', 'authz-simple,id=a,identity=', 'authz-simple,id=a,identity=x,bogus=1', 'authz-simple,id=a,identity.x=x',
    'authz-list,id=a', 'authz-list,id=a,policy=bogus', f'{RULES}=x', f'{RULES}.0.match=x', f'{RULES}.0.policy=allow',
    f'{RULES}.0.match=x,rules.0.policy=allow', f'{RULES}.0.match=x,rules.0.policy=bogus', f'{RULES}.0=x', f'{RULES}.match=x',
    f'{RULES}.0.match=x,rules.0.policy=allow,rules.0.format=bogus', f'{RULES}.0.match=x,rules.0.policy=allow,rules.0.bogus=1',
    f'{RULES}.1.match=x', f'{RULES}.0.match=x,rules.0.policy=allow,rules.2.match=x', f'{RULES}.x.match=x', f'{RULES}.-1.match=x',
    f'{RULES}.0=x,rules.0.match=x', f'{RULES}.00.match=x,rules.00.policy=allow', f'{RULES}.0x.match=x', f'{RULES}.0=x,rules.00=y',
    f'{RULES}.0.match=x,rules.0.policy=allow,rules.y=1', f'{RULES}.99999999999999999999.match=x', f'{RULES}.0.match.y=x',
    f'{RULES}.0.0=x,rules.0.policy=allow', 'authz-list,id=a,policy=bogus,rules=3',
    # credentials
    'tls-creds-x509,id=t', 'tls-creds-x509,id=t,endpoint=bogus', 'tls-creds-x509,id=t,endpoint=client,dir=/nonexistent',
    'tls-creds-x509,id=t,endpoint=server,dir=dir', 'tls-creds-x509,id=t,endpoint=server,dir=dir,verify-peer=maybe',
    'tls-creds-x509,id=t,endpoint=server,dir=dir,sanity-check=1', 'tls-creds-x509,id=t,endpoint=server,dir=',
    'tls-creds-x509,id=t,endpoint=server,dir=dir,priority=bogus', 'tls-creds-x509,id=t,endpoint=bogus,dir.x=1',
    'tls-creds-psk,id=t', 'tls-creds-psk,id=t,endpoint=server,dir=dir', 'tls-creds-psk,id=t,endpoint=client,dir=dir',
    'tls-creds-psk,id=t,endpoint=server,dir=dir,username=x', 'tls-creds-psk,id=t,endpoint=client,dir=dir,priority=bogus',
    'tls-creds-anon,id=t', 'tls-creds-anon,id=t,endpoint=server,dir=/nonexistent', 'tls-creds-anon,id=t,verify-peer=yes',
    'tls-creds-anon,id=t,username=x', 'tls-creds-psk,id=t,endpoint=bogus,verify-peer=maybe',
    # several
    'bogus,id=x --object nonsense,id=y', 'secret,id=x,data=a --object bogus,id=y', 'secret,id=x,format=foo,data.x=3',
]

# What differs on purpose, and why: told in the order of the list above.
DIFFERS = {
    '{': 'the byte is told where JSON goes wrong',
    '{"qom-type":"secret","id":"x"} x': 'the byte is told where JSON goes wrong',
    '{"qom-type":"secret","id":"x","id":"y"}': 'the byte is told where JSON goes wrong',
    'secret,id=x,data=a,zeta=1,alpha=1': 'which of several parameters that nobody knows is told first',
    'secret,id=x,data=MTI,format=base64': 'a group of base64 that is not whole is refused; the reference drops it',
    'secret,id=x,data=abc,keyid=x': 'the reference says that the secret itself has no data',
    f'{ENCRYPTED},data=,iv={IV}': 'nothing is no whole number of blocks',
    'tls-creds-x509,id=t,endpoint=server,dir=dir,passwordid=nope': 'the secret is looked for before the files',
    'tls-creds-anon,id=t,priority=bogus': 'a bad priority is refused at once',
    'throttle-group,id=t,x-iops-total-max-length=5000000000': 'the reference lacks a space',
    f'{LIMITS}.iops-total=-1,limits.bps-read-max-length=0': 'a length of 0 is told when all else is good',
}

BAD = '--object bogus,id=x'
UNREADABLE = '--object secret,id=x,file=/nonexistent'
# Which of several faults is told; NAME: the disk.
ORDER = [
    *(f'qemu-img {line}' for line in (
        f'info {BAD} --nosuch', f'info --nosuch {BAD}', f'info {BAD} -f nosuch missing', f'info {UNREADABLE} --nosuch',
        f'info {UNREADABLE}', f'info {UNREADABLE} a b', f'info --output=bogus {BAD}', f'info {BAD} --output=bogus',
        f'info {BAD} --object nonsense,id=y disk', 'info --object secret,id=x,data=a --object secret,id=x,data=b --nosuch',
        f'info {BAD} --object help', f'info {BAD} --help', f'create {BAD} -f nosuch new 1M', f'create {BAD} new abc',
        f'create -f nosuch {BAD} new abc', f'create {BAD}', f'convert {BAD} -S abc disk new', f'convert -S abc {BAD} disk new',
        f'convert -m 0 {BAD} disk new', f'convert -l foo.bar=x {BAD} disk new', f'convert -o ,a {BAD} disk new',
        f'convert -t foo {BAD} disk new', f'convert -r abc {BAD} disk new', f'bitmap -g abc {BAD} disk b',
        f'bitmap --add -g 512 {BAD} disk', f'check {BAD} -r foo disk', f'check -r foo {BAD} disk', f'check -T foo {BAD} disk',
        f'check --output=foo {BAD} disk', f'check --output=foo --nosuch {BAD} disk', f'commit -t foo {BAD} disk',
        f'commit -r abc {BAD} disk', f'compare {BAD} disk', f'compare -T foo {BAD} disk disk', f'dd {BAD} if=disk',
        f'dd {BAD} bs=abc if=disk of=x', f'dd bs=abc {BAD} if=disk of=x', f'bench -t foo {BAD} disk',
        f'map --output=foo {BAD} disk', f'map -s abc {BAD} disk', f'measure --size abc {BAD}',
        f'measure {BAD} --size abc', f'measure -o a, {BAD} --size 1M', f'rebase -t foo {BAD} disk', f'rebase {BAD} disk',
        f'resize {BAD} disk abc', f'resize {BAD} disk', f'resize disk {BAD} abc', f'resize --preallocation=foo {BAD} disk 1M',
        f'snapshot -c a -d b {BAD} disk', f'snapshot {BAD} -c a -d b disk', f'amend -o ,a {BAD} disk', f'amend {BAD} disk',
        'bench -c abc disk', 'bench -d abc disk', 'bench --pattern=256 disk', 'bench --flush-interval=x disk',
        'create -f qcow2 -o a, new 1M', 'create -f qcow2 -o , new 1M', 'create -f qcow2 -o ,,a new 1M',
        'bench -f raw --flush-interval=1 -c 1 disk')),
    *(f'qemu-io {line}' for line in (
        f'{BAD} --nosuch', f'{UNREADABLE} -t foo', f'-t foo {UNREADABLE}', f'-i foo {BAD}', f'-d foo {BAD}', f'-T x=y {BAD}',
        f'-f nosuch {BAD} missing', f'{BAD} a b', f'a b {BAD}', f'{BAD} --help', f'{BAD} -V', f'-c foo {BAD}', f'{BAD} -c foo',
        f'--object secret,id=s,data=x --image-opts -f raw x {BAD}')),
    *(f'qemu-nbd {line}' for line in (
        f'{BAD} --nosuch', f'{BAD} -p abc disk', f'-p abc {BAD} disk', f'-p 99999 {BAD} disk', f'-e abc {BAD} disk',
        f'-o abc {BAD} disk', f'--cache=foo {BAD} disk', f'--discard=foo {BAD} disk', f'--aio=foo {BAD} disk',
        f'--detect-zeroes=foo {BAD} disk', f'-f nosuch {BAD} disk', f'-l snapshot.x=y {BAD} disk', BAD, f'{BAD} a b',
        f'{BAD} -L disk', f'{BAD} --tls-creds t missing', f'{BAD} -V', f'{BAD} --help', f'{BAD} -k relative disk',
        f'-k relative {BAD} disk',
        f"-x '' {BAD} disk", f'-d {BAD}', f'-B b -A -L {BAD}')),
    *(f'qemu-storage-daemon {line}' for line in (
        f'{BAD} --nosuch', f'{BAD} --blockdev bogus', f'--blockdev bogus {BAD}', f'--chardev bogus {BAD}',
        f'--export bogus {BAD}', f'{UNREADABLE} --nosuch', f'{UNREADABLE} operand',
        f'operand {UNREADABLE}', f'{BAD} --pidfile', f'--monitor bogus {BAD}', f'--nbd-server bogus {BAD}', f'--daemonize {BAD}',
        f'--daemonize {UNREADABLE}', '--object iothread,id=x,poll-shrink=-1,poll-grow=-1',
        '--object iothread,id=x,poll-max-ns=-1,aio-max-batch=-1,poll-grow=-1', '--object iothread,id=x,thread-pool-max=0',
        '--object iothread,id=x,thread-pool-min=-1,poll-max-ns=-1', '--object iothread,id=x,thread-pool-min=70',
        '--object iothread,id=x,thread-pool-min=5,thread-pool-max=4', '--object iothread,id=x,poll-grow=-5,bogus=1',
        '--object iothread,id=1x,poll-max-ns=0x10', '--object iothread,id=1x,poll-max-ns=+5', '--object iothread,id=x,poll-max-ns=08',
        '--object iothread,id=1x,poll-max-ns=010', '--object iothread,id=x,poll-grow=x,poll-shrink=x,thread-pool-max=x',
        '--nbd-server addr.0=unix', '--nbd-server addr.type=unix,addr.path.x=y', '--export nbd,id=e,node-name=n,bitmaps=x',
        '--export nbd,id=e,node-name=n,bitmaps.0.node=x', '--monitor chardev.x=1',
        '--nbd-server addr.type=inet,addr.host=localhost,addr.port=1,addr.ipv4=maybe')),
    'qemu-nbd --object secret,id=t,data=a --tls-creds t disk',
]
# The same, where the order is another.
ORDER_DIFFERS = {
    f'qemu-storage-daemon {BAD} --object help': 'help is printed before anything is done',
}


@pytest.fixture(scope='module')
def links(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {program: called(folder, program) for program in PROGRAMS}


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    folder = tmp_path / 'work'
    (folder / 'dir').mkdir(parents=True)
    for name, data in (('sec', b'abc'), ('empty', b''), ('bin', b'\xff\xfe'), ('zero', b'MT\0Iz'), ('line', b'MT\nIz\n'),
                       ('disk', bytes(1 << 20))):
        (folder / name).write_bytes(data)
    return folder


def outcome(program, words, folder):
    done = run([program, *words], cwd=folder)
    return done.returncode, done.stdout, done.stderr


def words_of(line):
    """Words of a line; what follows --object may have blanks up to the next one."""
    first, *others = line.split(' --object ')
    return ['--object', first, *(word for other in others for word in ('--object', other)), '-c', 'quit']


@pytest.mark.parametrize('line', OBJECTS)
def test_objects(line, links, folder):
    ours, theirs = (outcome(program, words_of(line), folder) for program in (links['qemu-io'], 'qemu-io'))
    assert ours == theirs


@pytest.mark.parametrize('line', DIFFERS)
def test_objects_that_differ(line, links, folder):
    """Each does, or belongs into the list above."""
    ours, theirs = (outcome(program, words_of(line), folder) for program in (links['qemu-io'], 'qemu-io'))
    assert ours != theirs and ours[0] == 1 and ours[2]


@pytest.mark.parametrize('line', ORDER)
def test_order(line, links, folder):
    program, *words = line.split()
    words = [word.strip("'") for word in words]
    ours, theirs = (outcome(name, words, folder) for name in (links[program], program))
    assert ours == theirs


@pytest.mark.parametrize('line', ORDER_DIFFERS)
def test_order_that_differs(line, links, folder):
    program, *words = line.split()
    assert outcome(links[program], words, folder) != outcome(program, words, folder)


def test_native_program_tells_its_own_faults_first(links, folder):
    """Objects are made with what needs them."""
    native = links['qemu-img'].resolve()
    done = run([native, 'info', '--object', 'bogus,id=x', '--nosuch'], cwd=folder)
    assert done.returncode == 2 and 'no option' in done.stderr and 'bogus' not in done.stderr
    done = run([native, 'info', '--object', 'secret,id=1x,data=a', 'disk'], cwd=folder)
    assert done.returncode == 1 and "\n'1x' is not a letter, then" in done.stderr


def cipher(key, data, *options):
    if not shutil.which('openssl'):
        pytest.skip('openssl is not installed')
    line = ['openssl', 'enc', '-aes-256-cbc', '-K', key.hex(), '-iv', '0' * 32, *options]
    return base64.b64encode(subprocess.run(line, input=data, capture_output=True, check=True).stdout).decode()


def encrypted(data):
    """With the key above and a vector of zeroes, in base64."""
    return cipher(KEY.encode(), data, '-nopad')


@pytest.mark.parametrize('padded,good', [(b'hello' + b'\x0b' * 11, True), (b'\x10' * 16, True),
                                         (bytes(range(16)) + b'\x10' * 16, True), (b'0123456789abcde\x11', False),
                                         (b'0123456789abcde\xff', False)])
def test_encrypted_secret(padded, good, links, folder):
    line = words_of(f'{ENCRYPTED},format=base64,data={encrypted(padded)},iv={IV}')
    ours, theirs = (outcome(program, line, folder) for program in (links['qemu-io'], 'qemu-io'))
    assert ours == theirs and (ours[0] == 0) == good


def test_encrypted_secret_is_the_key_that_it_hides(links, folder):
    """A second secret that only opens with what the first one holds."""
    inner = KEY[::-1].encode()
    hidden = encrypted(inner + b'\x10' * 16)
    (folder / 'second').write_text(cipher(inner, b'open') + '\n', encoding='ascii')
    objects = f'{ENCRYPTED},format=base64,data={hidden},iv={IV} --object secret,id=y,keyid=x,format=base64,file=second,iv={IV}'
    for program in (links['qemu-io'], 'qemu-io'):
        assert outcome(program, words_of(objects), folder) == (0, '', '')
        broken = objects.replace(hidden, encrypted(inner[1:] + b'x' + b'\x10' * 16))
        assert outcome(program, words_of(broken), folder)[0] == 1


def test_objects_of_native_program_in_json(links, folder):
    rules = json.dumps({'qom-type': 'authz-list', 'id': 'a', 'rules': [{'match': '*', 'policy': 'allow', 'format': 'glob'}]})
    done = run([links['qemu-img'].resolve(), 'info', '--object', rules, 'disk'], cwd=folder)
    assert done.returncode == 0, done.stderr
