"""Loading weights into modules, with every name and shape checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from shard_tools.errors import BasslFastError, CheckpointError

Modules = TypeVar("Modules", bound=tuple[nn.Module | None, ...])


class _Unfilled(TorchFunctionMode):
    """Context in which functions that initialise a tensor return it as it is."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        if getattr(func, "__module__", None) == "torch.nn.init":
            return (kwargs or {}).get("tensor", *args[:1])
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules made in this context have shapes, and no values.

    Their initialisation is left out: on torch's meta device it imports torch's compiler, which takes seconds.
    """
    with torch.device("meta"), _Unfilled():
        yield


def fill(
    make: Callable[[], Modules],
    state: dict[str, Tensor],
    prefixes: tuple[str, ...],
    path: str | Path,
) -> Modules:
    """The modules that `make` builds, each loaded with the tensors under its prefix.

    They are first built without memory and compared with the weights, because a damaged file may describe a model of
    any size.

    Raises:
        CheckpointError: `make` fails, or the weights do not fit.
    """
    try:
        with without_memory(), _at_most(2 * len(state), path):
            for module, prefix in zip(make(), prefixes, strict=True):
                if module is not None:
                    check_weights(module, state, prefix, path)
    except BasslFastError:
        raise
    except Exception:  # a class that cannot be built without memory; real errors show below
        pass
    try:
        modules = make()
    except BasslFastError:
        raise
    except Exception as error:  # a class may raise anything for unexpected arguments
        raise CheckpointError(f"{path}: its model cannot be built ({error!r}); copy it again") from None
    for module, prefix in zip(modules, prefixes, strict=True):
        if module is not None:
            load_weights(module, state, prefix, path)
    return modules


@contextmanager
def _at_most(parameters: int, path: str | Path) -> Iterator[None]:
    """Context in which creating more parameters than this raises CheckpointError."""
    made = count()

    def refuse(*_: Any) -> None:
        if next(made) > parameters:
            raise CheckpointError(f"{path}: describes a larger model than its weights; copy it again")

    hook = register_module_parameter_registration_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def load_weights(module: nn.Module, state: dict[str, Tensor], prefix: str, path: str | Path) -> None:
    """Load the tensors under `prefix` into `module`.

    Raises:
        CheckpointError: names or shapes differ; it names the first.
    """
    module.load_state_dict(check_weights(module, state, prefix, path))


def check_weights(module: nn.Module, state: dict[str, Tensor], prefix: str, path: str | Path) -> dict[str, Tensor]:
    """The tensors under `prefix`, checked against `module`; raises as `load_weights`."""
    mine = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for name, value in module.state_dict().items():
        theirs = mine.get(name)
        if theirs is None:
            raise CheckpointError(
                f"{path}: {prefix}{name} is missing; the checkpoint is of another recipe, use its own"
            )
        if not isinstance(theirs, Tensor):
            raise CheckpointError(f"{path}: {prefix}{name} is not a tensor; copy it again")
        if theirs.shape != value.shape:
            raise CheckpointError(
                f"{path}: {prefix}{name} is {list(theirs.shape)}, the model needs {list(value.shape)}; "
                "the checkpoint is of another recipe, use its own"
            )
    if surplus := sorted(mine.keys() - module.state_dict().keys()):
        raise CheckpointError(
            f"{path}: {prefix}{surplus[0]} is not in the model; the checkpoint is of another recipe, use its own"
        )
    return mine
