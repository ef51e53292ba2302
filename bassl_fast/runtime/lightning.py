"""Lightning's import, without the second and a half that a library of signal processing takes in it."""

from __future__ import annotations

import sys
from types import ModuleType


def import_lightning() -> None:
    """Import Lightning without `scipy.signal`. Call it before a module that imports Lightning.

    Lightning imports torchmetrics, which imports `scipy.signal` for one reason: to add `hamming` to it where that is
    missing. While it does so, an empty module with a `hamming` is in its place; afterwards the real one can be
    imported as ever.
    """
    if {"torchmetrics", "scipy.signal"} & sys.modules.keys():
        return
    empty = ModuleType("scipy.signal")
    empty.hamming = None  # type: ignore[attr-defined]
    sys.modules["scipy.signal"] = empty
    try:
        import pytorch_lightning  # noqa: F401
    finally:
        del sys.modules["scipy.signal"]
