# SPDX-License-Identifier: MIT
"""What all the links have: long options cut short, options in front of a command, and --trace; each
line beside the installed tool. Compared are the exit code and what is told on standard error."""
import pytest

from tools_common import called, run

LINES = {
    'qemu-img': [
        '--bogus info', '-x', '--bogus=3', '--tr', '-T', '-T nope', '--tr nope nosuchcommand',
        '-T x=y info', '-T nope -T nuch --help', '-T enable=nope,events=/dev/null', '-T help', '-T ?',
        '-T enable=help info', '-T file=/nonexistent/log info', '-T events=/nonexistent/events info',
        '-T events=points info', '--trace=nope* info', '-T -nope info', '-- info', '-V info', '--vers',
        '--hel', '-h nosuchcommand', 'info --hel', 'info --forc', 'info --f=raw', 'info --o=json',
        'info --out', 'info --output', 'info --i=3', 'info --nosuch=3', 'map --m',
        'info --obj secret,id=s disk', 'info --obj bogus,id=s disk', 'create --o secret,id=s disk 1M',
        'create --o=s -f raw new 1M', 'convert --s', 'convert --sa', 'convert --target', 'convert --target-is', 'convert --im',
        'bitmap --me', 'bitmap --s', 'bitmap --source-f', 'resize --pre 3 1M', 'bench --flush',
        'bench --n', 'rebase --o', 'snapshot --im', 'compare --forc', 'dd --image', 'amend --for',
    ],
    'qemu-io': [
        '--n', '--na', '--c', '--ca', '--cac', '--tr', '--f', '--forc=2', '--i', '--bogus', '-x', '-c',
        '--cmd', '-T nope -c quit', '-T x=y -c quit', '-T events=points -c quit', '-T help', '--vers',
        '--object throttle-group,id=t -c quit', '--object bogus,id=t', '--object throttle-group',
        '--object secret,id=s', '--obj secret,id=s,data=x,file=y', '-V', '--hel', '-c quit -V', '-i x',
        '--d x', '--ai=x', '--di x', '--im -f raw x', '-T file=/nonexistent/log -c length nosuch',
        '-T file=/nonexistent/log --im -f raw x', '-T file=/nonexistent/log --object bogus,id=t',
    ],
    'qemu-nbd': [
        '--dis', '--dis=3', '--v', '--vers', '--l', '--t', '--tl', '--forma', '--fork=1', '--de', '--a',
        '--b', '--c', '--s', '--p', '--o', '-T nope', '-T x=y', '-T help', '-T events=points', '--hel',
        '--nosuch', '-Z', '-x', '--im=1',
    ],
    'qemu-storage-daemon': [
        '--b', '--pid', '-T', '-T help', '--tr', '--hel', '--vers', '--d=1', '--nosuch',
        '-x', '--e', '--c', '--m',
    ],
}

# What differs on purpose, and why.
DIFFERS = {
    ('qemu-img', '-xh'): 'the reference tells the argument in front of the one that is wrong',
    ('qemu-img', '-T , info'): 'a list that ends with a comma is refused',
    ('qemu-storage-daemon', '-T x=y'): 'the message does not begin with the option',
    ('qemu-storage-daemon', '-T nope --help'): 'the warning comes first',
    ('qemu-img', 'measure --s'): 'the reference prints its help',
}


@pytest.fixture(scope='module')
def links(tmp_path_factory):
    folder = tmp_path_factory.mktemp('compat')
    return {program: called(folder, program) for program in LINES}


def outcome(program, line, folder, name):
    folder.mkdir(exist_ok=True)
    (folder / 'points').write_text('# points\n\n-nosuch\nnothing\nno*\n', encoding='ascii')
    done = run([program, *line.split()], cwd=folder)
    told = done.stderr
    if name == 'qemu-io':  # the reference prints its usage; ours says where it is
        told = '\n'.join(row for row in told.splitlines() if 'Try ' not in row)
    return done.returncode, told.strip()


@pytest.mark.parametrize('program,line', [(program, line) for program, lines in LINES.items()
                                          for line in lines if (program, line) not in DIFFERS])
