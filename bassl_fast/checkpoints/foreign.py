"""Files that other programs wrote with `torch.save`: only tensors and plain values are read, no code is run.

Their weights may be inside dictionaries, and named after what wrapped the model.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from shard_tools.errors import CheckpointError

# Packages whose objects are in Lightning checkpoints besides the weights; they are not needed here.
_SKIPPED = ("pytorch_lightning", "omegaconf", "easydict", "yacs", "numpy", "pathlib", "argparse", "typing", "enum")

_SKIPPED_BUILTINS = ("dict", "list", "tuple", "set", "int", "float", "str", "bool", "object")


def read_foreign(path: Path) -> Any:
    """Read tensors and plain values from a file that another program wrote with `torch.save`.

    Nothing else in it is run or imported: objects of packages that training leaves in checkpoints become empty
    dictionaries, and any other object is refused.

    Raises:
        CheckpointError: it is damaged, or holds an object that no checkpoint needs, which it names.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older format, which torch.load reads as weights only
        names = []
    for name in sorted(names):
        root, _, rest = name.partition(".")
        if root not in _SKIPPED and not (root == "builtins" and rest in _SKIPPED_BUILTINS):
            raise CheckpointError(f"{path}: holds {name}, which no checkpoint needs; do not use this file")
    try:
        with torch.serialization.safe_globals([(_Skipped, name) for name in names]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint; get the file again") from None


def unwrapped(content: Mapping[str, Any]) -> dict[str, Any]:
    """Weights out of the dictionaries `state_dict` and `model`, named as before DDP or torch.compile wrapped them."""
    inner = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        return unwrapped(inner)
    return {
        _plain(key): {_plain(name): w for name, w in value.items()} if isinstance(value, Mapping) else value
        for key, value in content.items()
    }


def _plain(name: Any) -> Any:
    """`module.module.encoder._orig_mod.conv1.weight` -> `encoder.conv1.weight`; other keys than names as they are."""
    if not isinstance(name, str):
        return name
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def of_encoder(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Only the ResNet that a method trained, under torchvision's names: of `backbone.`, or `encoder_q.` as in MoCo."""
    for prefix in ("backbone.", "encoder_q."):
        if f"{prefix}conv1.weight" in weights:
            return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    return dict(weights)


class _Called(type):
    def __call__(cls, *_: Any) -> _Skipped:
        return object.__new__(cls)  # type: ignore[arg-type]


class _Skipped(metaclass=_Called):
    """Replaces a class or function in a pickle.

    Calling it returns an object that accepts any state. `__new__`, which pickle calls for objects that it then fills
    with items or attributes, returns an empty dictionary.
    """

    def __new__(cls, *_: Any) -> OrderedDict:  # type: ignore[misc]
        return OrderedDict()

    def __setstate__(self, state: Any) -> None:
        pass
