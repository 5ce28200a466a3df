# SPDX-License-Identifier: MIT
"""The fault filter under the name qemu-io beside the installed one: the same rules fail the same
commands."""
import os
import re
import shutil

import pytest

from tools_common import run

PROGRAM = 'qemu-io'
# The reference makes each write durable unless told otherwise.
WRITEBACK = ['-t', 'writeback']
FILTER = 'driver=blkdebug,image.driver=file,image.filename=disk.raw'
RAW = 'driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk.raw'
ALL = ['read 0 4k', 'write 4k 4k', 'write -z 8k 4k', 'discard 12k 4k', 'write 100 100',
       'write -z 100 3000', 'read 1 1']


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    if not shutil.which(PROGRAM):
        pytest.skip(f'{PROGRAM} is not installed')
    path = tmp_path_factory.mktemp('compat') / PROGRAM
    os.symlink(os.environ['PLATTER_BIN'], path)
    return path


def outcome(program, arguments, commands, folder, files=()):
    """What was printed but the times, and the disk. A failed flush is silent in the reference, and at
    the end told by us."""
    folder.mkdir()
    with open(folder / 'disk.raw', 'wb') as disk:
        disk.truncate(1 << 20)
    for name, content in files:
        (folder / name).write_text(content)
    words = [word for command in commands for word in ('-c', command)]
    done = run([program, *WRITEBACK, *arguments, *words], cwd=folder)
    held = (folder / 'disk.raw').read_bytes()
    shutil.rmtree(folder)
    text = re.sub(r'.* ops; .*\n|flush failed.*\n|.*the last flush failed\n', '',
                  done.stdout + done.stderr)
    return text, held


def same(link, folder, arguments, commands, files=()):
    want = outcome(PROGRAM, arguments, commands, folder / 'reference', files)
    assert outcome(link, arguments, commands, folder / 'ours', files) == want
    return want[0]


def rules(prefix, **values):
    return ''.join(f',{prefix}.{key}={value}' for key, value in values.items())


@pytest.mark.parametrize('event', ['none', 'read_aio', 'write_aio', 'flush_to_os', 'flush_to_disk',
                                   'pwritev', 'pwritev_zero', 'pwritev_done'])
def test_events(event, link, tmp_path):
    for iotype in ('read', 'write', 'write-zeroes', 'discard'):
        rule = rules('file.inject-error.0', event=event, iotype=iotype)
        same(link, tmp_path, ['--image-opts', RAW + rule], ALL + ['flush'] + ALL)


@pytest.mark.parametrize('event', ['pwritev', 'pwritev_rmw_head', 'pwritev_rmw_after_head',
                                   'pwritev_rmw_tail', 'pwritev_rmw_after_tail'])
def test_blocks(event, link, tmp_path):
    """Of a write that is no whole block."""
    rule = rules('inject-error.0', event=event, iotype='write', once='on')
    for command in ('write 512 1k', 'write 0 512', 'write 3584 512', 'write 512 8k', 'write 0 4k',
                    'write 512 3584', 'write -z 0 4k', 'write -z 512 512', 'write -z 512 8k'):
        same(link, tmp_path, ['--image-opts', FILTER + ',align=4096' + rule], [command, command])


@pytest.mark.parametrize('block', ['512 1k', '512 4k', '512 8k'])
def test_order_of_ends(block, link, tmp_path):
    """The tail is announced before the head was read where both are read at once."""
    rule = rules('set-state.0', event='pwritev_rmw_tail', new_state=2)
    rule += rules('inject-error.0', event='pwritev_rmw_after_head', state=2)
    same(link, tmp_path, ['--image-opts', FILTER + ',align=4096' + rule], ['write ' + block])


