"""Lightning's import takes no longer than it must."""

from __future__ import annotations

import subprocess

import pytest

CODE = """
import sys
assert "pytorch_lightning" in sys.modules and "scipy.signal" not in sys.modules
import scipy.signal
assert len(scipy.signal.windows.hamming(3)) == 3
"""


@pytest.mark.slow
def test_it_leaves_scipy_signal_for_whoever_needs_it(warm: str):
    """Nor does anything else that `tests.warm` imports need it: the modules of all verbs."""
    done = subprocess.run([warm, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
