# SPDX-License-Identifier: MIT
"""What messages call a disk: by what the user gave, never by a name that was made for a node."""
import pytest

from tools_common import called, needs, platter, qemu, run

pytestmark = needs('qcow2')

FILE = 'file.driver=file,file.filename=disk.raw'
LINES = [
    (['compact', '--drop-same', '-f', 'qcow2', 'base.qcow2'], "Node 'base.qcow2' has no backing file"),
    (['snapshot', '-f', 'raw', '-c', 'x', 'disk.raw'],
     "Could not create snapshot 'x': Driver 'raw' of node 'disk.raw' does not support creating internal snapshots"),
    (['bitmap', '-f', 'raw', '--add', 'disk.raw', 'x'],
     "Operation add on bitmap x failed: Can't store persistent bitmaps to disk.raw: Operation not supported"),
    (['bitmap', '--image-opts', '--add', 'driver=null-co', 'x'],
     "Operation add on bitmap x failed: Can't store persistent bitmaps to null-co://: Operation not supported"),
    (['bitmap', '--image-opts', '--add', 'driver=raw,file.driver=mem,file.size=1M', 'x'],
     "Operation add on bitmap x failed: Can't store persistent bitmaps to mem:1048576: Operation not supported"),
    (['info', '--image-opts', f'driver=copy-on-read,{FILE},bottom=q'],
     "Bottom node 'q' is not in the backing chain of node 'disk.raw'"),
    (['resize', '--image-opts', f'driver=copy-on-read,read-only=on,{FILE}', '3M'],
     "Block node is read-only\nNode 'disk.raw' is read-only, but block device 'disk' needs permission 'write' as 'root'"),
    # a name that somebody gave is one
    (['compact', '--drop-same', '--image-opts', 'driver=qcow2,node-name=mine,file.driver=file,file.filename=base.qcow2'],
     "Node 'mine' has no backing file"),
]


@pytest.fixture(name='folder')
def folder_fixture(tmp_path):
    (tmp_path / 'disk.raw').write_bytes(bytes(1 << 20))
    assert qemu('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '1M', cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.mark.parametrize('line, message', LINES, ids=[' '.join(line) for line, _ in LINES])
def test_names_in_messages(folder, line, message):
    done = platter(*line, cwd=folder)
    assert (done.returncode, done.stderr) == (1, f'platter: {line[0]}: {message}\n')


def test_a_stand_in_names_nodes(folder):
    """As the reference does."""
    done = run([called(folder, 'qemu-img'), 'bitmap', '-f', 'raw', '--add', 'disk.raw', 'x'], cwd=folder)
    assert "Can't store persistent bitmaps to #block" in done.stderr
