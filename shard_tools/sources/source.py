"""What a source of shards is, whatever it was found in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from shard_tools.errors import SourceError

Buffer = bytes | memoryview


_SMALL = 1 << 16  # bytes; most key-frames are smaller


class Keyframe(NamedTuple):
    """Name for messages, and how to get its bytes."""

    name: str
    read: Callable[[], Buffer]


Keyframes = tuple[np.ndarray, list[list[Keyframe]]]  # shot numbers [S] and, per shot, its key-frames in order


class Sequence(NamedTuple):
    """A film, picture or clip: shot numbers `[S]` and, per shot, its pictures in order; all shots have as many."""

    name: str
    shots: np.ndarray
    images: Iterable[Iterable[Keyframe]]


class Scan(NamedTuple):
    """A shard's source as it stands: digest of what is known without reading pictures (names, sizes, times, crc32)."""

    fingerprint: str
    sequences: Callable[[], Iterable[Sequence]]


class SourceShard(NamedTuple):
    """What goes into one shard, and how to look at it; it travels to worker processes.

    Attributes:
        name: of the shard; of a film, the film's.
        labels: `[N]` class numbers of its sequences, -1 unknown; none for a film, whose labels are those of its shots.
    """

    name: str
    scan: Callable[[], Scan]
    split: str = ""
    labels: np.ndarray | None = None


class Source(NamedTuple):
    """A set to pack.

    Attributes:
        kind: "films", "pictures" or "clips".
        shards: in order.
        classes: names of classes, in order of label; none of films.
        fps: frames a second of clips, 0 unknown.
        reading: how it was read, which the manifest keeps for a repair; see `layouts.Reading`.
    """

    kind: str
    shards: list[SourceShard]
    classes: list[str]
    fps: float
    reading: dict[str, Any]


def facts(path: str) -> str:
    """Name, size and time of a file: a digest of these tells whether anybody touched it."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; extract or fetch it again") from None
    return f"{path[path.rindex('/') + 1 :]} {found.st_size} {found.st_mtime_ns}"


def read_file(path: str) -> bytes:
    """All of a small file; pathlib takes four times as long."""
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            data = os.read(file, _SMALL)
            while len(data) % _SMALL == 0 and (more := os.read(file, _SMALL)):
                data += more
            return data
        finally:
            os.close(file)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; extract or fetch it again") from None


def digest(lines: Iterable[str]) -> str:
    """sha256 of lines of text, as hexadecimal."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