SETS = [
    # the first rule that fits counts, of errors as of states
    rules('file.inject-error.0', event='none', errno=5) +
    rules('file.inject-error.1', event='none', errno=28),
    rules('file.set-state.0', event='read_aio', new_state=2) +
    rules('file.set-state.1', event='read_aio', new_state=3) +
    rules('file.inject-error.0', event='read_aio', state=2, errno=28) +
    rules('file.inject-error.1', event='read_aio', state=3, errno=22),
    rules('file.set-state.0', event='read_aio', state=2, new_state=3) +
    rules('file.set-state.1', event='read_aio', state=1, new_state=2) +
    rules('file.inject-error.0', event='read_aio', state=2, errno=28) +
    rules('file.inject-error.1', event='read_aio', state=3, errno=22),
    # once, one after the other
    rules('file.inject-error.0', event='write_aio', errno=5, once='on') +
    rules('file.inject-error.1', event='write_aio', errno=28, once='on'),
    # a rule that is for another sector takes the place of what was armed; one of another state not
    rules('file.inject-error.0', event='read_aio', errno=28) +
    rules('file.inject-error.1', event='write_aio', errno=22, sector=9),
    rules('file.inject-error.0', event='read_aio', errno=28) +
    rules('file.inject-error.1', event='write_aio', errno=22, state=2),
    rules('file.inject-error.0', event='none', sector=1),
    rules('file.inject-error', event='none'),
]


@pytest.mark.parametrize('number', range(len(SETS)))
def test_sets(number, link, tmp_path):
    same(link, tmp_path, ['--image-opts', RAW + SETS[number]],
         ['read 0 512', 'write 4k 4k', 'read 512 512', 'read 600 10', 'write 0 1k', 'read 0 512'])


CONFIGS = [
    '[inject-error]\nevent = "read_aio"\nerrno = "28"\n',
    '# comment\n\n[inject-error "x"]\n  event = "write_aio"  \n errno = "5"\n once = "on"\n'
    '[inject-error]\nevent = "read_aio"\nerrno = "0x1c"',
    '[set-state]\nevent = "write_aio"\nstate = "1"\nnew_state = "2"\n'
    '[inject-error]\nevent = "write_aio"\nstate = "2"\nerrno = "5"\n',
    '[inject-error]\nevent = "read_aio"\nevent = "write_aio"\n',
    '[inject-error]\nerrno = "5"\n',
    '[bogus]\nevent = "read_aio"\n',
    'event = "read_aio"\n',
    'bogus\n',
    '',
]


@pytest.mark.parametrize('number', range(len(CONFIGS)))
def test_config_file(number, link, tmp_path):
    same(link, tmp_path, ['-f', 'raw', 'blkdebug:rules:disk.raw'],
         ['write 0 512', 'write 0 512', 'read 0 512'], [('rules', CONFIGS[number])])


@pytest.mark.parametrize('name', ['blkdebug::disk.raw', 'blkdebug:missing:disk.raw',
                                  'blkdebug:disk.raw', 'blkdebug::missing.raw', 'blkdebug:.:disk.raw'])
def test_file_name(name, link, tmp_path):
    same(link, tmp_path, ['-f', 'raw', name], ['write 0 512', 'length'])
    same(link, tmp_path, ['-f', 'blkdebug', name], ['write 0 512', 'length'])


def test_limits(link, tmp_path):
    """What is refused; how the reference names the disk then is its own affair."""
    for limits in ('align=3', 'align=4096,max-transfer=4097',
                   'align=4096,opt-write-zero=8192,max-write-zero=4096',
                   'align=4096,opt-discard=4095', 'opt-discard=8192,max-discard=12288'):
        told = []
        for name, program in (('reference', PROGRAM), ('ours', link)):
            text, _ = outcome(program, ['--image-opts', f'{FILTER},{limits}'], ['read 0 1'],
                              tmp_path / name)
            told.append(text.rpartition(': ')[2])
        assert told[0] == told[1] and 'Cannot meet' in told[0]
    same(link, tmp_path, ['--image-opts', FILTER + ',align=4096,max-transfer=8192,max-discard=4096,'
                          'opt-write-zero=8192,max-write-zero=16384'],
         ['write -P 1 0 100k', 'write -z 5000 50000', 'discard 60k 20k', 'read -P 1 0 5000',
          'read -P 0 5000 50000', 'read -P 1 80k 20k'])
