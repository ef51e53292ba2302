"""Golden answers of SCRL, SCE, X3D and VoV3D: small files are beside the tests, large ones beside the project."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bassl_fast.checkpoints.reference import translate

HERE = Path(__file__).parent / "golden" / "seeds"
LARGE = Path(__file__).parents[2] / "shared" / "golden" / "seeds"


def arrays(name: str) -> dict[str, torch.Tensor]:
    """Arrays of `<name>.npz`, half precision as float32; skips the test where the file is not there."""
    path = next((folder / f"{name}.npz" for folder in (HERE, LARGE) if (folder / f"{name}.npz").exists()), None)
    if path is None:
        pytest.skip(f"needs {name}.npz, which is too large for the repository")
    with np.load(path) as found:
        tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in found.items()}
    return {key: t.float() if t.dtype == torch.float16 else t for key, t in tensors.items()}


def facts(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text())


def ours_of(keys: Iterable[str], names: list[tuple[str, str]]) -> dict[str, str]:
    """Our name -> released name of every one of the released `keys`; KeyError for one that `names` does not know."""
    return {translate(key, names): key for key in keys}


def close(ours: torch.Tensor, theirs: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs.double(), rtol=rtol, atol=atol)
