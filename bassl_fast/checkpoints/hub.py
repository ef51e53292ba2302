"""A model of transformers or timm in place of a checkpoint: `hf:FOLDER`, or `hf:NAME` in the hub's cache."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from bassl_fast.config.described import describe
from bassl_fast.encoders import HuggingFace, Timm
from bassl_fast.encoders.hub import OF_TEXT, ModelFolder, open_model
from bassl_fast.encoders.text import TextEncoder
from bassl_fast.encoders.timm import is_of_timm
from shard_tools.errors import ConfigError
from shard_tools.storage.checksums import sha256_once

from .migrate import VERSION

_PREFIX = "hf:"


def is_model(path: str | Path) -> bool:
    """Whether it names a model of another library; `hf://` is an address."""
    return str(path).startswith(_PREFIX) and not str(path).startswith(_PREFIX + "//")


def as_checkpoint(path: str | Path) -> dict[str, Any]:
    """The model as the content of an imported checkpoint.

    Raises:
        ConfigError, MissingDependency: see `HuggingFace`.
    """
    name = _name(path)
    encoder = (Timm if is_of_timm(open_model(name)) else HuggingFace)(name)
    section = {"version": VERSION, "kind": "encoder", "encoder": describe(encoder), "method": None, "views": None}
    weights = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    return {"model": section, "state_dict": weights, "imported": {"file": str(path)}, "recipe": {}}


def file(path: str | Path) -> Path:
    """The file of weights, or the index of several."""
    return open_model(_name(path)).weights


def sha256(path: str | Path) -> str:
    """SHA-256 of the names and checksums of all files of the vision model, in hexadecimal."""
    return _sha256(open_model(_name(path)))


def text_encoder(path: str | Path) -> TextEncoder:
    """The text model.

    Raises:
        ConfigError: not `hf:FOLDER` or `hf:NAME`, or see `TextEncoder`.
    """
    if not is_model(path):
        raise ConfigError(f"text_encoder {path}: write {_PREFIX}FOLDER, a text model of transformers")
    return TextEncoder(_name(path))


def text_sha256(path: str | Path) -> str:
    """`sha256` of a text model."""
    return _sha256(open_model(_name(path), OF_TEXT))


def _sha256(model: ModelFolder) -> str:
    parts = [f"{file.name} {sha256_once(file)}\n" for file in model.files]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def absolute(path: str | Path) -> str:
    """Name that is valid in any working folder; a name on the hub is unchanged."""
    name = Path(_name(path)).expanduser()
    return f"{_PREFIX}{name.resolve()}" if name.is_dir() else str(path)


def _name(path: str | Path) -> str:
    return str(path).removeprefix(_PREFIX)
