"""What a person asks of the cache: what is in it, whether it is as it arrived, and to empty it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shard_tools.progress import Progress

from . import cache_disk
from .cache import LOCK, Cache
from .checksums import sha256_of_file
from .locks import open_locked
from .untrusted import parse_json

KINDS = ("shards", "index", "files", "unfinished")  # as the folders of the cache; then downloads that have not ended
_MANIFEST = "manifest.json"
_FILE = re.compile(r"[0-9a-f]{16}-([0-9a-f]{64})-.*", re.DOTALL)


class Cached(NamedTuple):
    """A file of the cache."""

    path: Path
    kind: str  # one of `KINDS`
    size: int


def cached_files(cache: Cache) -> Iterator[Cached]:
    """All files, without locks; none if there is no cache yet.

    Raises:
        ShardError: the folder cannot be read.
    """
    with cache_disk.errors_of(cache.folder):
        for folder in KINDS[:3]:
            for path in sorted((cache.folder / folder).rglob("*")):
                if path.name != LOCK and path.is_file():
                    yield Cached(path, "unfinished" if path.suffix == ".tmp" else folder, path.stat().st_size)


def drop_altered(cache: Cache, progress: Progress | None = None) -> list[Path]:
    """Compare all files with their checksums and delete those that differ; whoever has them open keeps them.

    Args:
        progress: called with bytes read.

    Raises:
        ShardError: the folder cannot be read or written.
    """
    dropped = []
    for path, kind, size in cached_files(cache):
        with cache_disk.errors_of(cache.folder):
            try:
                if kind != "unfinished" and sha256_of_file(path) != _expected(path, kind):
                    path.unlink()
                    dropped.append(path)
            except FileNotFoundError:  # deleted meanwhile, as happens when room is made
                continue
        if progress:
            progress(size)
    return dropped


def clear(cache: Cache) -> None:
    """Delete all files that no process has open: shards, indexes, other files and ends of downloads.

    Raises:
        ShardError: the folder cannot be read or written.
        RemoteError: a process holds the cache's own lock and makes no progress.
    """
    with cache_disk.errors_of(cache.folder):
        if not cache.folder.is_dir():
            return
        with cache.alone():
            for folder in (cache.folder / "index").glob("*"):
                if (unused := open_locked(folder / LOCK, create=True)) is not None:
                    shutil.rmtree(folder)
                    unused.close()
            for path, kind, _ in cached_files(cache):
                if kind != "index" and (unused := open_locked(path)) is not None:
                    path.unlink(missing_ok=True)
                    unused.close()


def _expected(path: Path, kind: str) -> str:
    """The sha256 that a file has by its name, or by the manifest beside it; "" if neither says."""
    if kind == "shards":
        return path.stem
    if kind == "files":
        return match[1] if (match := _FILE.fullmatch(path.name)) else ""
    try:
        index = parse_json((path.parent / _MANIFEST).read_bytes())["index"]
        return path.parent.name if path.name == _MANIFEST else index[path.name]["sha256"]
    except (ValueError, KeyError, TypeError):
        return ""