def test_same(program, line, links, tmp_path):
    assert outcome(links[program], line, tmp_path / 'work', program) == outcome(
        program, line, tmp_path / 'work', program)


@pytest.mark.parametrize('program,line', DIFFERS)
def test_difference_is_there(program, line, links, tmp_path):
    """One that is gone leaves the list."""
    assert outcome(links[program], line, tmp_path / 'work', program) != outcome(
        program, line, tmp_path / 'work', program)


def test_trace_goes_to_standard_error_or_a_file(links, tmp_path):
    (tmp_path / 'disk').write_bytes(bytes(4096))
    line = ['-T', 'node_*', 'info', '-f', 'raw', 'disk']
    told = run([links['qemu-img'], *line], cwd=tmp_path)
    assert told.returncode == 0 and ' node_open: ' in told.stderr
    (tmp_path / 'points').write_text('# nodes\nnode_*\n-node_close\n', encoding='ascii')
    line[1] = 'events=points,file=log'
    told = run([links['qemu-img'], *line], cwd=tmp_path)
    log = (tmp_path / 'log').read_text(encoding='ascii')
    assert told.stderr == '' and ' node_open: ' in log and 'node_close' not in log


def test_trace_of_io(links, tmp_path):
    (tmp_path / 'disk').write_bytes(bytes(4096))
    line = ['-T', 'enable=node_*,file=log', '-f', 'raw', '-c', 'read 0 512', 'disk']
    for program in [links['qemu-io']], [links['qemu-io'].resolve(), 'io']:
        told = run([*program, *line], cwd=tmp_path)
        assert told.returncode == 0 and told.stderr == ''
        assert ' node_open: ' in (tmp_path / 'log').read_text(encoding='ascii')
        (tmp_path / 'log').unlink()


def test_trace_of_io_that_lists_its_points_runs_nothing(links):
    told = run([links['qemu-io'].resolve(), 'io', '-c', 'help', '-T', 'help'])
    assert told.returncode == 0 and set(told.stdout.split()) >= {'node_open'}
    assert 'read' not in told.stdout.split()


def test_trace_of_native_program_knows_its_points(links, tmp_path):
    platter = links['qemu-io'].resolve()
    told = run([platter, 'io', '-T', 'nosuch', '-c', 'quit'])
    assert told.returncode == 2 and "no trace point 'nosuch'" in told.stderr
    told = run([platter, 'io', '-T', 'help'])
    assert told.returncode == 0 and 'node_open\n' in told.stdout


@pytest.mark.parametrize('limits', [
    'x-iops-total=10', 'x-iops-total=0x10', 'x-iops-total-max=5', 'x-iops-total=10,x-iops-total-max=5',
    'limits.iops-total=5,x-iops-total=7', 'x-iops-total=-1', 'x-iops-total=abc', 'x-iops-total=1e3',
    'x-iops-total=99999999999999999999', 'x-iops-size=4096', 'x-iops-total-max-length=0', 'x-bogus=1',
    'x-bps-read=3,x-iops-size=7,x-iops-read=2', 'x-iops-size=-7,x-iops-read=2'])
def test_older_names_of_limits(limits, links, tmp_path):
    line = f'--object throttle-group,id=t,{limits} --image-opts -c length ' \
           'driver=throttle,throttle-group=t,file.driver=null-co,file.size=1M'
    assert outcome(links['qemu-io'], line, tmp_path, '') == outcome('qemu-io', line, tmp_path, '')


def test_objects_limit_a_disk(links, tmp_path):
    """A throttle group of --object is one that options of the disk can name."""
    line = ['--object', 'throttle-group,id=slow,limits.iops-total=1000', '--image-opts', '-c', 'read 0 4k',
            'driver=throttle,throttle-group=slow,file.driver=null-co,file.size=1M,file.read-zeroes=on']
    assert 'read 4096/4096' in run([links['qemu-io'], *line]).stdout
    line[1] = 'throttle-group,id=other'
    told = run([links['qemu-io'], *line])
    assert told.returncode == 1 and 'slow' in told.stderr
