"""Key-frames of a film on disk while its scenes are found: those of three hours would take 150 MB of memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any


class KeyframeStore:
    """JPEGs in an unnamed temporary file, which is gone once neither the store nor any of its key-frames is in use."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="bassl-fast-")  # noqa: SIM115  # closed when unused
        self._size = 0

    def add(self, jpegs: Iterable[bytes]) -> Keyframes:
        """Write the key-frames of a shot."""
        jpegs = tuple(jpegs)
        bounds = tuple(accumulate(map(len, jpegs), initial=self._size))
        self._file.write(b"".join(jpegs))
        self._file.flush()
        self._size = bounds[-1]
        return Keyframes(self._read, pairwise(bounds))

    def _read(self, span: tuple[int, int]) -> bytes:
        return os.pread(self._file.fileno(), span[1] - span[0], span[0])


class Keyframes(Sequence[bytes]):
    """JPEG bytes of the key-frames of a shot, read when asked for; compared by content, and pickled as a tuple.

    Args:
        read: a place to the bytes there.
        places: one for each key-frame.
    """

    def __init__(self, read: Callable[[Any], bytes], places: Iterable[Any]) -> None:
        self._read, self._places = read, tuple(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._places[index]
        return tuple(map(self._read, chosen)) if isinstance(index, slice) else self._read(chosen)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


def keyframe_files(folder: Path, names: Iterable[str]) -> Keyframes:
    """Key-frames that are each in a file of their own."""
    return Keyframes(lambda name: (folder / name).read_bytes(), names)
