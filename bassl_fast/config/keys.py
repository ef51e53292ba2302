"""Checks of configuration keys against options, class arguments and dataclass fields."""

from __future__ import annotations

import importlib
import inspect
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from shard_tools.errors import ConfigError

from .spelling import nearest, subclasses


def check_keys(known: set[str], config: dict[str, Any], source: str, prefix: str = "") -> None:
    """Refuse unknown keys.

    Args:
        known: dotted names of all options.
        config: nested dictionaries.
        source: the file they are from, for errors.

    Raises:
        ConfigError: an unknown key (names the nearest known one), or a value where keys are expected.
    """
    for key, value in config.items():
        path = f"{prefix}{key}"
        below = {name[len(path) + 1 :] for name in known if name.startswith(path + ".")}
        if path not in known and not below:
            siblings = {name[len(prefix) :].split(".")[0] for name in known if name.startswith(prefix)}
            raise ConfigError(f"{source}: unknown key '{path}'{nearest(str(key), siblings)}")
        if below and not isinstance(value, dict):
            raise ConfigError(f"{source}: {path}: expected keys ({', '.join(sorted(below))}), got {value!r}")
        if below:
            check_keys(known, value, source, path + ".")
        elif isinstance(value, dict):
            _check_class(value, source, path)


def _check_class(value: dict[str, Any], source: str, path: str) -> None:
    """Check the keys of a `class_path` / `init_args` pair, and of dataclasses among the arguments."""
    for key in value:
        if key not in ("class_path", "init_args"):
            raise ConfigError(f"{source}: unknown key '{path}.{key}'{nearest(key, ('class_path', 'init_args'))}")
    class_path = str(value.get("class_path", ""))
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError):  # TypeError: a relative path
        raise ConfigError(
            f"{source}: {path}.class_path '{class_path}': no such module; write package.module.Class"
        ) from None
    if not inspect.isclass(target := getattr(module, name, None)):
        classes = [known for known, thing in vars(module).items() if inspect.isclass(thing)]
        raise ConfigError(f"{source}: {path}.class_path: no class '{name}' in {module_name}{nearest(name, classes)}")
    types = {key: hint for key, hint in typing.get_type_hints(target.__init__).items() if key != "return"}
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"{source}: {path}.init_args: expected keys ({', '.join(types)}), got {arguments!r}")
    for key, argument in arguments.items():
        where = f"{path}.init_args.{key}"
        if key not in types:
            raise ConfigError(f"{source}: unknown key '{where}' of {name}{nearest(key, types)}")
        if (kind := _dataclass_in(types[key])) is None or (argument is None and kind is not types[key]):
            continue
        several = isinstance(argument, list) and typing.get_origin(types[key]) is tuple
        for number, one in enumerate(argument if several else [argument]):
            _check_fields(kind, one, source, f"{where}[{number}]" if several else where)


def fields_of(base: type, argument: str) -> set[str]:
    """Fields of the dataclasses that subclasses of `base` take as `argument`."""
    hints = (typing.get_type_hints(kind.__init__).get(argument) for kind in subclasses(base))  # type: ignore[misc]
    return {field.name for hint in hints if (kind := _dataclass_in(hint)) is not None for field in fields(kind)}


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass in a type hint: `D`, `D | None` or `tuple[D, ...]`."""
    return next(
        (kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type) and is_dataclass(kind)), None
    )


def _check_fields(kind: type, value: Any, source: str, where: str) -> None:
    """Check the keys of a dataclass among the arguments of a class."""
    known = [field.name for field in fields(kind)]
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: {where}: expected keys ({', '.join(known)}), got {value!r}")
    for key in value:
        if key not in known:
            raise ConfigError(f"{source}: unknown key '{where}.{key}'{nearest(key, known)}")
