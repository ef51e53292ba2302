"""Rows of a large `.npy` file, read in blocks; the last few blocks are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from shard_tools.storage.untrusted import map_npy

_BLOCK = 4096  # rows read at a time
_KEPT = 256  # blocks; of 16-byte rows, 16 MiB


class Rows:
    """A one-dimensional structured array on disk, indexed like a numpy array, in bounded memory.

    A memory map is simpler, but a kernel with large folios maps half a megabyte around every row that is read.

    Args:
        path: `.npy` file.

    Raises:
        ValueError: not a `.npy` file. OSError: it cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        array = map_npy(path)
        self.path, self.dtype, self.shape = Path(path), array.dtype, array.shape
        file = open(path, "rb")  # noqa: SIM115 (closed with the object)
        self._read = partial(_read, file, array.offset, array.dtype)
        self._block = lru_cache(_KEPT)(partial(_read_block, self._read, array.size))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """A row, or rows `[...]` by slice or integers `[...]`."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            return self._read(start, max(start, stop))[::step]
        rows = np.asarray(key, np.int64)
        found = np.empty(rows.shape, self.dtype)
        blocks, places = np.divmod(rows, _BLOCK)
        wanted = np.unique(blocks).tolist()
        if len(wanted) > _KEPT:  # scattered: reading single rows is less than reading blocks
            each = [self._read(row, row + 1) for row in rows.ravel().tolist()]
            return np.concatenate(each).reshape(rows.shape)
        for block in wanted:
            mine = blocks == block
            found[mine] = self._block(block)[places[mine]]
        return found[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype)

    def __iter__(self) -> Iterator[np.void]:
        return iter(self[:])

    def __reduce__(self) -> tuple:
        return Rows, (self.path,)


def _read(file: IO[bytes], offset: int, dtype: np.dtype, start: int, stop: int) -> np.ndarray:
    data = os.pread(file.fileno(), (stop - start) * dtype.itemsize, offset + start * dtype.itemsize)
    return np.frombuffer(data, dtype)


def _read_block(read: partial, size: int, block: int) -> np.ndarray:
    return read(block * _BLOCK, min(size, (block + 1) * _BLOCK))
