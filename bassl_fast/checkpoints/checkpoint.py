"""Checkpoints carry their recipe: what was trained, on what, how. Loading one never runs code from the file."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from shard_tools.errors import BasslFastError, CheckpointError
from shard_tools.storage.cache import local_file, sha256_of

# Packages whose objects Lightning checkpoints hold beside the weights, and which nobody here needs.
_SKIPPED = ("pytorch_lightning", "omegaconf", "easydict", "yacs", "numpy", "pathlib", "argparse", "typing", "enum")
_SKIPPED_BUILTINS = ("dict", "list", "tuple", "set", "int", "float", "str", "bool", "object")


def load(path: str | Path, *kinds: str) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU; tensors and plain values only.

    Args:
        path: of the file, or its address.
        kinds: verbs one of which must have written it, "pretrain" or "finetune".

    Raises:
        CheckpointError: missing, broken, not ours, or of another kind.
        RemoteError: it cannot be fetched in time.
    """
    # Training with labels is `pretrain` by another name.
    names = [name for kind in kinds for name in ((kind, "train") if kind == "pretrain" else (kind,))]
    wanted = " or ".join(f"`bassl-fast {name}`" for name in names)
    if (file := find(path)) is None:
        raise CheckpointError(f"{path}: no such checkpoint; give the .ckpt file that {wanted} wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's words to developers
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a broken file, and its advice is to trust it
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint; copy it again (from elsewhere: `bassl-fast import-checkpoint`)"
        ) from None
    recipe = state.get("recipe") if isinstance(state, dict) else None
    if not isinstance(recipe, dict) or "verb" not in recipe:
        raise CheckpointError(
            f"{path}: not a checkpoint of bassl-fast; train one with {wanted}, or `bassl-fast import-checkpoint` this"
        )
    if recipe["verb"] not in kinds:
        raise CheckpointError(f"{path}: written by `bassl-fast {recipe['verb']}`, one of {wanted} is needed")
    weights = state.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path}: holds no weights by name; copy it again")
    return state


def fill(
    make: Callable[[], tuple[nn.Module | None, ...]],
    state: dict[str, torch.Tensor],
    prefixes: tuple[str, ...],
    path: str | Path,
) -> tuple[nn.Module | None, ...]:
    """The modules that a recipe makes, each filled with the tensors under its prefix.

    They are made without memory first: a recipe may ask for any size and any number of layers, the file holds few.

    Raises:
        CheckpointError: the recipe makes no modules, or some that the weights do not fit.
    """
    try:
        with torch.device("meta"), _at_most(2 * len(state), path):
            for module, prefix in zip(make(), prefixes, strict=True):
                if module is not None:
                    check_weights(module, state, prefix, path)
    except BasslFastError:
        raise
    except Exception:  # a class that needs values to be made; whatever else is wrong with it shows below
        pass
    try:
        modules = make()
    except BasslFastError:
        raise
    except Exception as error:  # whatever a class says to arguments it was not made for
        raise CheckpointError(f"{path}: its recipe makes no model ({error!r}); copy it again") from None
    for module, prefix in zip(modules, prefixes, strict=True):
        if module is not None:
            load_weights(module, state, prefix, path)
    return modules


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


@contextmanager
def _at_most(parameters: int, path: str | Path) -> Iterator[None]:
    """Raises: CheckpointError in whatever makes more parameters meanwhile."""
    made = count()

    def refuse(*_: Any) -> None:
        if next(made) > parameters:
            raise CheckpointError(f"{path}: its recipe makes more weights than the file holds; copy it again")

    hook = register_module_parameter_registration_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def load_weights(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, path: str | Path) -> None:
    """Fill `module` with the tensors under `prefix`; all must be there and fit.

    Raises:
        CheckpointError: names or shapes differ, naming the first that does.
    """
    module.load_state_dict(check_weights(module, state, prefix, path))


def check_weights(
    module: nn.Module, state: dict[str, torch.Tensor], prefix: str, path: str | Path
) -> dict[str, torch.Tensor]:
    """The tensors of `load_weights`, which raises what this does."""
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
    if surplus := sorted(mine.keys() - module.state_dict().keys()):
        raise CheckpointError(
            f"{path}: {prefix}{surplus[0]} has no place in the model; the checkpoint is of another recipe, use its own"
        )
    return mine


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


def find(path: str | Path) -> Path | None:
    """The file at a path, or a copy of the one at an address; None if there is none."""
    try:
        file = local_file(path)
    except FileNotFoundError:
        return None
    return file if file.is_file() else None


def sha256(path: str | Path) -> str:
    """Checksum of the file at a path or address, as hexadecimal."""
    with open(local_file(path), "rb") as file:
        return sha256_of(file)
