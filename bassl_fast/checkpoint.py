"""Checkpoints carry their recipe: what was trained, on what, how. Loading one never runs code from the file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shard_tools.errors import CheckpointError


def load(path: str | Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU; tensors and plain values only.

    Args:
        kind: verb that must have written it, "pretrain" or "finetune".

    Raises:
        CheckpointError: missing, broken, not ours, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give the .ckpt file that `bassl-fast {kind}` wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a broken file, and its advice is to trust it
        raise CheckpointError(f"{path}: cannot be read as a checkpoint; copy it again or train it again") from None
    recipe = state.get("recipe") if isinstance(state, dict) else None
    if not isinstance(recipe, dict) or "verb" not in recipe:
        raise CheckpointError(f"{path}: not a checkpoint of bassl-fast; train one with `bassl-fast {kind}`")
    if recipe["verb"] != kind:
        raise CheckpointError(f"{path}: written by `bassl-fast {recipe['verb']}`, one of `bassl-fast {kind}` is needed")
    return state


def load_weights(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, path: str | Path) -> None:
    """Fill `module` with the tensors under `prefix`; all must be there and fit.

    Raises:
        CheckpointError: names or shapes differ, naming the first that does.
    """
    mine = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for name, value in module.state_dict().items():
        theirs = mine.get(name)
        if theirs is None:
            raise CheckpointError(
                f"{path}: {prefix}{name} is missing; the checkpoint is of another recipe, use its own"
            )
        if theirs.shape != value.shape:
            raise CheckpointError(
                f"{path}: {prefix}{name} is {list(theirs.shape)}, the recipe wants {list(value.shape)}; "
                "the checkpoint is of another recipe, use its own"
            )
    module.load_state_dict(mine)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(path.name + ".tmp")
    try:
        with open(tmp, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Checksum of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
