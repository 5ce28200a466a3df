# SPDX-License-Identifier: MIT
"""The fault filter under the name qemu-io beside the installed one: the same rules fail the same
commands."""
import os
import re
import shutil

import pytest

from tools_common import called, run

PROGRAM = 'qemu-io'
# The reference makes each write durable unless told otherwise.
WRITEBACK = ['-t', 'writeback']
FILTER = 'driver=blkdebug,image.driver=file,image.filename=disk.raw'
RAW = 'driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk.raw'
ALL = ['read 0 4k', 'write 4k 4k', 'write -z 8k 4k', 'discard 12k 4k', 'write 100 100',
       'write -z 100 3000', 'read 1 1']


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


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


@pytest.mark.parametrize('name', ['blkdebug::disk.raw', 'disk.raw'])
def test_breakpoint_words(name, link, tmp_path):
    """What is refused; how requests stop and go on is the matter of tests/driver/test_fault.c."""
    same(link, tmp_path, ['-f', 'raw', name], ['break nope A', 'resume B', 'remove_break C'])
    same(link, tmp_path, ['-f', 'raw', name], ['break write_aio A', 'remove_break A', 'write 0 512'])
    for word in ('break', 'resume', 'remove_break', 'wait_break'):
        same(link, tmp_path, ['-f', 'raw', name], [word, 'help ' + word])


def test_no_breakpoint_to_wait_for(link, tmp_path):
    """The reference waits for ever."""
    text, _ = outcome(link, ['-f', 'raw', 'disk.raw'], ['wait_break A'], tmp_path / 'ours')
    assert text == 'Could not wait for breakpoint: Operation not supported\n'


# ---- qcow2: which points an operation comes to ----

QCOW2_EVENTS = '''l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table l2_load l2_update
    l2_update_compressed l2_alloc_cow_read l2_alloc_write read_aio read_backing_aio read_compressed write_aio
    write_compressed vmstate_load vmstate_save cow_read cow_write reftable_load reftable_grow reftable_update
    refblock_load refblock_update refblock_update_part refblock_alloc refblock_alloc_hookup
    refblock_alloc_write refblock_alloc_write_blocks refblock_alloc_write_table
    refblock_alloc_switch_table cluster_alloc cluster_alloc_bytes cluster_free flush_to_os
    flush_to_disk cluster_alloc_space'''.split()
# options of the image, what is done to it before, and what is watched
WORK = {
    'allocate': ('cluster_size=65536', [],
                 ['write 0 4k', 'flush', 'write 100k 64k', 'flush', 'read 0 4k']),
    'copy': ('cluster_size=65536,backing_file=base,backing_fmt=raw', [],
             ['write 1k 1k', 'flush', 'read 500k 4k', 'write 2k 1k', 'flush']),
    'compress': ('cluster_size=65536', [],
                 ['write -c -P 3 0 64k', 'flush', 'read 0 4k', 'write 1k 1k', 'flush']),
    'free': ('cluster_size=65536', [], ['write 0 128k', 'flush', 'write -z 0 64k', 'flush',
                                        'discard 64k 64k', 'flush']),
    'grow': ('cluster_size=512,refcount_bits=64', ['write 0 900k', 'truncate 4M', 'write 1M 900k'],
             ['truncate 8M', 'write 2M 200k', 'flush']),
    'save state': ('cluster_size=65536', [], ['write -b -P 3 0 100k', 'write 0 4k', 'flush']),
    'load state': ('cluster_size=65536', ['write -b -P 3 0 100k'], ['read -b 0 100k', 'read -b 10 20']),
    'grow filled': ('cluster_size=65536', [], ['truncate -m metadata 4M', 'flush']),
    'unmap': ('cluster_size=65536', ['write 0 128k'],
              ['write -z -u 0 64k', 'flush', 'write -z 70k 1k', 'flush']),
    'reopen': ('cluster_size=65536', ['write 0 64k'],
               ['write 64k 1k', 'reopen -r', 'reopen -w', 'write 70k 1k']),
    'snapshot': ('cluster_size=65536', ['write 0 4k'], ['write 0 4k', 'flush', 'write 64k 64k', 'flush']),
}
END = 960 << 10  # what is read last, and may then fail
AT_ONCE = 4      # events watched in one run, a bit of the state for each
ERRORS = [2, 3, 5, 6, 7, 8, 9, 13, 14, 16, 17, 18, 19, 20, 21]  # one for each set of them


