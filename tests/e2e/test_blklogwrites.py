# SPDX-License-Identifier: MIT
"""The log of the filter blklogwrites beside that of the installed qemu-io: the same bytes."""

import pytest

from tools_common import called, run

PROGRAM = 'qemu-io'
COMMANDS = [['write -P 1 0 1k', 'write -P 2 4k 512', 'flush', 'write -P 3 100 10', 'read 0 4k'],
            ['write -z 16k 4k', 'discard 32k 4k', 'flush', 'flush', 'write 0 64k'],
            ['read 0 4k'],
            ['write 0 512', 'write 1k 512', 'write 2k 512', 'write 3k 512']]


@pytest.fixture(scope='module')
def link(tmp_path_factory):
    return called(tmp_path_factory.mktemp('compat'), PROGRAM)


def logged(program, runs, folder):
    """The log after several runs: (options, commands) each."""
    folder.mkdir()
    (folder / 'log').write_bytes(b'')
    with open(folder / 'disk', 'wb') as disk:
        disk.truncate(1 << 20)
    for options, commands in runs:
        words = [word for command in commands for word in ('-c', command)]
        done = run([program, '-t', 'writeback', '-d', 'unmap', '--image-opts',
                    'driver=blklogwrites,file.driver=file,file.filename=disk,'
                    'log.driver=file,log.filename=log' + options, *words], cwd=folder)
        assert done.returncode == 0, done.stderr
    return (folder / 'log').read_bytes()


@pytest.mark.parametrize('options', ['', ',log-sector-size=4096', ',log-super-update-interval=1',
                                     ',log-append=on'])
@pytest.mark.parametrize('number', range(len(COMMANDS)))
def test_same_log(number, options, link, tmp_path):
    runs = [(options, COMMANDS[number])]
    assert logged(link, runs, tmp_path / 'ours') == logged(PROGRAM, runs, tmp_path / 'reference')


def test_same_log_continued(link, tmp_path):
    runs = [('', COMMANDS[0]), (',log-append=on', COMMANDS[1]), (',log-append=on', COMMANDS[3])]
    assert logged(link, runs, tmp_path / 'ours') == logged(PROGRAM, runs, tmp_path / 'reference')
