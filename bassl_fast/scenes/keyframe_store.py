"""Key-frames of a film on disk while its scenes are found: those of three hours would take 150 MB of memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any


class KeyframeStore:
    """JPEGs in an unnamed temporary file, which is gone once neither the store nor any of its key-frames is in use."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="bassl-fast-")  # noqa: SIM115  # closed when unused
        self._size = 0

    def add(self, jpegs: Iterable[bytes]) -> StoredKeyframes:
        """Write the key-frames of a shot."""
        jpegs = tuple(jpegs)
        bounds = tuple(accumulate(map(len, jpegs), initial=self._size))
        self._file.write(b"".join(jpegs))
        self._file.flush()
        self._size = bounds[-1]
        return StoredKeyframes(self._file, bounds)


class _Keyframes(Sequence[bytes]):
    """JPEG bytes of the key-frames of a shot, read when asked for; compared by content, and pickled as a tuple."""

    def __init__(self, places: Iterable[Any]) -> None:
        self._places = tuple(places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._places[index]
        return tuple(map(self._read, chosen)) if isinstance(index, slice) else self._read(chosen)

    def _read(self, place: Any) -> bytes:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


class StoredKeyframes(_Keyframes):
    """In the file of a `KeyframeStore`, between these bounds."""

    def __init__(self, file: IO[bytes], bounds: tuple[int, ...]) -> None:
        super().__init__(pairwise(bounds))
        self._file = file

    def _read(self, place: tuple[int, int]) -> bytes:
        return os.pread(self._file.fileno(), place[1] - place[0], place[0])


class KeyframeFiles(_Keyframes):
    """Each in a file of its own."""

    def _read(self, place: Path) -> bytes:
        return place.read_bytes()
