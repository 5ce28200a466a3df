# SPDX-License-Identifier: MIT
"""platter nbd as the link qemu-nbd, beside the installed one: command lines that are refused, and
servers looked at by nbdinfo, nbdcopy, qemu-io, qemu-img and the listing of either program."""
import os
import shutil
import socket
import subprocess

import pytest

from nbd_tool import PROGRAM, alive, background, make_images, seen
from tools_common import needs, platter, run

pytestmark = needs('qcow2')

REFUSED = [
    [], ['plain.raw', 'b'], ['missing.img'], ['-Z', 'x'], ['--nosuch', 'x'], ['-k'], ['--socket'],
    ['--fork=1', 'plain.raw'], ['-P', '1', 'plain.raw'],
    ['-e', '-1', 'plain.raw'], ['-e', 'abc', 'plain.raw'], ['-e', '3k', 'plain.raw'],
    ['-e', '99999999999', 'plain.raw'], ['-e', '', 'plain.raw'],
    ['-o', 'abc', 'plain.raw'], ['-o', '2M', 'plain.raw'], ['-o', '', 'plain.raw'],
    ['-o', '99999999999999999999999', 'plain.raw'],
    ['-f', 'raw', '-k', '/FOLDER/s', '-o', '2097152', 'plain.raw'],
    ['--cache=x', 'plain.raw'], ['-n', '--cache=none', 'plain.raw'],
    ['--aio=x', 'plain.raw'], ['--aio=threads', '--aio=native', 'plain.raw'],
    ['--discard=x', 'plain.raw'], ['--discard=on', '--discard=off', 'plain.raw'],
    ['--detect-zeroes=x', 'plain.raw'], ['--detect-zeroes=unmap', 'plain.raw'],
    ['-f', 'raw', '--image-opts', 'plain.raw'],
    ['--object', 'secret,id=t,data=a', '--tls-creds', 't', '-f', 'raw', 'plain.raw'],
    ['--object', 'secret,id=t,data=a', '--tls-creds', 't', '-L', '-k', '/FOLDER/none'],
    ['--object', 'secret,id=t,data=a', '--tls-creds', 'u', '-L', '-k', '/FOLDER/none'],
    ['-l', 'none', '-f', 'qcow2', '-o', '2097152', 'base.qcow2'],
    ['-l', 'none', '-f', 'qcow2', '-o', '-1', 'base.qcow2'], ['-o', '2097152', 'plain.raw'],
    ['-s', '-o', '2097152', 'plain.raw'],
    ['-l', 'none', '-f', 'raw', 'plain.raw'], ['-l', 'snapshot.id=1', '-o', '512', '-f', 'raw', 'plain.raw'],
    ['-s', '--image-opts', 'driver=raw,file.filename=plain.raw,read-only=on'],
    ['-s', '-o', '2097152', '--image-opts', 'driver=qcow2,file.filename=base.qcow2,read-only=yes'],
    ['-s', '-B', 'none', 'json:{"driver":"raw","read-only":true,"file":{"driver":"file","filename":"plain.raw"}}'],
    ['-s', '-r', '-B', 'none', '--image-opts', 'driver=raw,file.filename=plain.raw,read-only=on'],
    # the order of faults: a log of traces, TLS, devices that are let go, listening, the disk, devices
    ['-d', '--trace', 'file=/FOLDER/none/t', '--tls-creds', 't', '/dev/nosuchnbd'],
    ['--trace', 'file=/FOLDER/none/t', '--tls-creds', 't', '--tls-hostname', 'x', 'plain.raw'],
    ['--trace', 'file=/FOLDER/none/t', '--tls-creds', 't', 'plain.raw', 'b'],
    ['--trace', 'file=/FOLDER/none/t', '-L', 'plain.raw'],
    ['-d', '--tls-creds', 't', '/dev/nosuchnbd'], ['-d', '-k', '/FOLDER/none/s', '/dev/nosuchnbd'],
    ['-d', '--object', 'secret,id=t,data=a', '--tls-creds', 't', '/dev/nosuchnbd'],
    ['-d', '--fork', '--image-opts', '-f', 'raw', '/dev/nosuchnbd'], ['-d', '-c', '/dev/nosuchnbd', '/dev/nosuch2'],
    ['-d', '--tls-creds', 't', '--tls-authz', 'a', '/dev/nosuchnbd'],
    ['-f', 'raw', '--image-opts', '--tls-creds', 't', '-k', '/FOLDER/none/s', 'plain.raw'],
    ['-f', 'raw', '--image-opts', '-k', '/FOLDER/none/s', 'plain.raw'],
    ['-f', 'raw', '--image-opts', '-p', 'xx', 'plain.raw'],
    ['-f', 'raw', '--image-opts', '--fork', '-k', '/FOLDER/s', 'missing.img'],
    ['-f', 'raw', '--image-opts', '--pid-file', '/FOLDER/none/p', 'plain.raw'],
    ['-f', 'raw', '--image-opts', '-c', '/dev/nosuchnbd', 'plain.raw'],
    ['-c', '/dev/nosuchnbd', '-k', '/FOLDER/none/s', '-f', 'raw', 'plain.raw'],
    ['-c', '/dev/nosuchnbd', '-p', 'xx', '-f', 'raw', 'plain.raw'], ['-c', '/dev/nosuchnbd', 'missing.img'],
    ['-c', '/dev/nosuchnbd', '-l', 'none', '-f', 'qcow2', 'base.qcow2'],
    ['-c', '/dev/nosuchnbd', '-o', '2097152', '-f', 'raw', 'plain.raw'],
    ['-c', '/dev/nosuchnbd', '-B', 'none', '-f', 'qcow2', 'base.qcow2'],
    ['-c', '/dev/nosuchnbd', '--pid-file', '/FOLDER/none/p', '-f', 'raw', 'plain.raw'],
    ['-L', '-f', 'raw'], ['-L', '-l', 'x'], ['-L', '--detect-zeroes=on', '-k', '/FOLDER/none'],
    ['-f', 'raw', '-k', '/FOLDER/s', '-o', '-1', 'plain.raw'], ['-o', '-1', 'missing.img'],
    ['-x', 'x' * 5000, '-o', 'x', 'plain.raw'], ['-D', 'x' * 5000, '-e', 'x', 'plain.raw'],
    ['-e', ' 1 ', 'plain.raw'], ['-e', '+1', '-o', '+0', 'missing.img'],
    ['--image-opts', '-k', '/FOLDER/s', 'driver=raw,read-only=on,file.filename=plain.raw'],
    ['-L', 'x'], ['-L', '-x', 'a'], ['-L', '-o', '1'], ['-L', '-D', 'x'], ['-L', '-B', 'x'],
    ['-L', '-A'], ['-L', '--fork'], ['-L', '--cache=none'], ['-L', '-c', '/dev/nbd0'],
    ['-L', '-k', 'relative'], ['-L', '-k', '/FOLDER/none'], ['-L', '-k', '/' + 'x' * 200],
    ['-L', '-b', '127.0.0.1', '-p', '1'], ['-L', '-p', 'xx'],
    ['-k', 'relative', '-e', 'x', 'plain.raw'], ['-k', 'relative'], ['-k', 'relative', '-L', 'x'],
    ['-k', 'relative', 'plain.raw'], ['-k', '', 'plain.raw'], ['-k', '/' + 'x' * 200, 'plain.raw'],
    ['-k', '/FOLDER/none/s', '-f', 'raw', 'plain.raw'],
    ['-p', 'abc', '-f', 'raw', 'plain.raw'],
    ['--fork', '-k', '/FOLDER/none/s', '-f', 'raw', 'plain.raw'], ['--fork', 'missing.img'],
    ['-f', 'raw', '-k', '/FOLDER/s', '--pid-file', '/FOLDER/none/p', 'plain.raw'],
    ['-f', 'qcow2', '-k', '/FOLDER/s', '-B', 'none', 'base.qcow2'],
    ['-f', 'raw', '-k', '/FOLDER/s', '-B', 'b0', 'plain.raw'],
    ['-f', 'qcow2', '-k', '/FOLDER/s', '-l', 'none', 'base.qcow2'],
    ['-f', 'qcow2', '-k', '/FOLDER/s', '-l', 'snapshot.id=77', 'base.qcow2'],
    ['-f', 'qcow2', '-l', 'snapshot.x=77', 'base.qcow2'],
    ['-c', '/dev/nosuchnbd', '-f', 'raw', 'plain.raw'], ['-d', '/dev/nosuchnbd'], ['-d'],
    ['-x', 'x' * 5000, 'plain.raw'], ['-D', 'x' * 5000, 'plain.raw'],
]


