"""YAML files as plain values, with limits on their size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from shard_tools.errors import ConfigError
from shard_tools.storage.untrusted import one_line

_LARGEST = 1 << 20  # bytes per file
_MOST_VALUES, _MOST_BRACKETS = 10_000, 100  # per file, and per line


def read_yaml(path: str) -> dict[str, Any]:
    """A YAML file as plain values.

    Raises:
        ConfigError: it cannot be read, is not YAML, names a key twice, or expands to too many values.
    """
    try:
        if Path(path).stat().st_size > _LARGEST:
            raise ConfigError(f"{path}: not YAML of a configuration (more than {_LARGEST >> 20} MiB)")
        text = Path(path).read_text(encoding="utf-8")
        # PyYAML's time grows with the square of the open brackets in a line.
        if any(line.count("[") > _MOST_BRACKETS for line in text.splitlines()):
            raise ConfigError(f"{path}: more than {_MOST_BRACKETS} brackets in a line; write one list entry per line")
        check_duplicates(text, path)
        content = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give an existing YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({one_line(error)})") from None
    if sum(1 for _ in islice(_values(content), _MOST_VALUES)) == _MOST_VALUES:
        raise ConfigError(f"{path}: expands to more than {_MOST_VALUES} values; check its aliases")
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a configuration; expected 'key: value' lines")
    return content


def check_duplicates(text: str, source: str) -> None:
    """Refuse a key given twice, of which YAML would keep the last.

    Args:
        text: YAML.
        source: where it is from, for errors.

    Raises:
        ConfigError: names the key.
        yaml.YAMLError: not YAML.
    """
    left, seen = [yaml.compose(text, yaml.SafeLoader)], set()
    while left:
        node = left.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := [key for key, times in Counter(keys).items() if times > 1]:
                raise ConfigError(f"{source}: key '{twice[0]}' is duplicated; give it once")
            left += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value


def _values(tree: Any) -> Iterator[Any]:
    """All values of a tree; values of an alias count every time it is used."""
    left = [tree]
    while left:
        yield (value := left.pop())
        if isinstance(value, dict | list):
            left += [*value.keys(), *value.values()] if isinstance(value, dict) else value
