# SPDX-License-Identifier: MIT
"""Programs of io commands on disks of many kinds: running one through qemu-io or the link of that
name, on a fresh copy of its disk, and what there is to be compared afterwards."""
import json
import os
import re
import shlex
import shutil
import subprocess
import time

from tools_common import run

PROGRAM = 'qemu-io'


def content(path):
    with open(path, 'wb') as f:
        f.write(b'\1' * 4096 + bytes(range(256)) * 16)
        f.truncate(1 << 20)


def image(*arguments):
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', *arguments], check=True,
                   stdout=subprocess.DEVNULL)


def written(name, *commands):
    subprocess.run([PROGRAM, '-f', 'qcow2', *[w for c in commands for w in ('-c', c)], name],
                   check=True, stdout=subprocess.DEVNULL)


def overlay(name, backing, fmt):
    image('-b', backing, '-F', fmt, name)


def compressed():
    image('compressed.qcow2', '1M')
    written('compressed.qcow2', 'write -c -P 3 0 64k', 'write -c -P 4 128k 64k',
            'write -P 5 256k 64k', 'write -z 320k 64k')


def deep():
    overlay('deep.qcow2', 'overlay.qcow2', 'qcow2')
    written('overlay.qcow2', 'write -P 6 64k 64k', 'write -z 192k 64k')
    written('deep.qcow2', 'write -P 7 100k 1k')


# A disk: its file, its format, how it is made in the current folder.
DISKS = {
    'raw': ('raw.raw', 'raw', lambda: content('raw.raw')),
    'qcow2': ('qcow2.qcow2', 'qcow2', lambda: image('qcow2.qcow2', '1M')),
    'v2': ('v2.qcow2', 'qcow2', lambda: image('-o', 'compat=0.10', 'v2.qcow2', '1M')),
    'small': ('small.qcow2', 'qcow2', lambda: image('-o', 'cluster_size=512', 'small.qcow2', '1M')),
    'ext': ('ext.qcow2', 'qcow2', lambda: image('-o', 'extended_l2=on', 'ext.qcow2', '1M')),
    'datafile': ('datafile.qcow2', 'qcow2',
                 lambda: image('-o', 'data_file=data.raw', 'datafile.qcow2', '1M')),
    'lazy': ('lazy.qcow2', 'qcow2', lambda: image('-o', 'lazy_refcounts=on', 'lazy.qcow2', '1M')),
    'zstd': ('zstd.qcow2', 'qcow2', lambda: image('-o', 'compression_type=zstd', 'zstd.qcow2', '1M')),
    'full': ('full.qcow2', 'qcow2', lambda: image('-o', 'preallocation=full', 'full.qcow2', '1M')),
    'overlay': ('overlay.qcow2', 'qcow2', lambda: overlay('overlay.qcow2', 'other.raw', 'raw')),
    'nbd': ('nbd+unix:///?socket=nbd.sock', 'raw', lambda: content('nbd.raw')),
}
# Disks of the random programs alone.
MORE_DISKS = {
    'compressed': ('compressed.qcow2', 'qcow2', compressed),
    'deep': ('deep.qcow2', 'qcow2', deep),
    'bits': ('bits.qcow2', 'qcow2',
             lambda: image('-o', 'refcount_bits=1,cluster_size=4k', 'bits.qcow2', '1000k')),
}


def make_models(folder, disks):
    """Every disk, to be copied."""
    before = os.getcwd()
    os.chdir(folder)
    content('other.raw')
    for _, _, make in disks.values():
        make()
    os.chdir(before)


def masked(text):
    text = re.sub(r'\d+(:\d\d)*\.\d\d sec \(.*/sec\)|\d+:\d\d:\d\d\.\d\d \(.*/sec\)', 'TIME', text)
    text = re.sub(r'^((?:qemu-io> )*\d+,1),\d+:.*$', r'\1,TIME', text, flags=re.M)
    return re.sub(r"'#block\d+'", 'NODE', text)


def nbd_server(folder):
    socket = os.path.join(folder, 'nbd.sock')
    server = subprocess.Popen(['qemu-nbd', '-t', '-e', '4', '-f', 'raw', '--discard=unmap', '-k', socket,
                               os.path.join(folder, 'nbd.raw')])
    while not os.path.exists(socket) and server.poll() is None:
        time.sleep(0.01)
    return server


def place(disk, models, folder):
    """The disk's files, and those that others may be opened from, in a new folder."""
    folder.mkdir()
    for name in os.listdir(models):
        if name in ('other.raw', 'overlay.qcow2') or name.startswith(f'{disk}.') or \
                (disk == 'datafile' and name.startswith('data.')):
            shutil.copy(models / name, folder)


def checked(path):
    return subprocess.run(['qemu-img', 'check', '-U', path], capture_output=True, check=False).returncode


def described(path):
    """What an image says of itself, and what a client reads of it, by the reference."""
    info = run(['qemu-img', 'info', '-U', '--output=json', '-f', 'qcow2', path])
    copy = path.with_suffix('.copy')
    done = run(['qemu-img', 'convert', '-U', '-f', 'qcow2', '-O', 'raw', path, copy])
    facts = json.loads(info.stdout) if info.returncode == 0 else {}
    facts.pop('actual-size', None)
    held = facts, done.stderr, copy.read_bytes() if copy.exists() else None
    copy.unlink(missing_ok=True)
    return held


def outcome(program, disk, options, commands, models, folder, stdin=None, described_too=False):
    """(stdout, stderr, exit code), {file: content}, [what a check of each image says]"""
    place(disk, models, folder)
    arguments = shlex.split(options)
    if disk and '--image-opts' not in options:
        file, fmt, _ = (DISKS | MORE_DISKS)[disk]
        arguments += ['-f', fmt, file]
    for c in commands:
        arguments += ['-c', c]
    server = nbd_server(folder) if disk == 'nbd' else None
    try:
        done = run([program, *arguments], cwd=folder, stdin=stdin)
    finally:
        if server:
            server.terminate()
            server.wait()
    files = sorted(os.listdir(folder))
    held = {name: (folder / name).read_bytes() for name in files if name.endswith('.raw')}
    images = [name for name in files if name.endswith('.qcow2')] if disk else []
    checks = [checked(folder / name) for name in images]
    if described_too:
        held |= {name: described(folder / name) for name in images}
    shutil.rmtree(folder)
    return (masked(done.stdout), masked(done.stderr), done.returncode), held, checks


def same(ours, theirs):
    """Asserts that two outcomes are."""
    assert ours[0] == theirs[0]
    for name, held in theirs[1].items():
        assert ours[1][name] == held, name
    # a check finds no more than in the disk of the reference, which may leak
    assert all(mine in (0, other) for mine, other in zip(ours[2], theirs[2], strict=True))
