"""Bytes of any key-frame, from memory-mapped shards of this machine or of a bounded cache of remote ones."""

from __future__ import annotations

import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from shard_tools.cache import OpenShard
from shard_tools.errors import PictureError, RemoteError
from shard_tools.format import ShardIndex

# Shards mapped at a time: each holds a file descriptor or two, and 1,024 of those is a common limit.
MAPPED = 256
_FETCHERS = 2  # remote shards fetched at a time


class Store:
    """Reads key-frames; each is compared with its crc32 the first time, but for shards checked on arrival.

    Args:
        index: of the opened shards.
        mapped: most shards held open at a time; those of a cache cannot leave it.
    """

    def __init__(self, index: ShardIndex, mapped: int = MAPPED) -> None:
        self.index, self._mapped = index, mapped
        self._checked = np.zeros(len(index.frames), bool)  # untouched, it takes no memory
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._coming: dict[int, Future] = {}
        self._fetchers: ThreadPoolExecutor | None = None

    def read(self, frames: np.ndarray) -> list[np.ndarray]:
        """JPEG bytes of the key-frame rows `frames` `[N]`, as N uint8 views into the shards (no copy).

        Raises:
            PictureError: bytes that differ from the index; names shard, member and offset.
            ShardError, RemoteError: a remote shard cannot be fetched.
        """
        rows = self.index.frames[frames]
        starts, sizes = rows["offset"].tolist(), rows["size"].tolist()
        shards = self._shards_of(frames).tolist()
        pictures = [self._map(s)[a : a + n] for s, a, n in zip(shards, starts, sizes, strict=True)]
        new = () if self.index.cache else np.flatnonzero(~self._checked[frames]).tolist()
        for i in new:
            if zlib.crc32(pictures[i]) != rows["crc32"][i]:
                raise PictureError(self.describe(int(frames[i]), "bytes differ from the index (crc32)"))
        if new:
            self._checked[frames] = True
        return pictures

    def fetch_ahead(self, frames: np.ndarray) -> None:
        """Begin to fetch the remote shards of key-frame rows `frames`, in order; errors show when they are read."""
        if self._fetchers is None:
            self._fetchers = ThreadPoolExecutor(_FETCHERS, "fetch")
            weakref.finalize(self, self._fetchers.shutdown, wait=False, cancel_futures=True)
        for shard in dict.fromkeys(self._shards_of(frames).tolist()):
            coming = self._coming.get(shard)
            if shard not in self._open and (coming is None or (coming.done() and coming.exception())):
                self._coming[shard] = self._fetchers.submit(_fetch, self.index, shard)

    def describe(self, frame: int, fault: str) -> str:
        """One line that names the key-frame, its shard and offset, and what to do."""
        shard, member, offset = self.index.locate(frame)
        return f"{shard}: {member} at byte {offset}: {fault}; run `bassl-fast verify` on the shards"

    def _shards_of(self, frames: np.ndarray) -> np.ndarray:
        films = np.searchsorted(self.index.sequences["first_frame"], frames, side="right") - 1
        return self.index.sequences["shard"][films]

    def _map(self, shard: int) -> np.ndarray:
        found = self._open.get(shard)
        if found is None:
            if coming := self._coming.pop(shard, None):
                coming.exception()  # wait; if it failed, opening tells why
            if len(self._open) >= self._mapped:
                self._release()
            found = self._open[shard] = open_shard(self.index, shard, self._release)
        self._open.move_to_end(shard)
        return found.data

    def _release(self) -> bool:
        """Close the shard used least recently; views into it stay valid. False if none is open."""
        if not self._open:
            return False
        self._open.popitem(last=False)[1].close()
        return True


def open_shard(index: ShardIndex, shard: int, release: Callable[[], bool]) -> OpenShard:
    """A shard, mapped; `release` as of `Cache.open`."""
    facts = index.shards[shard]
    if index.cache is not None:
        return index.cache.open(index.address, facts, release)
    return OpenShard(np.memmap(index.root / facts["name"], np.uint8, mode="r"))


def _fetch(index: ShardIndex, shard: int) -> None:
    """Bring a shard into the cache; not if there is no room, for the reader who waits for this may hold it."""

    def no_room() -> bool:
        raise RemoteError("no room to fetch ahead")

    open_shard(index, shard, no_room).close()
