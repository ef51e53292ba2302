"""Read the bytes of any key-frame from memory-mapped shards, local or in the cache of remote ones."""

from __future__ import annotations

import mmap
import threading
import weakref
import zlib
from collections import OrderedDict
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from shard_tools.errors import PictureError, RemoteError, masked
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.shard import open_shard
from shard_tools.storage.cache import OpenShard

from .jpeg_structure import structure_fault
from .mixing import part_of
from .views import VIEW

# Shards mapped at a time: each takes a file descriptor or two, and 1,024 is a common limit.
MAPPED = 256
CHANGED = "bytes differ from the index (crc32)"
_FETCHERS = 2  # remote shards downloaded at a time


class Store:
    """Reads key-frames; each is compared with its crc32 the first time.

    If one differs in a cached shard, that copy is dropped and the shard fetched again, before anything else is blamed.

    Args:
        index: of the opened shards.
        mapped: most shards open at a time; the cache does not delete an open shard.
        for_gpu: also check that JPEGs are well-formed, the first time, see `jpeg_structure`.
    """

    def __init__(self, index: ShardIndex, mapped: int = MAPPED, for_gpu: bool = False) -> None:
        self.index, self._mapped, self._for_gpu = index, mapped, for_gpu
        self._first_frame = index.sequences["first_frame"].astype(np.int64)
        self._checked = np.zeros(-(-len(index.frames) // 8), np.uint8)  # one bit per key-frame
        self._open: OrderedDict[int, _Mapped] = OrderedDict()
        self._fresh: set[int] = set()  # shards fetched again, whose bytes differ all the same
        self._fetchers: _Fetchers | None = None

    def read(self, frames: np.ndarray) -> list[np.ndarray]:
        """JPEG bytes of the key-frame rows `frames` `[N]`, as N uint8 views into the shards (no copy).

        Raises:
            PictureError: bytes that differ from the index, or are malformed; names shard, member and offset.
            ShardError, RemoteError: a shard cannot be opened or downloaded.
        """
        pictures, faults = self.check(frames)
        if faults:
            raise PictureError(self.describe(*next(iter(faults.items()))))
        return pictures

    def check(self, frames: np.ndarray) -> tuple[list[np.ndarray], dict[int, str]]:
        """As `read`, but also returns the faults by key-frame row, instead of raising."""
        pictures, faults = self._check(frames)
        if altered := {shard for shard in self._changed(faults) - self._fresh if part_of(self.index, shard)[0].cache}:
            for shard in altered:
                part_of(self.index, shard)[0].cache.drop(self._map(shard).shard)  # type: ignore[union-attr]  # see above
                del self._open[shard]
            pictures, faults = self._check(frames)
            self._fresh |= altered & self._changed(faults)
        return pictures, faults

    def _check(self, frames: np.ndarray) -> tuple[list[np.ndarray], dict[int, str]]:
        rows = self.index.frames[frames]
        starts, sizes = rows["offset"].tolist(), rows["size"].tolist()
        shards = self.index.sequences["shard"][self.films_of(frames)].tolist()
        mapped = {shard: self._map(shard) for shard in dict.fromkeys(shards)}
        pictures = [mapped[shard].view(start, size) for shard, start, size in zip(shards, starts, sizes, strict=True)]
        return pictures, self._faults(frames, rows["crc32"], pictures)

    def _changed(self, faults: dict[int, str]) -> set[int]:
        """Shards of the key-frames whose bytes differ."""
        frames = np.array([frame for frame, fault in faults.items() if fault == CHANGED], np.int64)
        return set(self.index.sequences["shard"][self.films_of(frames)].tolist())

    def _faults(self, frames: np.ndarray, crc32: np.ndarray, pictures: list[np.ndarray]) -> dict[int, str]:
        bytes_, bits = frames >> 3, np.uint8(1) << (frames & 7).astype(np.uint8)
        faults: dict[int, str] = {}
        for i in np.flatnonzero(self._checked[bytes_] & bits == 0).tolist():
            if zlib.crc32(pictures[i]) != crc32[i]:
                faults[int(frames[i])] = CHANGED
            elif self._for_gpu and (fault := structure_fault(pictures[i])):
                faults[int(frames[i])] = fault
            else:
                self._checked[bytes_[i]] |= bits[i]
        return faults

    def fetch_ahead(self, frames: np.ndarray) -> None:
        """Start to download the remote shards of key-frame rows `frames`, in order; reading them raises the errors."""
        if self._fetchers is None:
            self._fetchers = _Fetchers(self.index)
        for shard in dict.fromkeys(self.index.sequences["shard"][self.films_of(frames)].tolist()):
            if shard not in self._open and part_of(self.index, shard)[0].cache is not None:
                self._fetchers.ask(shard)

    def describe(self, frame: int, fault: str) -> str:
        """One line that names the key-frame, its shard and offset, and the fix."""
        shard, member, offset = self.index.locate(frame)
        return f"{masked(shard)}: {member} at byte {offset}: {fault}; run `bassl-fast verify` on the shards"

    def whole(self, frames: np.ndarray) -> np.ndarray:
        """Rows `[N]` of `VIEW` with the `height` and `width` of key-frame rows."""
        films, regions = self.index.sequences[self.films_of(frames)], np.zeros(len(frames), VIEW)
        for side in ("height", "width"):
            regions[side] = films[side]
        return regions

    def films_of(self, frames: np.ndarray) -> np.ndarray:
        """Film numbers of key-frame rows."""
        return np.searchsorted(self._first_frame, frames, side="right") - 1

    def _map(self, shard: int) -> _Mapped:
        found = self._open.get(shard)
        if found is None:
            if self._fetchers is not None:
                self._fetchers.asked.discard(shard)
            if len(self._open) >= self._mapped:
                self._release()
            opened = open_shard(*part_of(self.index, shard), self._release)
            pages: Any = opened.data.base
            found = self._open[shard] = _Mapped(opened, np.asarray(opened.data), pages)
        self._open.move_to_end(shard)
        return found

    def _release(self) -> bool:
        """Close the least recently used shard; views into it stay valid. False if none is open."""
        if not self._open:
            return False
        self._open.popitem(last=False)[1].shard.close()
        return True


class _Mapped(NamedTuple):
    shard: OpenShard
    bytes: np.ndarray  # as a plain array: a slice of a memmap takes ten times as long
    pages: mmap.mmap

    def view(self, start: int, size: int) -> np.ndarray:
        """The bytes, requested from the disk in advance, so that key-frames are read in parallel, and only they."""
        if start + size <= len(self.bytes):
            skip = start % mmap.PAGESIZE
            self.pages.madvise(mmap.MADV_WILLNEED, start - skip, skip + size)
        return self.bytes[start : start + size]


class _Fetchers:
    """Threads that download remote shards to the cache.

    Nothing waits for them: a reader opens a shard through the cache, which downloads what is missing, or waits for a
    download in progress. They are daemons, so a program can end without downloading what it will not read.
    """

    def __init__(self, index: ShardIndex) -> None:
        self.asked: set[int] = set()
        self._shards: SimpleQueue[int | None] = SimpleQueue()
        for _ in range(_FETCHERS):
            threading.Thread(target=_fetch, args=(index, self._shards, self.asked), name="fetch", daemon=True).start()
        weakref.finalize(self, _end, self._shards)

    def ask(self, shard: int) -> None:
        if shard not in self.asked:
            self.asked.add(shard)
            self._shards.put(shard)


def _fetch(index: ShardIndex, shards: SimpleQueue[int | None], asked: set[int]) -> None:
    def no_room() -> bool:
        raise RemoteError("no room to download ahead: only the reader can release a shard")

    while (shard := shards.get()) is not None:
        try:
            open_shard(*part_of(index, shard), no_room).close()
        except Exception:  # the reader will meet it too
            asked.discard(shard)


def _end(shards: SimpleQueue[int | None]) -> None:
    while not shards.empty():
        shards.get_nowait()
    for _ in range(_FETCHERS):
        shards.put(None)
