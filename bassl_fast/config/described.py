"""Objects that describe themselves by class path and arguments, as plain values, so that they can be built again.

    ResNet(depth=18)  ->  {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 64, ...}}

A checkpoint keeps such a description of its model, so that building it needs no command line.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from shard_tools.errors import ConfigError

from .parser import instantiate

Description = dict[str, Any]


class Described:
    """Base of classes whose objects remember their constructor arguments, defaults included."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)  # type: ignore[method-assign]


def _remembering(init: Callable) -> Callable:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Described, *args: Any, **kwargs: Any) -> None:
        if "_arguments" not in vars(self):  # not for a constructor called through `super()`
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))
        init(self, *args, **kwargs)

    return wrapped


def describe(made: Described, skip: int = 0) -> Description:
    """`class_path` and `init_args` of an object.

    Args:
        skip: number of leading arguments to leave out, which `make` is given.

    Raises:
        ConfigError: an argument cannot be expressed in plain values.
    """
    kind = type(made)
    arguments = list(getattr(made, "_arguments", {}).items())[skip:]
    init_args = {name: _plain(value, f"{kind.__name__}.{name}") for name, value in arguments}
    return {"class_path": class_path(kind), "init_args": init_args}


def class_path(kind: type) -> str:
    """The shortest import path of `kind`: that of the package that exports it, if one does."""
    parts = kind.__module__.split(".")
    for count in range(1, len(parts)):
        package = ".".join(parts[:count])
        if getattr(sys.modules.get(package), kind.__name__, None) is kind:
            return f"{package}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def make(description: Description, *given: Any) -> Any:
    """Build the object of a description.

    Args:
        given: the leading arguments that the description leaves out.

    Raises:
        ConfigError: no such class, or it does not take the arguments.
    """
    path = str(description.get("class_path"))
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError):
        raise ConfigError(f"class '{path}': cannot be imported; install its package, or --import its module") from None
    return instantiate(kind, description.get("init_args") or {}, given)


def _plain(value: Any, name: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, name) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), name) for field in fields(value)}
    raise ConfigError(
        f"{name}: {type(value).__name__} cannot be stored in a checkpoint; use numbers, text, lists or dataclasses"
    )
