"""Files that `torch.save` wrote elsewhere: tensors and plain values are read, no code is run."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from shard_tools.errors import CheckpointError

# Packages whose objects Lightning checkpoints hold beside the weights, and which nobody here needs.
_SKIPPED = ("pytorch_lightning", "omegaconf", "easydict", "yacs", "numpy", "pathlib", "argparse", "typing", "enum")


_SKIPPED_BUILTINS = ("dict", "list", "tuple", "set", "int", "float", "str", "bool", "object")


def read_foreign(path: Path) -> Any:
    """Read what `torch.save` wrote elsewhere: tensors and plain values. Of all else in it nothing is run or imported:
    objects of packages that training leaves in a checkpoint become empty dictionaries, anything more is refused.

    Raises:
        CheckpointError: it is broken, or holds what no checkpoint needs, which is named.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not of the present format; if torch can read it, then weights alone
        names = []
    for name in sorted(names):
        root, _, rest = name.partition(".")
        if root not in _SKIPPED and not (root == "builtins" and rest in _SKIPPED_BUILTINS):
            raise CheckpointError(f"{path}: holds {name}, which weights do not need; do not use this file")
    try:
        with torch.serialization.safe_globals([(_Skipped, name) for name in names]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint; get the file again") from None


class _Called(type):
    def __call__(cls, *_: Any) -> _Skipped:
        return object.__new__(cls)


class _Skipped(metaclass=_Called):
    """Takes the place of a class or function in a pickle: called, it gives an object that takes any state; made by
    `__new__`, as pickle makes the objects that it fills with items or attributes, an empty dictionary."""

    def __new__(cls, *_: Any) -> OrderedDict:
        return OrderedDict()

    def __setstate__(self, state: Any) -> None:
        pass
