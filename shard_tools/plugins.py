"""Plug-ins: what other packages add, found by entry points or registered by a module that `--import` names.

    group       what it holds                                               used by
    encoders    module with subclasses of `bassl_fast.Encoder`              --encoder, class_path
    methods     module with subclasses of `bassl_fast.Method`               --method, class_path
    metrics     (films, threshold) -> percent                               evaluate
    outputs     film with its scenes -> text of a file                      scenes
    sources     request of `pack` -> source, or None if it is another kind  pack

An installed package declares entry points of the group `bassl_fast.outputs`, say `"scenes.srt" = "module:function"`. A
module that is only imported decorates the function with `register("outputs", "scenes.srt")`. See docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from .errors import ConfigError
from .storage.untrusted import one_line

GROUPS = ("encoders", "methods", "metrics", "outputs", "sources")
_registered: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
Thing = TypeVar("Thing")


def register(group: str, name: str) -> Callable[[Thing], Thing]:
    """Decorator that adds a function to a group under a name.

    Raises:
        ConfigError: no such group.
    """
    if group not in GROUPS:
        raise ConfigError(f"plug-in group '{group}': choose one of {', '.join(GROUPS)}")

    def add(thing: Thing) -> Thing:
        _registered[group][name] = thing
        return thing

    return add


def found(group: str) -> dict[str, Any]:
    """Name -> object of all plug-ins of a group: those of installed packages and those registered.

    Raises:
        ConfigError: a plug-in cannot be imported.
    """
    return {point.name: _load(point) for point in _points(group)} | _registered[group]


def load_classes() -> None:
    """Import the encoders and methods of installed packages, so that their classes can be named.

    Raises:
        ConfigError: one cannot be imported.
    """
    for group in ("encoders", "methods"):
        found(group)


def provides(module: str) -> bool:
    """Whether an installed plug-in stands for `module`: the user chose its package, so it may be imported."""
    top = module.split(".")[0]
    return any(point.module.split(".")[0] == top for group in GROUPS for point in _points(group))


def import_modules(names: Iterable[str]) -> None:
    """Import what `--import` named.

    Raises:
        ConfigError: a module cannot be imported.
    """
    for name in names:
        try:
            import_module(name)
        except Exception as error:  # whatever the module does when it is imported
            raise ConfigError(f"--import {name}: cannot be imported ({one_line(error)}); check the name") from None


@lru_cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"bassl_fast.{group}"))


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever the package does when it is imported
        package = point.dist.name if point.dist else point.module
        raise ConfigError(
            f"plug-in {point.name} of {package}: cannot be imported ({one_line(error)}); update or uninstall it"
        ) from None