@pytest.fixture(scope='module', name='link')
def fixture_link(tmp_path_factory):
    if not shutil.which(PROGRAM) or not shutil.which('nbdinfo'):
        pytest.skip(f'{PROGRAM} or nbdinfo is not installed')
    path = tmp_path_factory.mktemp('compat') / PROGRAM
    os.symlink(os.environ['PLATTER_BIN'], path)
    return path


@pytest.fixture(name='images')
def fixture_images(tmp_path):
    return make_images(tmp_path)


@pytest.fixture(scope='module', name='same_images')
def fixture_same_images(tmp_path_factory, link):
    return make_images(tmp_path_factory.mktemp('images'))


@pytest.mark.parametrize('line', REFUSED, ids=lambda line: ' '.join(line)[:60])
def test_refused_alike(line, link, same_images):
    line = [word.replace('/FOLDER', str(same_images)) for word in line]
    ours, theirs = (run([program, *line], cwd=same_images) for program in (link, PROGRAM))
    assert (ours.returncode, ours.stdout, ours.stderr) == \
        (theirs.returncode, theirs.stdout, theirs.stderr)
    assert ours.returncode == 1


# What differs on purpose: the line, how ours ends, and why.
DIFFERS = [
    (['-c', '/dev/nosuchnbd', '--fork', '-f', 'raw', 'plain.raw'], 1,
     'a device that is not there is told, and no success; the reference is in the background by then'),
    (['-d', 'plain.raw'], 1, 'what is no device has nothing to be taken off; the reference says that it is'),
]


