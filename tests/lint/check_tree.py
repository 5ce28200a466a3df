#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The rules of the house that a machine can read (ARCHITECTURE.md, "Floors"):
includes never point up, nor sideways between drivers; drivers see only block/driver.h of the block
floor; headers, files and functions keep their size; the library neither prints nor exits nor keeps mutable
state in files above os/ (`--objects DIR` looks at the objects of a build for this one); the tree
holds text only."""
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
FLOOR = {'util': 0, 'schema': 0, 'os': 1, 'loop': 2, 'wire': 2, 'tls': 2, 'block': 3, 'driver': 4,
         'backend': 5, 'job': 6, 'export': 7, 'control': 8, 'tools': 9}
# Sideways arrows between rooms of one floor number.
SEPARATE = [{'loop', 'wire'}, {'loop', 'tls'}, {'wire', 'tls'}]
PUBLIC_HEADER_LINES = 400
FILE_LINES = 1000
FUNCTION_LINES = 70
PRINTS = re.compile(r'(?<![.>\w])(printf|fprintf|puts|putchar|perror|exit|_exit|abort|atoi|strcpy|sprintf)\s*\(')
# The key whose destructor frees the coroutine pools of exiting threads (src/loop/coroutine.c).
STATE_ALLOWED = {'exit_key', 'exit_once'}
faults = []


def fault(path, line, what):
    faults.append(f'{path.relative_to(TOP)}:{line}: {what}')


def room_of(path):
    """(floor name, driver folder or None) of a file below src/."""
    parts = path.relative_to(TOP / 'src').parts
    driver = '/'.join(parts[1:3]) if parts[0] == 'driver' and len(parts) > 3 else None
    return parts[0] if len(parts) > 1 else None, driver


def check_include(path, number, target):
    floor, driver = room_of(path)
    to_floor = target.split('/')[0]
    if floor is None or target.startswith('platter/'):
        return
    if '/' not in target:  # beside the file
        if not (path.parent / target).exists():
            fault(path, number, f'"{target}" is not beside the file: name the floor')
        return
    if to_floor not in FLOOR:
        fault(path, number, f'"{target}" is in no floor')
        return
    if FLOOR[to_floor] > FLOOR[floor]:
        fault(path, number, f'points up: {floor} (F{FLOOR[floor]}) includes {target}')
    for pair in SEPARATE:
        if {floor, to_floor} == pair:
            fault(path, number, f'points sideways: {floor} includes {target}')
    if floor == 'driver':
        if to_floor == 'block' and target != 'block/driver.h':
            fault(path, number, f'a driver sees only block/driver.h, not {target}')
        if to_floor == 'driver':
            other = '/'.join(target.split('/')[1:3])
            if driver and other != driver and '/' in other and other != 'protocol/posix':
                fault(path, number, f'points sideways: driver {driver} includes {target}')


def code_only(text):
    """The text with comments and strings blanked, line by line as before."""
    def blank(match):
        return re.sub(r'[^\n]', ' ', match.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_file(path):
    text = path.read_text()
    lines = text.splitlines()
    if 'SPDX-License-Identifier: MIT' not in (lines[0] if lines else ''):
        fault(path, 1, 'the first line is no SPDX line')
    if len(lines) > FILE_LINES:
        fault(path, len(lines), f'longer than {FILE_LINES} lines')
    for number, line in enumerate(lines, 1):
        found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if found:
            check_include(path, number, found.group(1))
        if len(line) > 100:
            fault(path, number, 'longer than 100 columns')
    begin = 0
    for number, line in enumerate(lines, 1):
        begin = number if line == '{' else begin
        if line == '}' and number - begin - 1 > FUNCTION_LINES:
            fault(path, begin, f'a function is longer than {FUNCTION_LINES} lines')
    floor, _ = room_of(path)
    if floor and floor != 'tools':
        for number, line in enumerate(code_only(text).splitlines(), 1):
            found = PRINTS.search(line)
            if found:
                fault(path, number, f'the library does not call {found.group(1)}')


def check_objects(build):
    """No writable data above os/ but thread-locals of loop/."""
    for floor in ('block', 'driver', 'backend', 'job', 'export', 'control', 'wire', 'tls', 'loop', 'util'):
        for obj in sorted(build.glob(f'src/{floor}/**/*.o')):
            out = subprocess.run(['nm', '--format=posix', str(obj)], capture_output=True, text=True,
                                 check=True).stdout
            tls = set()
            if floor == 'loop':
                dump = subprocess.run(['readelf', '-sW', str(obj)], capture_output=True, text=True,
                                      check=True).stdout
                tls = {row.split()[-1] for row in dump.splitlines() if ' TLS ' in row}
            for row in out.splitlines():
                name, kind = row.split()[:2]
                if kind in 'bBdDcC' and name not in tls | STATE_ALLOWED and not name.startswith(('.', '__')):
                    # const tables with relocations live in .data.rel.ro, which nm calls d.
                    section = subprocess.run(['objdump', '-t', str(obj)], capture_output=True,
                                             text=True, check=True).stdout
                    mine = [r for r in section.splitlines() if r.endswith(' ' + name)]
                    if any('.data.rel.ro' in r or '.rodata' in r for r in mine):
                        continue
                    faults.append(f'{obj.name}: mutable file-scope state: {name}')


def check_kept():
    """What git keeps is text, but for what is fed to the fuzz targets."""
    kept = subprocess.run(['git', '-C', str(TOP), 'ls-files', '-z'], capture_output=True, text=True)
    for name in kept.stdout.split('\0'):  # none where the sources are no checkout
        path = TOP / name
        if path.is_file() and not name.startswith('tests/fuzz/corpus/') and b'\0' in path.read_bytes():
            fault(path, 0, 'a binary file is kept in the tree')


def main():
    if len(sys.argv) == 3 and sys.argv[1] == '--objects':
        check_objects(pathlib.Path(sys.argv[2]))
    else:
        check_kept()
        for path in sorted((TOP / 'src').rglob('*.[chS]')):
            check_file(path)
        for path in sorted((TOP / 'include').rglob('*.h')):
            if len(path.read_text().splitlines()) > PUBLIC_HEADER_LINES:
                fault(path, 0, f'a public header is longer than {PUBLIC_HEADER_LINES} lines')
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.match(r'\s*#\s*include\s+"', line):
                    fault(path, number, 'a public header includes only <platter/...>')
    for line in faults:
        print(line)
    sys.exit(1 if faults else 0)


main()
