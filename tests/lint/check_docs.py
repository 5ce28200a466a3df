#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the documents name is there (files, identifiers), and the lists that are to be complete are: floors, drivers,
kinds of jobs, variables of the tests, fuzz targets, benchmarks, rows of the tables of figures."""
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENTS = ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md', *sorted(
    str(path.relative_to(TOP)) for path in (TOP / 'doc').rglob('*.md'))]
# Made by the build, the system's, or a name with a place for another.
NO_FILES = {'schema/qmp.c', 'schema/qmp-reference.md', 'sys/sdt.h', 'schema/driver_NAME.json', 'PREFIX/libexec/platter/compat',
            'tests/fuzz/corpus/TARGET', 'build/src/tools/platter'}
# Figures of metrics, whose names are put together; a name with a place for another.
NO_NAMES = {'platter_backend_request_duration_seconds', 'platter_export_request_duration_seconds',
            'platter_backend_latency_seconds', 'qmp_NAME'}
faults = []


def text_of(path):
    return (TOP / path).read_text()


def is_file(name, kept):
    """A file or folder of the tree by the end of its path, or a program that is built of a file there."""
    name = name.removeprefix('build/').rstrip('/')
    program = re.sub(r'/replay_', '/fuzz_', name)
    return any(pathlib.PurePath(path).match(end) for path in kept for end in (name, f'{program}.c')) or \
        any(f'/{path}'.find(f'/{name}/') >= 0 for path in kept)


def check_files(kept):
    for document in DOCUMENTS:
        for number, line in enumerate(text_of(document).splitlines(), 1):
            words = re.findall(r'(?<![\w./*{}-])[\w./*-]*\w/[\w./*-]*\w', line) + \
                re.findall(r'(?<![\w./*-])[\w*]+\.(?:[ch]|py|json|md)\b', line)
            for word in words:
                looks = re.match(r'(build/)?(src|tests|include|schema|scripts|doc|examples)/', word) or \
                    re.search(r'\.([ch]|py|json|md)$', word)
                if looks and word not in NO_FILES and not is_file(word, kept):
                    faults.append(f'{document}:{number}: no file {word}')


def check_names(kept):
    """What is quoted as an identifier is one of the sources."""
    sources = [text_of(path) for path in kept if re.match(r'(src|include|schema|tests|scripts)/.*\.\w+$|(run|test)$', path)
               and not path.startswith('tests/fuzz/corpus/')]
    known = set(re.findall(r'\w+', '\n'.join(sources)))
    for document in DOCUMENTS:
        for number, line in enumerate(text_of(document).splitlines(), 1):
            for word in re.findall(r'`([A-Za-z]+_\w*[A-Za-z0-9])(?:\(\))?`', line):
                if word not in known and word not in NO_NAMES:
                    faults.append(f'{document}:{number}: no name {word}')


def same(what, told, there):
    """Two lists that are to have the same."""
    for word in sorted(set(told) ^ set(there)):
        faults.append(f'{what}: {word} is {"told, but not there" if word in told else "there, but not told"}')


def check_floors():
    rows = re.findall(r'^\| F\d \| `([\w/]+)/` \| (.*) \|$', text_of('ARCHITECTURE.md'), re.M)
    folders = [path.relative_to(TOP).as_posix() for path in (TOP / 'src').iterdir() if path.is_dir()]
    same('floors of ARCHITECTURE.md', ['/'.join(name.split('/')[:2]) for name, _ in rows if name != 'schema'], folders)
    told = dict(rows)
    names = re.findall(r'^    X\(\w+, "([\w-]+)"\)', text_of('src/driver/list.c'), re.M) + ['nbd']
    same('drivers of ARCHITECTURE.md', re.findall(r'[\w-]+', ' '.join(re.findall(r'\(([^)]*)\)', told['src/driver']))),
         {re.sub(r'^null-.*', 'null', name) for name in names})
    headers = text_of('include/platter/jobs.h') + text_of('include/platter/convert.h')
    same('kinds of jobs of ARCHITECTURE.md', re.findall(r'\w+', told['src/job'].split('kinds: ')[1]),
         re.findall(r'^Job \*(?:job_)?(\w+)_start\(', headers, re.M))


def check_tests(kept):
    sources = [text_of(path) for path in kept if re.match(r'tests/.*\.(c|h|py)$', path) and not path.startswith('tests/lint/')]
    asked = re.findall(r'(?:getenv|env_\w+|number_of)\("(PLATTER_\w+)"|environ(?:\.\w+\(|\[)[\'"](PLATTER_\w+)', '\n'.join(sources))
    guide = text_of('CONTRIBUTING.md')
    same('variables of CONTRIBUTING.md', re.findall(r'\bPLATTER_\w+', guide), {a or b for a, b in asked})
    targets = re.findall(r"'(\w+)'", re.search(r'^foreach name : (.*)', text_of('tests/fuzz/meson.build'), re.M).group(1))
    same('fuzz targets of CONTRIBUTING.md', re.search(r'targets of tests/fuzz \(([^)]*)\)', guide).group(1).split(', '), targets)
    script = text_of('scripts/fuzz')
    for which in (r'^# Targets: ([^.]*)\.', r'^    ([^\n)]*)\) targets=', r'targets="([\w ]*)"$'):
        same('fuzz targets of scripts/fuzz', re.findall(r'\w+', re.search(which, script, re.M).group(1)), targets)
    programs = [path for path in kept if path.startswith('tests/bench/') and path.endswith('.py')]
    same('benchmarks of CONTRIBUTING.md', re.findall(r'tests/bench/\w+\.py', guide),
         [path for path in programs if '__main__' in text_of(path) or re.search(r'^main\(\)', text_of(path), re.M)])


def check_figures():
    rows = re.findall(r"^    Row\('([^']+)'", text_of('tests/bench/tools_compare.py'), re.M)
    same('doc/dev/tools-speed.md', re.findall(r'^\| (.+?) \| +\d', text_of('doc/dev/tools-speed.md'), re.M), rows)
    count = int(re.search(r'(\d+) command lines \(', text_of('CONTRIBUTING.md')).group(1))
    workloads = len(re.findall(r'\.name = ', text_of('tests/sim/qcow2_powercut_table.c')))
    told = int(re.search(r'(\d+) workloads twice', text_of('doc/dev/crash-safety.md')).group(1))
    for what, told, there in (('command lines of tools_compare.py', count, len(rows)),
                              ('workloads of test_qcow2_powercut', told, workloads)):
        if told != there:
            faults.append(f'{what}: {told} are told, {there} are there')


def main():
    done = subprocess.run(['git', '-C', str(TOP), 'ls-files', '-z'], capture_output=True, text=True)
    kept = [path for path in done.stdout.split('\0') if path]
    if not kept: # no checkout
        kept = [path.relative_to(TOP).as_posix() for path in TOP.rglob('*') if path.is_file()]
    check_files(kept)
    check_names(kept)
    check_floors()
    check_tests(kept)
    check_figures()
    print('\n'.join(faults) or f'{len(DOCUMENTS)} documents')
    sys.exit(1 if faults else 0)


main()
