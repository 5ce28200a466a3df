#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The symbol map of the shared library holds exactly the functions that the installed headers
declare. `--write MAP` makes it from them; `--check MAP` fails where they differ."""
import pathlib
import re
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent


def declared():
    names = set()
    for header in sorted((TOP / 'include/platter').glob('*.h')):
        text = header.read_text()
        text = re.sub(r'/\*.*?\*/', '', text, flags=re.S)
        text = re.sub(r'^\s*#.*(\\\n.*)*$', '', text, flags=re.M)
        # Bodies (structs, enums, inline functions) away, innermost first; extern "C" stays flat.
        text = re.sub(r'extern "C"\s*\{', '', text)
        while True:
            shorter = re.sub(r'\{[^{}]*\}', ';', text)
            if shorter == text:
                break
            text = shorter
        for statement in text.split(';'):
            statement = ' '.join(statement.split())
            if statement.startswith(('typedef', 'static')):
                continue
            found = re.match(r'^[\w\s*]+?\**\s*\**(\w+)\s*\(', statement)
            if found:
                names.add(found.group(1))
    return sorted(names)


def text_of(names):
    lines = ''.join(f'        {name};\n' for name in names)
    return ('/* SPDX-License-Identifier: MIT */\n/* Made by scripts/symbol_map.py from the installed '
            'headers. */\nPLATTER_0 {\n    global:\n' + lines + '    local:\n        *;\n};\n')


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ('--write', '--check'):
        sys.exit('usage: symbol_map.py --write|--check MAP')
    path = pathlib.Path(sys.argv[2])
    want = text_of(declared())
    if sys.argv[1] == '--write':
        path.write_text(want)
    elif path.read_text() != want:
        sys.exit(f'{path} is not what the headers declare; run scripts/symbol_map.py --write {path}')


main()