def make_qcow2(folder, work):
    options, before, _ = WORK[work]
    (folder / 'base').write_bytes(b'base' * (1 << 18))
    words = [word for command in [f'write {END} 512', *before] for word in ('-c', command)]
    for command in (['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, 'work.qcow2', '1M'],
                    ['qemu-io', *WRITEBACK, '-f', 'qcow2', 'work.qcow2', *words]):
        assert run(command, cwd=folder).returncode == 0
    if work == 'snapshot':
        assert run(['qemu-img', 'snapshot', '-c', 'x', 'work.qcow2'], cwd=folder).returncode == 0
    return (folder / 'work.qcow2').read_bytes()


def watch(events):
    """Rules by which the state is 1 + a mask of the events that were, and the last read tells it."""
    text = ''
    number = 0
    for bit, event in enumerate(events):
        for mask in range(1 << len(events)):
            if not mask & 1 << bit:
                text += rules(f'file.set-state.{number}', event=event, state=1 + mask,
                              new_state=1 + (mask | 1 << bit))
                number += 1
    for mask in range(1, 1 << len(events)):
        text += rules(f'file.inject-error.{mask - 1}', event='read_aio', state=1 + mask,
                      iotype='read', errno=ERRORS[mask - 1])
    return text


def points(program, folder, image, commands):
    seen = set()
    words = [word for command in commands for word in ('-c', command)]
    for at in range(0, len(QCOW2_EVENTS), AT_ONCE):
        events = QCOW2_EVENTS[at:at + AT_ONCE]
        (folder / 'work.qcow2').write_bytes(image)
        options = ('driver=qcow2,file.driver=blkdebug,file.image.driver=file,'
                   'file.image.filename=work.qcow2') + watch(events)
        done = run([program, *WRITEBACK, '-d', 'unmap', '--image-opts', options, *words], cwd=folder)
        assert "can't open" not in done.stderr, done.stderr
        for mask in range(1, 1 << len(events)):
            if done.stdout.rstrip().endswith(os.strerror(ERRORS[mask - 1])):
                seen.update(event for bit, event in enumerate(events) if mask & 1 << bit)
    return seen


# What differs on purpose, and why: the points of the reference alone, and of ours alone.
POINTS_DIFFER = {
    'state alone': ('cluster_size=65536', [], ['write -b -P 3 0 100k', 'flush'], set(), {'flush_to_disk'},
                    'a flush after nothing but VM state is not passed over'),
    'shrink': ('cluster_size=512', ['truncate 4M', 'write 2M 1M'], ['truncate 1M', 'flush'],
               {'cluster_alloc', 'l2_alloc_write', 'l2_update'}, {'refblock_alloc_hookup'},
               'no L2 tables are made for what is cut off'),
    'grow allocated': ('cluster_size=65536', [], ['truncate -m falloc 4M', 'flush'],
                       {'cluster_free', 'refblock_alloc_switch_table', 'refblock_alloc_write_blocks',
                        'refblock_alloc_write_table'}, {'reftable_update'},
                       'the refcount table has room, and stays where it is'),
}


@pytest.mark.parametrize('work', POINTS_DIFFER)
def test_qcow2_points_that_differ(work, link, tmp_path, monkeypatch):
    """One that is gone leaves the list."""
    options, before, commands, theirs, ours, _ = POINTS_DIFFER[work]
    monkeypatch.setitem(WORK, work, (options, before, commands))
    image = make_qcow2(tmp_path, work)
    commands = [*commands, f'read {END} 512']
    want = points(PROGRAM, tmp_path, image, commands)
    have = points(link, tmp_path, image, commands)
    assert (want - have, have - want) == (theirs, ours)


@pytest.mark.parametrize('work', WORK)
def test_qcow2_points(work, link, tmp_path):
    """In this order they may differ: the tables are written by a flush here, earlier in the reference."""
    image = make_qcow2(tmp_path, work)
    commands = [*WORK[work][2], f'read {END} 512']
    want = points(PROGRAM, tmp_path, image, commands)
    assert len(want) > 3
    assert points(link, tmp_path, image, commands) == want


BREAK = ['break write_aio A', 'aio_write -q -P 7 4k 4k', 'wait_break A']


def test_end_with_a_suspended_request(link, tmp_path):
    """The reference never ends here. Ours resumes the request, tells so, and counts it as a failure."""
    with open(tmp_path / 'disk.raw', 'wb') as disk:
        disk.truncate(1 << 20)
    words = [word for command in BREAK for word in ('-c', command)]
    for end in ([], ['-c', 'close'], ['-c', 'quit']):
        done = run([link, '--image-opts', RAW, *words, *end], cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == "qemu-io: request 'A' still waits at its breakpoint: it is resumed\n"
        assert (tmp_path / 'disk.raw').read_bytes()[4096:8192] == bytes([7]) * 4096


def test_waiting_for_all_with_a_suspended_request(link, tmp_path):
    with open(tmp_path / 'disk.raw', 'wb') as disk:
        disk.truncate(1 << 20)
    words = [word for command in [*BREAK, 'aio_flush', 'resume A', 'aio_flush', 'break read_aio B']
             for word in ('-c', command)]
    done = run([link, '--image-opts', RAW, *words], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "qemu-io: request 'A' waits at its breakpoint: resume it first\n"
