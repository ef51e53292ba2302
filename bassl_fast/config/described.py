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
from typing import Any, TypeVar

from shard_tools import plugins
from shard_tools.errors import ConfigError
from shard_tools.storage.untrusted import one_line

from .parser import instantiate

Description = dict[str, Any]
Made = TypeVar("Made")


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


def make(description: Description, base: type[Made], *given: Any) -> Made:
    """Build the object of a description, which may be from a file of unknown origin.

    Args:
        base: class of the object; nothing but its concrete subclasses is built.
        given: the leading arguments that the description leaves out.

    Raises:
        ConfigError: no such class, or it does not take the arguments.
    """
    if not isinstance(description, dict):
        raise ConfigError(f"description of the {base.__name__.lower()}: expected keys, got {description!r:.50}")
    kind = _find(str(description.get("class_path")), base)
    arguments = description.get("init_args") or {}
    if _names_class(arguments):
        raise ConfigError(f"{kind.__name__}: an argument names another class; arguments are plain values")
    return instantiate(kind, arguments, given)


def _find(path: str, base: type[Made]) -> type[Made]:
    """The class of a path.

    A file must not choose what is imported. Searched are modules beside `base`, those of installed plug-ins, and those
    that are imported already.
    """
    module, _, name = path.rpartition(".")
    package, _, last = module.rpartition(".")
    ours = package == base.__module__.rpartition(".")[0] and last.isidentifier()
    if module not in sys.modules and (ours or plugins.provides(module)):
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a plug-in does when it is imported
            raise ConfigError(f"class {path}: its module cannot be imported ({one_line(error)})") from None
    if module not in sys.modules:
        raise ConfigError(f"needs class {path}; if you trust it, name its module: --import {module}")
    kind = getattr(sys.modules[module], "__dict__", {}).get(name)
    if not (inspect.isclass(kind) and issubclass(kind, base)) or inspect.isabstract(kind):
        raise ConfigError(f"{path} cannot be built as {base.__name__}; name a concrete subclass")
    return kind


def _names_class(value: Any) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(map(_names_class, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_class, value))


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