@pytest.mark.parametrize('line,code,why', DIFFERS, ids=lambda part: ' '.join(part) if isinstance(part, list) else '')
def test_difference_is_there(line, code, why, link, same_images):
    """One that is gone leaves the list."""
    ours, theirs = (run([program, *line], cwd=same_images) for program in (link, PROGRAM))
    assert ours.returncode == code != theirs.returncode, why
    assert line[1] in ours.stderr


SERVED = [
    ['-f', 'raw', 'plain.raw'],
    ['-f', 'raw', '-r', '-e', '3', 'plain.raw'],
    ['-f', 'raw', '-e', '0', '-D', 'a text', '-x', 'a name', 'plain.raw'],
    ['-f', 'raw', '-o', '512', '-r', 'plain.raw'],
    ['-f', 'raw', '-o', '1048576', 'plain.raw'],
    ['-f', 'raw', '-n', '--aio=native', '--discard=unmap', '--detect-zeroes=unmap', 'plain.raw'],
    ['-f', 'raw', '--cache=writethrough', '--persist', 'plain.raw'],
    ['--image-opts', 'driver=raw,file.driver=file,file.filename=plain.raw,offset=512'],
    ['-f', 'qcow2', '-A', '-B', 'b0', '-B', 'b1', 'base.qcow2'],
    ['-f', 'qcow2', '-r', '-A', '-B', 'b1', 'over.qcow2'],
    ['-f', 'qcow2', '-B', 'b0', 'over.qcow2'],
    ['-f', 'qcow2', '-l', 'first', 'base.qcow2'],
    ['-f', 'qcow2', '-l', 'snapshot.id=1,snapshot.name=first', 'base.qcow2'],
    ['-f', 'qcow2', '-s', '-B', 'b0', 'base.qcow2'],
]

def looked_at(program, other, line, folder):
    with background(program, folder, '-t', *line) as server:
        return seen(server, other, folder)[0]


@pytest.mark.parametrize('line', SERVED, ids=' '.join)
def test_served_alike(line, link, images):
    theirs = looked_at(PROGRAM, link, line, images)
    ours = looked_at(link, link, line, images)
    assert ours == theirs
    assert 'exports available: 1\n' in ours[0]


def test_bitmap_as_clients_read_it(link, images):
    with background(link, images, '-t', '-f', 'qcow2', '-B', 'b0', 'base.qcow2') as server:
        assert run(['qemu-io', '-f', 'raw', '-c', 'write -q -P 9 768k 4k', server.uri()]).returncode == 0
        told = run(['nbdinfo', '--map=qemu:dirty-bitmap:b0', server.uri()])
    assert [line.split()[:3] for line in told.stdout.splitlines()] == [
        ['0', '65536', '0'], ['65536', '131072', '1'], ['196608', '327680', '0'],
        ['524288', '65536', '1'], ['589824', '196608', '0'], ['786432', '65536', '1'],
        ['851968', '196608', '0']]
    # and it is stored when the server has ended
    assert run(['qemu-img', 'bitmap', '--remove', 'base.qcow2', 'b0'], cwd=images).returncode == 0
    assert run(['qemu-img', 'check', '-q', 'base.qcow2'], cwd=images).returncode == 0


