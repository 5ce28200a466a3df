#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""count_switch.py [--objdump PROGRAM] OBJECT: a coroutine switch is at most 20 instructions. Counts
those of co_switch, which runs straight through, in an object or static library."""
import argparse
import re
import subprocess
import sys

LIMIT = 20

parser = argparse.ArgumentParser()
parser.add_argument('--objdump', default='objdump')
parser.add_argument('object')
args = parser.parse_args()
text = subprocess.run([args.objdump, '-d', '--no-show-raw-insn', args.object], check=True,
                      capture_output=True, text=True).stdout
found = re.search(r'<co_switch>:\n((?:[ \t]+[0-9a-f]+:.*\n)+)', text)
if not found:
    sys.exit('there is no co_switch')
codes = [line.split(':', 1)[1].split()[0] for line in found.group(1).splitlines()]
padding = {'nop', 'nopw', 'nopl', 'xchg', 'cs', 'data16', 'udf'}
while codes and codes[-1] in padding:
    codes.pop()
print(f'co_switch: {len(codes)} instructions (at most {LIMIT})')
inside = [code for code in codes[:-1] if code in ('ret', 'jmp', 'call', 'b', 'bl', 'br', 'blr', 'jne', 'je')]
if inside or len(codes) > LIMIT:
    print('\n'.join(codes))
    sys.exit('too long, or not straight')
