"""Weights that are a function of their names, as the golden answers were computed with (tests/golden/README.md)."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bassl_fast.checkpoints.reference import rename

GOLDEN = Path(__file__).parent / "golden"


def tensor(key: str, shape: tuple[int, ...], tag: int = 1234) -> torch.Tensor:
    w = np.random.default_rng(zlib.crc32(f"{tag}:{key}".encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("num_batches_tracked"):
        w = np.zeros(shape, np.int64)
    elif key.endswith("running_var"):
        w = 1 + 0.1 * np.abs(w)
    elif key.endswith("running_mean"):
        w = 0.1 * w
    elif len(shape) == 1:
        w = 1 + 0.1 * w if key.endswith("weight") else 0.1 * w
    else:
        w = w / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(w, dtype=w.dtype if w.dtype == np.int64 else np.float32))


def load(module: nn.Module, ours: str, reference: list[str]) -> None:
    """Fill `module`, whose parameters are called `ours` + name, by the rule from the reference's names for them."""
    names = {rename(key): key for key in reference}
    state = module.state_dict()
    module.load_state_dict({name: tensor(names[ours + name], tuple(value.shape)) for name, value in state.items()})


def fill(module: nn.Module, released: dict[str, str]) -> nn.Module:
    """`module` in eval mode, filled by the rule; `released` maps our names to those the answers were computed with."""
    state = module.state_dict()
    module.load_state_dict({name: tensor(released[name], tuple(value.shape)) for name, value in state.items()})
    return module.eval()
