"""Several sets of shards as one: films, shots, key-frames and shards are numbered set after set.

set A     films 0 1 2    shards 0 1
set B     films 0 1      shards 0          together   films 0 1 2 3 4    shards 0 1 2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex

from .plan import Mix, Plan, Pools, check_weights
from .samples import ShotTable


@dataclass(frozen=True)
class JoinedIndex(ShardIndex):
    """The index of several sets; see `join`.

    Attributes:
        parts: their own indexes.
        weights: of the sets, see `plan.Mix`.
    """

    parts: tuple[ShardIndex, ...]
    weights: tuple[float, ...]

    def digest(self) -> str:
        """Those of all sets, joined by "+"."""
        return "+".join(part.digest() for part in self.parts)

    def select(self, split: str | None) -> np.ndarray:
        """Indices of the films of `split` in all sets. Raises: ShardError if one has none."""
        firsts = _firsts([part.sequences for part in self.parts])
        return np.concatenate([first + part.select(split) for first, part in zip(firsts, self.parts, strict=False)])

    def locate(self, frame: int) -> tuple[str, str, int]:
        at, number = _place([part.frames for part in self.parts], frame)
        return self.parts[at].locate(number)

    def sets(self, films: np.ndarray) -> list[np.ndarray]:
        """The films `[N]` of each set."""
        at = np.searchsorted(_firsts([part.sequences for part in self.parts])[1:], films, side="right")
        return [films[at == number] for number in range(len(self.parts))]


def open_sets(shards: str | Mapping[str, float]) -> ShardIndex:
    """Open one set, or several with their weights.

    Raises:
        ConfigError, ShardError, RemoteError: see `plan.check_weights`, `join` and `ShardIndex.open`.
    """
    if isinstance(shards, str):
        return ShardIndex.open(shards)
    if len(shards) < 2:
        raise ConfigError("data.shards: weights are for several sets; give one set without a weight")
    check_weights(shards.values())
    return join([ShardIndex.open(path) for path in shards], list(shards.values()))


def join(parts: Sequence[ShardIndex], weights: Sequence[float]) -> ShardIndex:
    """The index of several sets, whose films are numbered set after set.

    Raises:
        ConfigError: sets of different kinds or classes, or the same set twice.
    """
    first, seen = parts[0], dict[str, str]()
    for part in parts:
        if (digest := part.digest()) in seen:
            raise ConfigError(f"data.shards: {part.address} is the same set as {seen[digest]}; name it once")
        seen[digest] = part.address
        if part.kind != first.kind:
            raise ConfigError(
                f"data.shards: {first.address} holds {first.kind}, {part.address} {part.kind}; mix sets of one kind"
            )
        if part.classes != first.classes:
            raise ConfigError(f"data.shards: {part.address} has other classes than {first.address}; pack them alike")
    return JoinedIndex(
        kind=first.kind,
        classes=first.classes,
        root=first.root,
        address=" + ".join(part.address for part in parts),
        cache=next((part.cache for part in parts if part.cache is not None), None),
        shards=[shard for part in parts for shard in part.shards],
        frames=_Joined([part.frames for part in parts]),  # type: ignore[arg-type]  # indexed like `Rows`
        sequences=_sequences(parts),
        shots=_Joined([part.shots for part in parts]),  # type: ignore[arg-type]
        parts=tuple(parts),
        weights=tuple(weights),
    )


def part_of(index: ShardIndex, shard: int) -> tuple[ShardIndex, int]:
    """The set that a shard is of, and its number there."""
    if not isinstance(index, JoinedIndex):
        return index, shard
    at, number = _place([part.shards for part in index.parts], shard)
    return index.parts[at], number


def plan_of(
    index: ShardIndex, films: np.ndarray, run_length: int, global_batch: int, seed: int, pool: int | None
) -> Plan | Mix:
    """The plan of the samples of `films` `[N]`: of one set, or of several by their weights.

    Args:
        run_length, global_batch, seed, pool: see `loader.WindowLoader`.

    Raises:
        ConfigError: no samples, or see `Mix`.
    """
    sets = index.sets(films) if isinstance(index, JoinedIndex) else [films]
    tables = [ShotTable(index, some, run_length) for some in sets]
    counts = [(len(table), None if pool is None else Pools(table.together, pool)) for table in tables]
    if isinstance(index, JoinedIndex):
        return Mix(counts, index.weights, global_batch, seed)
    return Plan(counts[0][0], global_batch, seed, counts[0][1])


class _Joined:
    """Arrays of rows, one after the other, indexed as one without copying them."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays, self._firsts, self.dtype = arrays, _firsts(arrays), arrays[0].dtype

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, key: Any) -> Any:
        """A row, or rows `[...]` by slice or integers `[...]`."""
        numbers = np.arange(len(self))[key] if isinstance(key, slice) else np.asarray(key, np.int64)
        found, at = np.empty(numbers.shape, self.dtype), np.searchsorted(self._firsts[1:], numbers, side="right")
        for part in np.unique(at).tolist():
            mine = at == part
            found[mine] = self._arrays[part][numbers[mine] - self._firsts[part]]
        return found[()]


def _firsts(parts: Sequence[Any]) -> np.ndarray:
    """Number of the first row of each part, and of all rows."""
    return np.cumsum([0, *map(len, parts)])


def _place(parts: Sequence[Any], number: int) -> tuple[int, int]:
    """The part that a number falls into, and its number there."""
    firsts = _firsts(parts)
    at = int(np.searchsorted(firsts[1:], number, side="right"))
    return at, number - int(firsts[at])


def _sequences(parts: Sequence[ShardIndex]) -> np.ndarray:
    """The rows of all sets with the columns that all have, renumbered."""
    columns = [part.sequences.dtype.names or () for part in parts]
    names = [name for name in columns[0] if all(name in others for others in columns)]
    rows = np.concatenate([part.sequences[names] for part in parts])
    films = _firsts([part.sequences for part in parts])
    for column, of in (("shard", "shards"), ("first_frame", "frames"), ("first_shot", "shots")):
        firsts = _firsts([getattr(part, of) for part in parts])
        for begin, end, first in zip(films, films[1:], firsts, strict=False):
            rows[column][begin:end] += rows.dtype[column].type(first)
    return rows
