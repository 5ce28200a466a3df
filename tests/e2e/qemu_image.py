# SPDX-License-Identifier: MIT
"""qcow2 images as the reference makes, fills and sees them."""
import json
import os

from tools_common import platter, qemu

CLUSTER = 65536
SIZE = 16 * CLUSTER


def qemu_img(*arguments, cwd):
    return qemu('qemu-img', *arguments, cwd=cwd)


def make(cwd, name, size=SIZE, backing=None, backing_format='qcow2', options=()):
    over = ('-b', backing, '-F', backing_format) if backing else ()
    done = qemu_img('create', '-q', '-f', 'qcow2', *options, *over, name, str(size), cwd=cwd)
    assert done.returncode == 0, done.stderr


def write(cwd, name, *commands, fmt='qcow2'):
    done = qemu('qemu-io', '-f', fmt, *(x for c in commands for x in ('-c', c)), name, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def content(cwd, name):
    out = os.path.join(cwd, name + '.content')
    done = qemu_img('convert', '-O', 'raw', name, out, cwd=cwd)
    assert done.returncode == 0, done.stderr
    with open(out, 'rb') as f:
        return f.read()


def allocated(cwd, name):
    """(offset, length, decided by this layer) as the reference maps it, without kinds of zeroes."""
    rows = json.loads(qemu_img('map', '--output=json', name, cwd=cwd).stdout)
    units = set()
    for row in rows:
        if row['depth'] == 0 and row['present']:
            units.update(range(row['start'] // CLUSTER, -(-(row['start'] + row['length']) // CLUSTER)))
    return units


def info(cwd, name):
    return json.loads(qemu_img('info', '--output=json', name, cwd=cwd).stdout)


def clean(cwd, name):
    done = qemu_img('check', name, cwd=cwd)
    assert done.returncode == 0, done.stdout
    done = platter('check', name, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def same_disk(cwd, a, b, fmt_a, fmt_b):
    """Must hold the same."""
    done = qemu_img('compare', '-f', fmt_a, '-F', fmt_b, a, b, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr


def scribble(cwd, name, size, rng):
    """Some random writes, zeroes and discards."""
    commands = []
    for _ in range(rng.randrange(1, 12)):
        at = 512 * rng.randrange(size // 512)
        n = min(512 * rng.randrange(1, 400), size - at)
        kind = rng.choice(['write -P {p} {a} {n}', 'write -P {p} {a} {n}', 'write -z {a} {n}',
                           'discard {a} {n}'])
        commands.append(kind.format(p=rng.randrange(1, 5), a=at, n=n))
    write(cwd, name, *commands)
