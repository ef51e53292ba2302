"""Objects that can say how to make them again: a class path and arguments, as plain values.

    ResNet(depth=18)  ->  {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 64, ...}}

A checkpoint keeps such a description of what it holds, so that building it needs no command line.
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
    """Base of classes whose objects remember the arguments they were made with, defaults included."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _remembering(cls.__init__)


def _remembering(init: Callable) -> Callable:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Described, *args: Any, **kwargs: Any) -> None:
        if "_arguments" not in vars(self):  # of the class itself, not of one that it calls with `super()`
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            object.__setattr__(self, "_arguments", dict(list(bound.arguments.items())[1:]))
        init(self, *args, **kwargs)

    return wrapped


def describe(made: Described, skip: int = 0) -> Description:
    """`class_path` and `init_args` of an object.

    Args:
        skip: how many of the first arguments to leave out: those that `make` is given.

    Raises:
        ConfigError: an argument that plain values cannot express.
    """
    kind = type(made)
    arguments = list(getattr(made, "_arguments", {}).items())[skip:]
    init_args = {name: _plain(value, f"{kind.__name__}.{name}") for name, value in arguments}
    return {"class_path": class_path(kind), "init_args": init_args}


def class_path(kind: type) -> str:
    """The shortest path that `kind` can be imported by: without the module, where a package exports the class."""
    parts = kind.__module__.split(".")
    for count in range(1, len(parts)):
        package = ".".join(parts[:count])
        if getattr(sys.modules.get(package), kind.__name__, None) is kind:
            return f"{package}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def make(description: Description, *given: Any) -> Any:
    """The object that `describe` described.

    Args:
        given: its first arguments, which the description leaves out.

    Raises:
        ConfigError: no such class, or arguments that it does not take.
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
        f"{name}: {type(value).__name__} cannot be kept in a checkpoint; take numbers, text, lists or dataclasses"
    )
