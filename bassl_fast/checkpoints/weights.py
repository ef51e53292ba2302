"""Weights into modules: all of them must be there and fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from shard_tools.errors import BasslFastError, CheckpointError


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
        if not isinstance(theirs, torch.Tensor):
            raise CheckpointError(f"{path}: {prefix}{name} is not a tensor; copy it again")
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
