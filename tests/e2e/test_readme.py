# SPDX-License-Identifier: MIT
"""The commands of README.md's recipes do what they say, as written there."""
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from tools_common import formats

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def recipe(title):
    """The indented commands under the bold sentence that begins with title, comments taken off."""
    with open(os.path.join(TOP, 'README.md'), encoding='utf-8') as f:
        text = f.read().split('## Recipes')[1].split('\n## ')[0]
    part = text.split(f'**{title}')[1].split('\n**')[0]
    lines = re.findall(r'^    (\S.*)$', part, re.M)
    assert lines, title
    return [shlex.split(line.split('   #')[0]) for line in lines]


@pytest.fixture(name='folder')
def folder_fixture(tmp_path, monkeypatch):
    """An empty folder in which `platter` is the program under test and a disk of 2 MiB is there."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin' / 'platter').symlink_to(os.path.abspath(os.environ['PLATTER_BIN']))
    monkeypatch.setenv('PATH', f'{tmp_path}/bin:{os.environ["PATH"]}')
    (tmp_path / 'disk.raw').write_bytes(bytes(2 << 20))
    return tmp_path


def good(command, folder, **kwargs):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60,
                          check=False, **kwargs)
    assert done.returncode == 0, (command, done.stdout + done.stderr)
    return done.stdout


def test_serve_a_disk(folder):
    lines = recipe('Serve a disk')
    assert lines[0] == ['./run', 'disk.raw']  # installs packages: ./test runs ./run --check
    clients = [line for line in lines if line[0] in ('nbdinfo', 'nbdcopy')]
    servers = [line for line in lines if line[:2] == ['platter', 'serve']]
    creators = [line for line in lines if line[:2] == ['platter', 'create']]
    assert len(clients) == 2 and len(servers) == 2 and len(creators) == 1
    good(creators[0], folder)
    assert os.path.getsize(folder / 'disk.raw') == 10 << 30
    os.truncate(folder / 'disk.raw', 2 << 20)
    for server in servers:
        server = [w.replace('/tmp/disk.sock', str(folder / 's')) for w in server]
        server = ['0' if w == '10809' else w for w in server]
        with subprocess.Popen(server, cwd=folder, stdout=subprocess.PIPE, text=True,
                              stdin=subprocess.DEVNULL) as process:
            try:
                uri = process.stdout.readline().strip()
                assert uri.startswith('nbd')
                for client in clients:
                    if shutil.which(client[0]):
                        good([uri if w.startswith('nbd+unix:') else w for w in client], folder)
            finally: # leaving the block waits for it
                process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert os.path.getsize(folder / 'copy.raw') == 2 << 20


def test_try_a_disk(folder):
    out = [good(line, folder) for line in recipe('Try a disk')]
    assert 'wrote 65536/65536' in out[0] and 'Run completed' in out[1] and 'virtual-size' in out[2]
    assert 'each cell is' in out[3] and (folder / 'disk.svg').exists()


def test_say_the_format(folder):
    if 'qcow2' not in formats():
        pytest.skip('this build has no qcow2')
    out = [good(line, folder) for line in recipe('Say the format')]
    assert 'file format: raw' in out[0] and (folder / 'guessed.qcow2').exists()


def test_convert(folder):
    if 'qcow2' not in formats():
        pytest.skip('this build has no qcow2')
    (folder / 'disk.raw').write_bytes(os.urandom(1 << 20) + bytes(1 << 20))
    out = [good(line, folder) for line in recipe('Convert.')]
    assert '(100.00/100%)' in out[0] and '"percent": 100.00' in out[2]
    assert out[3] == 'Images are identical.\n'
    assert os.path.getsize(folder / 'first.raw') == 1 << 20


def test_convert_through_a_pipe(folder):
    if 'qcow2' not in formats():
        pytest.skip('this build has no qcow2')
    for line in recipe('Convert through a pipe'):
        good(['bash', '-o', 'pipefail', '-c', ' '.join(line)], folder)
    good(['platter', 'compare', '-f', 'raw', '-F', 'qcow2', 'disk.raw', 'from-pipe.qcow2'], folder)


def test_tell_whether_it_is_the_same(folder):
    out = [good(line, folder) for line in recipe('Tell whether')]
    assert out[0].startswith('tree1-sha256:') and out[2].startswith('tree1-sha256:')
    assert hashlib.sha256(bytes(2 << 20)).hexdigest() in out[1]


def test_keep_the_changes_apart(folder):
    if 'qcow2' not in formats():
        pytest.skip('this build has no qcow2')
    out = dict(zip((line[1] for line in recipe('Keep the changes')),
                   [good(line, folder) for line in recipe('Keep the changes')]))
    assert 'No errors' in out['check'] and 'work.qcow2' in out['map'] and 'required size' in out['measure']
    assert 'since-before' in out['inspect'] and 'Image committed' in out['commit']
    assert 'Image compacted' in out['compact']
    with open(folder / 'disk.raw', 'rb') as f:
        f.seek(1 << 20)
        assert f.read(65536) == b'\7' * 65536


def test_work_on_an_export(folder):
    lines = recipe('Work on a disk')
    if 'nbd' not in formats():
        pytest.skip('this build has no nbd')
    with subprocess.Popen(['platter', 'serve', '-f', 'raw', '-k', 's', 'disk.raw'], cwd=folder,
                          stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout.readline().startswith('nbd+unix:')
            out = [good([w.replace('SOCKET', 's') for w in line], folder) for line in lines]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert 'No errors' in out[1] and 'read 4096/4096' in out[2]


def test_stand_in_for_qemu_nbd(folder):
    if 'qcow2' not in formats() or 'nbd' not in formats():
        pytest.skip('this build has no qcow2, or no nbd')
    for line in (['create', '-q', '-f', 'qcow2', 'work.qcow2', '1M'],
                 ['bitmap', '-f', 'qcow2', '--add', 'work.qcow2', 'since-before']):
        good(['platter', *line], folder)
    lines = [[w.replace('SOCKET', str(folder / 's')) for w in line]
             for line in recipe('Stand in for qemu-nbd')]
    good(lines[0], folder)
    try:
        assert 'description: a disk' in good(lines[1], folder)
        if shutil.which('nbdinfo'):
            assert 'clean' in good(lines[2], folder)
    finally:
        os.kill(int((folder / 'nbd.pid').read_text()), signal.SIGTERM)


def test_let_nobody_listen(folder):
    if 'nbd' not in formats() or not shutil.which('psktool'):
        pytest.skip('this build has no nbd, or psktool is not installed')
    lines = [[w.replace('SOCKET', str(folder / 's')) for w in line] for line in recipe('Let nobody listen')]
    for line in lines[:3]:
        good(line, folder)
    try:
        assert 'virtual size: 2 MiB' in good(lines[3], folder)
        assert 'with TLS' in good(lines[4], folder)
    finally:
        os.kill(int((folder / 'tls.pid').read_text()), signal.SIGTERM)


def test_link_the_library(folder):
    """With the library and headers installed under a prefix from the build folder."""
    build = os.environ.get('PLATTER_BUILD')
    if not build or not shutil.which('meson') or not shutil.which('cc'):
        pytest.skip('needs PLATTER_BUILD, meson and cc')
    with open(os.environ['PLATTER_BIN'], 'rb') as f:
        if b'__asan_init' in f.read():
            pytest.skip('the recipe links without the sanitizer')
    installed = subprocess.run(['meson', 'install', '--no-rebuild', '-C', build, '--destdir', folder / 'd'],
                               capture_output=True, text=True, timeout=60, check=False)
    if installed.returncode != 0:
        pytest.skip('not everything is built: ' + installed.stderr[-200:])
    pc = next((folder / 'd').rglob('platter.pc'))
    env = dict(os.environ, PKG_CONFIG_PATH=str(pc.parent), PKG_CONFIG_SYSROOT_DIR=str(folder / 'd'),
               LD_LIBRARY_PATH=str(pc.parent.parent))
    (folder / 'examples').symlink_to(os.path.join(TOP, 'examples'))
    compile_line, run_line = [' '.join(line) for line in recipe('Link the library')]
    good(['sh', '-c', compile_line], folder, env=env)
    assert good(['sh', '-c', run_line], folder, env=env)


def test_run_a_daemon(folder):
    daemon, monitor, client, top = recipe('Run a daemon')
    good(daemon, folder)
    pid = int((folder / 'daemon.pid').read_text())
    try:
        told = good(monitor, folder, input='{"execute":"qmp_capabilities"} {"execute":"query-block"}\n')
        assert '"device": "drive"' in told and '"io-status": "ok"' in told
        assert 'export-size: 2097152' in good(client, folder)
        assert 'drive' in good(top, folder)
    finally:
        os.kill(pid, signal.SIGTERM)
        for _ in range(600):
            if not (folder / 'daemon.pid').exists():
                break
            time.sleep(0.1)
    assert not (folder / 'daemon.pid').exists() and not (folder / 'qmp.sock').exists()
