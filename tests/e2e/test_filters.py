# SPDX-License-Identifier: MIT
"""Filters of platter io beside those of qemu-io."""
import json

import pytest

from tools_common import platter, qemu


def io(who, *arguments):
    if who == 'ours':
        return platter('io', '--image-opts', *arguments)
    return qemu('qemu-io', '--image-opts', *arguments)


def chain(folder):
    folder.mkdir()
    base, top = folder / 'base', folder / 'top'
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', base, '1M').returncode == 0
    for what in ('-P 7 0 64k', '-P 7 100k 3k', '-P 7 512k 128k', '-z 640k 64k', '-P 0 704k 128k',
                 '-P 7 960k 64k', '-z 976k 8k'):
        assert qemu('qemu-io', '-c', f'write {what}', base).returncode == 0
    made = qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base, top)
    assert made.returncode == 0
    return top


def test_copy_on_read_allocates_as_the_reference(tmp_path):
    commands = ['read -P 7 0 512', 'read 99k 10k', 'write -P 9 520k 1k', 'read 448k 128k',
                'read -P 0 650k 4k', 'read -P 0 710k 4k', 'read -P 0 760k 80k', 'read 975k 10k']
    maps = []
    for who in 'ours', 'theirs':
        top = chain(tmp_path / who)
        options = f'driver=copy-on-read,file.driver=qcow2,file.file.filename={top}'
        args = [a for c in commands for a in ('-c', c)]
        result = io(who, *args, options)
        assert result.returncode == 0, result
        assert qemu('qemu-img', 'rebase', '-u', '-b', '', top).returncode == 0
        shown = json.loads(qemu('qemu-img', 'map', '--output=json', top).stdout)
        maps.append([(e['start'], e['length'], e['data'], e['zero']) for e in shown])
        for at, byte in (('0 64k', 7), ('100k 3k', 7), ('520k 1k', 9), ('521k 50k', 7)):
            assert 'Pattern' not in qemu('qemu-io', '-c', f'read -P {byte} {at}', top).stdout
        assert qemu('qemu-img', 'check', top).returncode == 0
    assert maps[0] == maps[1]


@pytest.mark.parametrize('options, words', [
    ('driver=throttle,throttle-group=fast,file.driver=null-co', "'fast' does not exist"),
    ('driver=throttle,file.driver=null-co', 'throttle-group'),
    ('driver=copy-on-read,bottom=x,file.driver=null-co', "'x'"),
])
def test_refusals(options, words):
    ours, theirs = (io(who, '-c', 'read 0 512', options) for who in ('ours', 'theirs'))
    assert ours.returncode == theirs.returncode == 1
    assert words in ours.stderr