def test_ends_with_the_last_client(link, images):
    with background(link, images, '-f', 'raw', '-e', '2', 'plain.raw') as server:
        assert run([link, '-L', '-k', server.socket]).returncode == 0
        assert alive(server.pid)  # looking at the list is no use of the disk
        assert run(['nbdinfo', '--size', server.uri()]).stdout == '1048576\n'
        assert server.ended()


def test_scratch_layer(link, images):
    before = (images / 'base.qcow2').read_bytes()
    with background(link, images, '-s', '-t', '-f', 'qcow2', 'base.qcow2') as server:
        done = run(['qemu-io', '-f', 'raw', '-c', 'write -P 9 0 64k', '-c', 'read -P 9 0 64k',
                    '-c', 'read -P 3 64k 128k', server.uri()])
        assert done.returncode == 0, done.stdout
    assert (images / 'base.qcow2').read_bytes() == before


def test_clients_queue_for_a_place(link, images):
    """With one client at a time the next one waits before the door, and is then served."""
    with background(link, images, '-t', '-f', 'raw', 'plain.raw') as server:
        with subprocess.Popen(['qemu-io', '-f', 'raw', server.uri()], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as first:
            first.stdin.write('length\n')
            first.stdin.flush()
            while '1 MiB' not in first.stdout.readline():
                pass
            with subprocess.Popen(['nbdinfo', '--size', server.uri()], stdout=subprocess.PIPE,
                                  text=True) as second:
                assert second.poll() is None
                first.communicate('quit\n')
                assert second.communicate(timeout=60)[0] == '1048576\n'


def test_pid_file(link, images):
    """Its old content goes; who holds it keeps it."""
    (images / 'nbd.pid').write_text('garbage that is longer than a number\n', encoding='ascii')
    with background(link, images, '-t', '-f', 'raw', 'plain.raw') as server:
        assert (images / 'nbd.pid').read_text(encoding='ascii') == f'{server.pid}\n'
        done = run([link, '-f', 'qcow2', '-r', '-k', images / 'other', '--pid-file',
                    images / 'nbd.pid', images / 'base.qcow2'])
        assert done.returncode == 1
        assert done.stderr == 'qemu-nbd: Cannot lock pid file: Resource temporarily unavailable\n'
        done = run([link, '-f', 'raw', '-k', server.socket, '-r', 'null-co://'])
        assert done.returncode == 1
        assert done.stderr == \
            f'qemu-nbd: Failed to bind socket to {server.socket}: Address already in use\n'
        assert run(['nbdinfo', '--size', server.uri()]).returncode == 0


@pytest.mark.parametrize('count', ['1', '2'])
def test_socket_activation(link, images, count):
    listeners = []
    for i in range(int(count)):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(str(images / f'given{i}'))
        listeners[-1].listen()
    pid = os.fork()
    if pid == 0:
        high = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(listeners)]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i, inheritable=True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=count)
        os.execv(link, [str(link), '-f', 'raw', '-r', str(images / 'plain.raw')])
    last = images / f'given{int(count) - 1}'
    assert run(['nbdinfo', '--size', f'nbd+unix:///?socket={last}']).stdout == '1048576\n'
    assert os.waitpid(pid, 0)[1] == 0  # its last client has gone
    for s in listeners:
        s.close()


@pytest.mark.parametrize('options', [
    '-L', '-L --tls-authz x', '-k /tmp/x', '-k /tmp/x --tls-authz x', '-p 10810', '-b 127.0.0.1',
    '-b 127.0.0.1 -p 10810', '-c /dev/nbd0', '-c /dev/nbd0 --tls-creds x', '-d -k /tmp/x'])
def test_activation_has_its_sockets(options, link, images):
    disk = '' if options.startswith('-L') else '-f raw "$1"'
    done = [run(['sh', '-c', f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" {options} {disk} 3<&0', program,
                 images / 'plain.raw']) for program in (link, 'qemu-nbd')]
    assert done[0].returncode == done[1].returncode == 1
    assert done[0].stderr == done[1].stderr
    assert 'socket activation' in done[0].stderr


@pytest.mark.parametrize('options', ['-L', '-k /tmp/x', '-d', '--tls-authz x', '--trace file=/nosuch/t'])
def test_activation_without_a_socket(options, link, images):
    """It is told in front of what does not go together, behind a log that cannot be opened."""
    disk = '' if options == '-L' else '"$1"'
    done = [run(['sh', '-c', f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" {options} {disk} 3<&-', program,
                 images / 'plain.raw']) for program in (link, 'qemu-nbd')]
    assert done[0].returncode == done[1].returncode == 1
    assert done[0].stderr == done[1].stderr != ''


