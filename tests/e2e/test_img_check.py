# SPDX-License-Identifier: MIT
"""platter check beside qemu-img check: exit codes, lines, members, repair."""
import json
import shutil

import pytest

from tools_common import needs, platter, qemu, same_json

CLUSTER = 65536


def poke(path, offset, data):
    with open(path, 'r+b') as f:
        f.seek(offset)
        f.write(data)


def image(tmp_path, name='d.qcow2'):
    """Header, refcount table 1, refcount block 2, L1 3, L2 4, data from 5 on."""
    path = tmp_path / name
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', path, '16M')
    qemu('qemu-io', '-c', 'write 0 1M', '-c', 'write -c 5M 64k', '-c', 'write -z 6M 64k', path)
    return path


def leak(path, cluster=40):
    poke(path, 2 * CLUSTER + 2 * cluster, b'\0\1')
    with open(path, 'r+b') as f:
        f.truncate((cluster + 1) * CLUSTER)


def refcount(path, cluster, value):
    poke(path, 2 * CLUSTER + 2 * cluster, value.to_bytes(2, 'big'))


DAMAGE = {
    'none': lambda path: None,
    'leak': leak,
    'refcount too low': lambda path: refcount(path, 7, 0),
    'refcount too high': lambda path: refcount(path, 7, 3),
    'data twice': lambda path: poke(path, 4 * CLUSTER + 8 * 30, (0x8000000000050000)
                                    .to_bytes(8, 'big')),
    'data not aligned': lambda path: poke(path, 4 * CLUSTER, 0x8000000000000200.to_bytes(8, 'big')),
    'data outside': lambda path: poke(path, 4 * CLUSTER, 0x800000000f000000.to_bytes(8, 'big')),
    'l2 outside': lambda path: poke(path, 3 * CLUSTER, 0x8000007f00000000.to_bytes(8, 'big')),
}


@needs('qcow2')
@pytest.mark.parametrize('damage', DAMAGE)
def test_same_code_lines_and_members(tmp_path, damage):
    path = image(tmp_path)
    DAMAGE[damage](path)
    before = path.read_bytes()
    ours, theirs = platter('check', path), qemu('qemu-img', 'check', path)
    assert ours.returncode == theirs.returncode
    assert ours.stdout == theirs.stdout
    ours = platter('check', '--output=json', '-f', 'qcow2', path)
    theirs = qemu('qemu-img', 'check', '--output=json', '-f', 'qcow2', path)
    assert ours.returncode == theirs.returncode
    assert same_json(ours, theirs)
    assert set(json.loads(ours.stdout)) == set(json.loads(theirs.stdout))
    assert path.read_bytes() == before


@needs('qcow2')
@pytest.mark.parametrize('how', ['leaks', 'all'])
@pytest.mark.parametrize('damage', ['none', 'leak', 'refcount too high'])
def test_repair_as_the_reference_does(tmp_path, damage, how):
    ours, theirs = image(tmp_path, 'ours.qcow2'), tmp_path / 'theirs.qcow2'
    DAMAGE[damage](ours)
    shutil.copy(ours, theirs)
    a, b = platter('check', '-r', how, ours), qemu('qemu-img', 'check', '-r', how, theirs)
    assert (a.returncode, a.stdout) == (b.returncode, b.stdout)
    assert qemu('qemu-img', 'check', ours).returncode == b.returncode


@needs('qcow2')
@pytest.mark.parametrize('damage', ['refcount too low', 'data twice'])
def test_repair_all_ends_clean(tmp_path, damage):
    path = image(tmp_path)
    DAMAGE[damage](path)
    disk = tmp_path / 'before.raw'
    qemu('qemu-img', 'convert', '-O', 'raw', path, disk)
    done = platter('check', '-r', 'all', '--output=json', path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts['corruptions-fixed'] > 0 and 'corruptions' not in facts
    assert qemu('qemu-img', 'check', path).returncode == 0
    assert qemu('qemu-img', 'compare', path, disk).returncode == 0


@needs('qcow2')
def test_findings_go_to_stderr_and_quiet_silences_the_rest(tmp_path):
    path = image(tmp_path)
    leak(path)
    done = platter('check', '-q', path)
    assert (done.returncode, done.stdout) == (3, '')
    assert 'Leaked cluster 40 refcount=1 reference=0' in done.stderr


@needs('qcow2')
def test_a_missing_backing_file_does_not_stop_the_check(tmp_path):
    base, path = tmp_path / 'base.raw', tmp_path / 'd.qcow2'
    qemu('qemu-img', 'create', '-q', '-f', 'raw', base, '1M')
    qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', path)
    base.unlink()
    assert platter('check', path).returncode == 0


def test_formats_without_a_check(tmp_path):
    path = tmp_path / 'd.raw'
    path.write_bytes(bytes(1 << 20))
    for arguments in ([], ['--output=json'], ['-f', 'raw']):
        ours = platter('check', *arguments, path)
        theirs = qemu('qemu-img', 'check', *arguments, path)
        assert ours.returncode == theirs.returncode == 63
        assert 'This image format does not support checks' in ours.stderr
        assert ours.stdout == theirs.stdout == ''


@pytest.mark.parametrize('arguments, message', [
    ([], 'which FILE?'),
    (['a', 'b'], "'b' is too much"),
    (['-r', 'some', 'a'], "expecting 'leaks' or 'all'"),
    (['--output=xml', 'a'], "no output form 'xml'"),
    (['-T', 'bad', 'a'], "no cache mode 'bad'"),
    (['nofile'], 'No such file or directory'),
    (['--nope', 'a'], "no option '--nope'"),
])
def test_a_wrong_command_line_is_no_verdict(tmp_path, arguments, message):
    done = platter('check', *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ''
    assert message in done.stderr
