"""Add films to a finished set: what the set holds already, as if it had just been packed.

New shards are packed beside the old ones. The arrays of both are written to files of their own, `frames.2.npy`, which
only the next manifest names. So the manifest is what adds the films: until it is written, and for readers that opened
the set before, the set is the old one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shard_tools.annotations.labels import Annotated, ShotLabels
from shard_tools.errors import ShardError
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.source import Source
from shard_tools.storage.output import Place
from shard_tools.storage.untrusted import parse_json

from .writer import PackedShard


@dataclass(frozen=True)
class Earlier:
    """A set before films are added; by default an empty one, whose files will be the first.

    Attributes:
        shards: of its films.
        annotated: film -> what the set knows of its shots.
        speech: film -> rows `[S]` of `fmt.SPEECH`, if the set has them.
        report: its report of completeness, as JSON.
        edition: how often its manifest was written.
    """

    shards: list[PackedShard] = field(default_factory=list)
    annotated: dict[str, Annotated] = field(default_factory=dict)
    speech: dict[str, np.ndarray] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    edition: int = 0

    def with_films(self, packed: list[PackedShard]) -> list[PackedShard]:
        """All shards, in order of name."""
        return sorted([*self.shards, *packed], key=lambda shard: shard.name.encode()) if self.shards else packed

    def next_file(self, array: str) -> str:
        """Name of the file of an array of `fmt.ARRAYS` when the set is written next."""
        name = PurePosixPath(array)
        return f"{name.stem}.{self.edition + 1}{name.suffix}" if self.edition else array


def read_earlier(place: Place, source: Source) -> Earlier:
    """The finished set at `place`, to which the films of `source` will be added.

    Raises:
        ShardError: there is no finished set, either is not of films, or a film is in both.
    """
    if place.size(fmt.MANIFEST) is None:
        raise ShardError(f"{place.uri}: no finished set of shards to add to; leave out --add")
    index = ShardIndex.open(place.uri)
    if {index.kind, source.kind} != {fmt.FILMS}:
        raise ShardError(f"{place.uri}: a set of {index.kind}; only films can be added to films, not {source.kind}")
    if both := sorted({shard.name for shard in source.shards} & set(index.films)):
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise ShardError(f"{place.uri}: already holds film {both[0]}{more}; leave it out of the source")
    manifest = parse_json((index.root / fmt.MANIFEST).read_text(encoding="utf-8"))
    found = [_film(index, film) for film in range(len(index.sequences))]
    annotated = {shard.name: annotated_by(labels) for shard, labels in found}
    speech = {} if index.shots.dtype == fmt.SHOT else {name: index.shots_of(i) for i, name in enumerate(index.films)}
    return Earlier(
        [shard for shard, _ in found], annotated, speech, manifest.get("completeness", {}), manifest.get("edition", 1)
    )


def _film(index: ShardIndex, film: int) -> tuple[PackedShard, ShotLabels]:
    row, shots = index.sequences[film], index.shots_of(film)
    shard, first = index.shards[int(row["shard"])], int(row["first_frame"])
    columns = ["name", "shots", "frames_per_shot", "height", "width"]
    sequences = np.array([tuple(row[columns])], [(name, row.dtype[name]) for name in columns])
    frames = index.frames[first : first + shard["frames"]]
    numbers = shots["shot"].astype(np.int64)
    packed = PackedShard(index.name_of(film), "", shard["bytes"], shard["sha256"], sequences, numbers, frames)
    known = {name: shots[name] for name in ("boundary", "scene", "start", "end")}
    return packed, ShotLabels(numbers, split=row["split"].decode(), **known)


def annotated_by(labels: ShotLabels) -> Annotated:
    """Labels of a film as annotations, with times."""
    rows = zip(labels.shot.tolist(), labels.boundary.tolist(), labels.scene.tolist(), strict=True)
    times = np.full((int(labels.shot.max(initial=-1)) + 1, 2), -1, np.int32)
    times[labels.shot] = np.stack([labels.start, labels.end], 1)
    return Annotated(labels.split, {shot: (boundary, scene) for shot, boundary, scene in rows}, times=times)
