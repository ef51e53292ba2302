"""Bytes of any key-frame, straight from memory-mapped shards and checked against the index when first read."""

from __future__ import annotations

import zlib
from functools import lru_cache, partial

import numpy as np

from shard_tools.errors import PictureError
from shard_tools.format import ShardIndex

# Shards mapped at a time: each holds a file descriptor, and 1,024 of those is a common limit.
_MAPPED = 256


class Store:
    """Reads key-frames of local shards.

    Args:
        index: of the opened shards.
    """

    def __init__(self, index: ShardIndex) -> None:
        self.index = index
        self._checked = np.zeros(len(index.frames), bool)
        self._map = lru_cache(_MAPPED)(partial(_map_shard, index))

    def read(self, frames: np.ndarray) -> list[np.ndarray]:
        """JPEG bytes of the key-frame rows `frames` `[N]`, as N uint8 views into the shards (no copy).

        Raises:
            PictureError: bytes that differ from the index; names shard, member and offset.
        """
        rows = self.index.frames[frames]
        films = np.searchsorted(self.index.sequences["first_frame"], frames, side="right") - 1
        shards = self.index.sequences["shard"][films]
        starts, sizes = rows["offset"].tolist(), rows["size"].tolist()
        pictures = [self._map(s)[a : a + n] for s, a, n in zip(shards.tolist(), starts, sizes, strict=True)]
        for i in np.flatnonzero(~self._checked[frames]).tolist():
            if zlib.crc32(pictures[i]) != rows["crc32"][i]:
                raise PictureError(self.describe(int(frames[i]), "bytes differ from the index (crc32)"))
        self._checked[frames] = True
        return pictures

    def describe(self, frame: int, fault: str) -> str:
        """One line that names the key-frame, its shard and offset, and what to do."""
        shard, member, offset = self.index.locate(frame)
        return f"{shard}: {member} at byte {offset}: {fault}; copy the shard again or pack again"


def _map_shard(index: ShardIndex, shard: int) -> np.ndarray:
    return np.memmap(index.root / index.shards[shard]["name"], np.uint8, mode="r")
