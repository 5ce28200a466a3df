# SPDX-License-Identifier: MIT
"""platter and QEMU's tools in turn on the same qcow2 image (see qcow2_program.py). PLATTER_SEED changes the
programs; many more of them: tests/e2e/qcow2_program.py --programs 2000."""
import os

import pytest

from qcow2_program import run_program

SEED = int(os.environ.get('PLATTER_SEED', '4201'))


@pytest.mark.parametrize('number', range(24))
def test_program(tmp_path, number):
    print('seed', SEED + number)
    run_program(SEED + number, 8, str(tmp_path))