def test_part_of_a_snapshot(link, tmp_path):
    """Where it ends is told by the snapshot's own size, or by that of the disk for who stands in; the reference shows none of a
    part."""
    for line in (['create', '-q', '-f', 'qcow2', 'disk.qcow2', '2M'], ['snapshot', '-c', 'big', 'disk.qcow2'],
                 ['resize', '-q', '--shrink', 'disk.qcow2', '1M'], ['snapshot', '-c', 'small', 'disk.qcow2'],
                 ['resize', '-q', 'disk.qcow2', '1536k']):
        assert run(['qemu-img', *line], cwd=tmp_path).returncode == 0
    with background(link, tmp_path, '-t', '-f', 'qcow2', '-l', 'small', '-o', '65536', 'disk.qcow2') as server:
        assert run(['nbdinfo', '--size', server.uri()]).stdout == '1507328\n'
    words = 'Offset ({}) cannot be greater than size of the containing file ({})\n'
    line = ['nbd', '-k', tmp_path / 's', '-f', 'qcow2', '-l']
    for name, offset, size in (('small', 1310720, 1048576), ('big', 2097664, 2097152)):
        done = platter(*line, name, '-o', str(offset), 'disk.qcow2', cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, 'platter: nbd: ' + words.format(offset, size))
    with background([os.environ['PLATTER_BIN'], 'nbd'], tmp_path, '-t', '-f', 'qcow2', '-l', 'big', '-o', '1703936', 'disk.qcow2') as server:
        assert run(['nbdinfo', '--size', server.uri()]).stdout == '393216\n'
    # that of the disk itself is told first, as by the reference
    done = [run([program, '-l', 'big', '-o', '1703936', '-f', 'qcow2', 'disk.qcow2'], cwd=tmp_path)
            for program in (link, PROGRAM)]
    assert done[0].stderr == done[1].stderr == 'qemu-nbd: ' + words.format(1703936, 1572864)


def test_activation_is_for_one_process(link, images):
    """The variables of another process are not for this one."""
    with background(link, images, '-t', '-f', 'raw', 'plain.raw') as server:
        assert run(['env', 'LISTEN_PID=1', 'LISTEN_FDS=1', link, '-L', '-k', server.socket]).returncode == 0
    done = run(['sh', '-c', 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -f raw "$1" 3<&-', link,
                images / 'plain.raw'])
    assert done.returncode == 1
    assert done.stderr == 'qemu-nbd: Socket activation failed: invalid file descriptor fd = 3: ' \
        'Bad file descriptor\n'


@pytest.mark.parametrize('option', [
    ['--selinux-label', 'l'],
])
def test_what_is_not_there_is_refused_by_name(option, link, images):
    done = run([link, *option, '-f', 'raw', 'plain.raw'], cwd=images)
    assert done.returncode == 1
    assert 'not in this build' in done.stderr and option[0] in done.stderr


def test_objects_that_options_name(link, images):
    with background(link, images, '-t', '--object', 'throttle-group,id=tg,limits.iops-total=1000',
                    '--image-opts', 'driver=throttle,throttle-group=tg,file.driver=raw,'
                    'file.file.driver=file,file.file.filename=plain.raw') as server:
        assert run(['nbdinfo', '--size', server.uri()]).stdout == '1048576\n'
    done = run([link, '--object', 'nosuch,id=a', 'plain.raw'], cwd=images)
    assert done.returncode == 1 and 'nosuch' in done.stderr


def test_native_name(images):
    done = run([os.environ['PLATTER_BIN'], 'nbd', '-o', 'x', 'plain.raw'], cwd=images)
    assert done.stderr == "platter: nbd: Invalid offset 'x'\n" and done.returncode == 1
    with subprocess.Popen([os.environ['PLATTER_BIN'], 'nbd', '-v', '-f', 'raw', '-p', '0',
                           'plain.raw'], cwd=images, stderr=subprocess.PIPE, text=True) as server:
        uri = server.stderr.readline().strip()
        assert uri.startswith('nbd://127.0.0.1:')
        assert run(['nbdinfo', '--size', uri]).stdout == '1048576\n'
        assert server.wait(60) == 0


def test_a_regular_file_is_not_replaced_by_a_socket(link, images):
    before = (images / 'plain.raw').read_bytes()
    done = run([link, '-f', 'qcow2', '-k', images / 'plain.raw', images / 'base.qcow2'])
    assert done.returncode == 1 and 'plain.raw: File exists' in done.stderr
    assert (images / 'plain.raw').read_bytes() == before
