"""What a source of shards is, whatever its layout."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from shard_tools.annotations.labels import ShotLabels
from shard_tools.errors import SourceError

Buffer = bytes | memoryview
_SMALL = 1 << 16  # bytes; most key-frames are smaller


class Keyframe(NamedTuple):
    """A picture's name for messages, and a function that reads its bytes."""

    name: str
    read: Callable[[], Buffer]


Keyframes = tuple[np.ndarray, list[list[Keyframe]]]  # shot numbers [S] and, per shot, its key-frames in order


class Sequence(NamedTuple):
    """A film, picture or clip: shot numbers `[S]` and, per shot, its pictures in order, the same number for all."""

    name: str
    shots: np.ndarray
    images: Iterable[Iterable[Keyframe]]


class Scan(NamedTuple):
    """The source of a shard as it is now. The fingerprint is a digest of what is known without reading pictures: names,
    sizes, times, crc32."""

    fingerprint: str
    sequences: Callable[[], Iterable[Sequence]]


class SourceShard(NamedTuple):
    """What goes into one shard, and a function that scans it; it is pickled for worker processes.

    Attributes:
        name: of the shard; a film's shard has the name of the film.
        labels: `[N]` class numbers of its sequences, -1 unknown; None for a film, which has labels per shot.
        plugin: name of the plug-in that reads it, for errors; empty for our own readers.
    """

    name: str
    scan: Callable[[], Scan]
    split: str = ""
    labels: np.ndarray | None = None
    plugin: str = ""


class Source(NamedTuple):
    """A set to pack.

    Attributes:
        kind: "films", "pictures" or "clips".
        shards: in order of name.
        classes: names of classes, in order of label; none for films.
        fps: frames a second of clips, 0 unknown.
        reading: how it was read, see `detect.Reading`; the manifest keeps it for a repair.
        labels: film -> labels of its shots, if the source brings them; None: `pack` reads MovieNet's annotations.
    """

    kind: str
    shards: list[SourceShard]
    classes: list[str]
    fps: float
    reading: dict[str, Any]
    labels: dict[str, ShotLabels] | None = None


def film_scan(name: str, fingerprint: str, keyframes: Callable[[], Keyframes]) -> Scan:
    """The scan of a shard that is one film; `keyframes` is called when it is packed."""
    return Scan(fingerprint, lambda: [Sequence(name, *keyframes())])


def facts(path: str) -> str:
    """Name, size and time of a file, whose digest changes when the file does."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; extract or fetch it again") from None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path}: not a plain file; remove it")
    return f"{path[path.rindex('/') + 1 :]} {found.st_size} {found.st_mtime_ns}"


def read_file(path: str) -> bytes:
    """The bytes of a small file; pathlib takes four times as long."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe is empty, and not waited for
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
