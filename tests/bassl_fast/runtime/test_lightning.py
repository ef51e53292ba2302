"""Lightning's import takes no longer than it must."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from bassl_fast.runtime.lightning import import_lightning
import_lightning()
assert "pytorch_lightning" in sys.modules and "scipy.signal" not in sys.modules
import scipy.signal
assert len(scipy.signal.windows.hamming(3)) == 3
"""


@pytest.mark.slow
def test_it_leaves_scipy_signal_for_whoever_needs_it():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
