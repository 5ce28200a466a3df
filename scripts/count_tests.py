#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints "PASSED FAILED SKIPPED" of a run: `meson testlog.json` or `junit results.xml`."""
import json
import sys
import xml.etree.ElementTree as ElementTree


def of_meson(path):
    passed = failed = skipped = 0
    with open(path, encoding='utf-8') as log:
        for line in log:
            result = json.loads(line)['result']
            if result in ('OK', 'EXPECTEDFAIL'):
                passed += 1
            elif result == 'SKIP':
                skipped += 1
            else:
                failed += 1
    return passed, failed, skipped


def of_junit(path):
    total = failed = skipped = 0
    for suite in ElementTree.parse(path).getroot().iter('testsuite'):
        total += int(suite.get('tests'))
        failed += int(suite.get('failures')) + int(suite.get('errors'))
        skipped += int(suite.get('skipped'))
    return total - failed - skipped, failed, skipped


print(*{'meson': of_meson, 'junit': of_junit}[sys.argv[1]](sys.argv[2]))
