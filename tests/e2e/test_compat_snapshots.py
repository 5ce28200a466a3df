# SPDX-License-Identifier: MIT
"""Snapshots of an image that was resized since, by the names of the installed tools: as large as the disk is now.
By our own name one is as large as it was."""
import hashlib
import shutil

import pytest

from tools_common import called, needs, platter, run

pytestmark = needs('qcow2')
MIB = 1 << 20


@pytest.fixture(scope='module')
def links(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {program: called(folder, program) for program in ('qemu-img', 'qemu-nbd')}


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Each with a snapshot of 1 MiB; those of small clusters have another L1 table since."""
    if not shutil.which('qemu-img') or not shutil.which('qemu-io'):
        pytest.skip('qemu-img is not installed')
    folder = tmp_path_factory.mktemp('images')
    lines = [['qemu-img', 'create', '-q', '-f', 'raw', 'below', '4M'],
             ['qemu-io', '-f', 'raw', '-c', 'write -q -P 1 0 4M', 'below']]
    for cluster in ('512', '64k'):
        for name, size, below in (('grown', '3M', []), ('over', '3M', ['-b', 'below', '-F', 'raw']), ('shrunk', '512k', [])):
            image = f'{name}-{cluster}'
            lines += [['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', f'cluster_size={cluster}', *below, image, '1M'],
                      ['qemu-io', '-c', 'write -q -P 5 0 64k', '-c', 'write -q -P 6 960k 64k', image],
                      ['qemu-img', 'snapshot', '-c', 's', image],
                      ['qemu-img', 'resize', '-q', '--shrink', image, size],
                      ['qemu-io', '-c', 'write -q -P 8 64k 64k', *([] if name == 'shrunk' else ['-c', 'write -q -P 9 1M 64k']), image]]
    for line in lines:
        assert run(line, cwd=folder).returncode == 0
    return folder


IMAGES = [f'{name}-{cluster}' for name in ('grown', 'over', 'shrunk') for cluster in ('512', '64k')]


def told(done):
    return done.stdout, done.stderr, done.returncode


def held(path):
    return path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize('image', IMAGES)
def test_as_large_as_the_disk(image, links, images, tmp_path):
    answers = []
    for img, nbd in ((links['qemu-img'], links['qemu-nbd']), ('qemu-img', 'qemu-nbd')):
        answer = [told(run([img, 'measure', '-O', fmt, '-l', 's', image], cwd=images)) for fmt in ('raw', 'qcow2')]
        for text in ('s', '1', 'snapshot.name=s'):
            answer.append(told(run([img, 'convert', '-O', 'raw', '-l', text, image, tmp_path / 'raw'], cwd=images)))
            answer.append(held(tmp_path / 'raw'))
        answer.append(told(run([img, 'convert', '-O', 'qcow2', '-l', 's', image, tmp_path / 'qcow2'], cwd=images)))
        answer.append(told(run(['qemu-img', 'map', '--output=json', tmp_path / 'qcow2'])))
        # ends with its client
        answer.append(told(run([nbd, '--fork', '-r', '-k', tmp_path / 'socket', '-l', 's', image], cwd=images)))
        answer.append(told(run(['qemu-img', 'convert', '-f', 'raw', '-O', 'raw',
                                f'nbd+unix:///?socket={tmp_path}/socket', tmp_path / 'sent'])))
        answer.append(held(tmp_path / 'sent'))
        assert held(tmp_path / 'sent') == held(tmp_path / 'raw')
        answers.append(answer)
    assert answers[0] == answers[1]


@pytest.mark.parametrize('image', IMAGES)
def test_as_large_as_it_was(image, images, tmp_path):
    done = platter('convert', '-f', 'qcow2', '-O', 'raw', '-l', 's', image, tmp_path / 'raw', cwd=images)
    assert done.returncode == 0
    middle = b'\1' if image.startswith('over') else b'\0'
    assert (tmp_path / 'raw').read_bytes() == b'\5' * 65536 + middle * (MIB - 131072) + b'\6' * 65536
