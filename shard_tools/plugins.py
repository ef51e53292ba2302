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

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from .errors import BasslFastError, ConfigError
from .storage.untrusted import one_line

CLASSES = ("encoders", "methods")
FUNCTIONS = ("metrics", "outputs", "sources")
_registered: dict[str, dict[str, Callable]] = {group: {} for group in FUNCTIONS}
_imported: list[str] = []  # modules that `--import` of this command named
Thing = TypeVar("Thing", bound=Callable)


def register(group: str, name: str) -> Callable[[Thing], Thing]:
    """Decorator that adds a function to a group under a name.

    Raises:
        ConfigError: no such group, or another function has the name. A function that is defined again, as in a
            notebook, replaces itself.
    """
    if group not in FUNCTIONS:
        raise ConfigError(f"plug-in group '{group}': choose one of {', '.join(FUNCTIONS)}")

    def add(thing: Thing) -> Thing:
        _refuse_second(group, name, _registered[group].get(name), thing)
        _registered[group][name] = thing
        return thing

    return add


def functions(group: str, ours: Collection[str] = ()) -> dict[str, Callable]:
    """Name -> function of all plug-ins of a group: those of installed packages and those registered.

    A function that fails raises a `ConfigError` that names its plug-in; our own errors pass through.

    Args:
        group: one of `FUNCTIONS`.
        ours: names that a plug-in must not take.

    Raises:
        ConfigError: a plug-in cannot be imported, or its name is taken.
    """
    found: dict[str, Callable] = {}
    loaded = [(point.name, _load(point)) for point in _points(group)]
    for name, function in (*loaded, *_registered[group].items()):
        if not callable(function):
            raise ConfigError(f"plug-in {name}: {function!r} is not a function; declare it as module:function")
        if name in ours:
            raise ConfigError(
                f"plug-in {name} of {_origin(function)}: bassl-fast has its own {name}; rename the plug-in"
            )
        _refuse_second(group, name, found.get(name), function)
        found[name] = function
    return {name: partial(_call, name, function) for name, function in found.items()}


def _refuse_second(group: str, name: str, first: Callable | None, second: Callable) -> None:
    """Raises: ConfigError if two functions have the same name."""
    if first is not None and _origin(first) != _origin(second):
        raise ConfigError(
            f"plug-in {name} of {_origin(second)}: {_origin(first)} has the same name in {group}; rename or remove one"
        )


def _origin(function: Callable) -> str:
    """Module and name of a function."""
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"


def _call(name: str, function: Callable, *arguments: Any) -> Any:
    with named(f"{name} of {_origin(function)}"):
        return function(*arguments)


@contextmanager
def named(plugin: str) -> Iterator[None]:
    """While code of a plug-in runs: a failure becomes a `ConfigError` that names it; our own errors pass through."""
    try:
        yield
    except BasslFastError:
        raise
    except Exception as error:  # whatever the plug-in does
        raise ConfigError(
            f"plug-in {plugin}: failed ({type(error).__name__}: {one_line(error)}); fix or remove it "
            "(--debug shows where)"
        ) from error


def load_classes() -> None:
    """Import the encoders and methods of installed packages, so that their classes can be named.

    Raises:
        ConfigError: one cannot be imported.
    """
    for group in CLASSES:
        for point in _points(group):
            _load(point)


def provides(module: str) -> bool:
    """Whether an installed plug-in stands for `module`: the user chose its package, so it may be imported."""
    top = module.split(".")[0]
    return any(point.module.split(".")[0] == top for group in (*CLASSES, *FUNCTIONS) for point in _points(group))


def import_modules(names: Iterable[str]) -> None:
    """Import what `--import` of a command named.

    Raises:
        ConfigError: a module cannot be imported.
    """
    _imported.clear()  # those of an earlier command in this process
    for name in names:
        try:
            import_module(name)
        except BasslFastError:
            raise
        except Exception as error:  # whatever the module does when it is imported
            raise ConfigError(
                f"--import {name}: cannot be imported ({one_line(error)}); check the name and PYTHONPATH"
            ) from error
        _imported.append(name)


def imported() -> tuple[str, ...]:
    """The modules that `--import` of this command named, for processes on other machines."""
    return tuple(_imported)


@lru_cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"bassl_fast.{group}"))


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except BasslFastError:
        raise
    except Exception as error:  # whatever the package does when it is imported
        package = point.dist.name if point.dist else point.module
        raise ConfigError(
            f"plug-in {point.name} of {package}: cannot be imported ({one_line(error)}); update or uninstall it"
        ) from error
