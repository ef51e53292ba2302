"""Files that other programs wrote with `torch.save`: only tensors and plain values are read, no code is run."""

from __future__ import annotations

import warnings
from collections import OrderedDict
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
