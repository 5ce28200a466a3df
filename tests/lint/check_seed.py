#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every row of doc/dev/seed.md names a function that its file defines and a test that exists and runs; so do the
differences at its top."""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
# Rows of each section of the contract: the sections and counts of the API it was taken from, plus
# blk_remove_bs, which the original lacked.
ROWS = {'2.1': 14, '2.2': 6, '2.3': 7, '2.4': 6, '2.5': 11, '2.6': 2, '2.7': 6, '2.8': 12, '2.9': 3, '2.10': 10,
        '2.11': 1, '2.12': 9, '2.13': 4, '2.14': 2, '2.15': 3, '2.16': 2, '2.17': 1, '2.18': 4, '2.19': 2}


def check_differences(text, faults):
    """The tests that pin what differs are there and run, in the file that is named beside them."""
    folder = TOP / 'tests/unit/backend'
    for row in re.findall(r'^\| .*\|$', text.split('\n## 2.1')[0], re.M):
        for name, _, given in re.findall(r'`(test_\w+)\*?`( in `(test_\w+\.c)`)?', row.split('|')[-2]):
            files = [folder / given] if given else sorted(folder.glob('test_*.c'))
            if not any(file.exists() and len(re.findall(rf'\b{name}\b', file.read_text())) > 1 for file in files):
                faults.append(f'{row.split("|")[1].strip()}: no test {name} in {given or folder.name}')


def main():
    faults, seen, section, test_file = [], {}, None, None
    text = (TOP / 'doc/dev/seed.md').read_text()
    check_differences(text, faults)
    for line in text.splitlines():
        head = re.match(r'## (2\.\d+) .*\(`(\w+\.c)`\)', line)
        if line.startswith('## '):
            section, test_file = head.groups() if head else (None, None)
        row = re.match(r'\| (\w+) \| `([\w.]+)` \| (?:private: )?`(\w+)`.* \| `(\w+)` \|$', line)
        if not section or not line.startswith('| ') or line.startswith('| row '):
            continue
        if not row:
            faults.append(f'{section}: not a row: {line}')
            continue
        name, source, function, test = row.groups()
        seen.setdefault(section, set()).add(name)
        code = (TOP / 'src/backend' / source).read_text()
        code += (TOP / 'src/backend/backend_int.h').read_text()  # inline halves
        if not re.search(rf'^[\w *]*\b{function}\(', code, re.M):
            faults.append(f'{section} {name}: {source} does not define {function}')
        tests = (TOP / 'tests/unit/backend' / test_file).read_text()
        if len(re.findall(rf'\b{test}\b', tests)) < 2:
            faults.append(f'{section} {name}: {test_file} does not define and run {test}')
    for section, count in ROWS.items():
        if len(seen.get(section, ())) < count:
            faults.append(f'{section}: {len(seen.get(section, ()))} rows, {count} are wanted')
    print('\n'.join(faults) or f'{sum(map(len, seen.values()))} rows')
    sys.exit(1 if faults else 0)


main()
