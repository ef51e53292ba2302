"""Names as users type them: classes in any spelling, and suggestions for unknown names."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable

from shard_tools.errors import ConfigError


def subclasses(base: type) -> Iterable[type]:
    """All direct and indirect subclasses of a class."""
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        yield kind
        yield from subclasses(kind)


def class_names(base: type) -> list[str]:
    """Names of the subclasses of `base` that can be built."""
    return sorted({kind.__name__ for kind in subclasses(base) if not inspect.isabstract(kind)}, key=str.lower)


def class_name(base: type, word: str) -> str:
    """The name of the subclass of `base` whose letters and digits match `word`; a class path is returned unchanged.

    Raises:
        ConfigError: there is none; suggests the nearest name.
    """
    if "." in word:
        return word

    def letters(name: str) -> str:
        return re.sub(r"\W|_", "", name).lower()

    names = {letters(name): name for name in class_names(base)}
    if letters(word) not in names:
        raise ConfigError(f"no {base.__name__.lower()} '{word}'{nearest(word, names)}")
    return names[letters(word)]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown `word`: the most similar known name, or all known names."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
