"""The cache of remote shards: a local folder of bounded size, shared by any number of processes.

    <folder>/index/<sha256 of the manifest>/     the index arrays of one version of a set
    <folder>/shards/<sha256>.tar                 whole, checked shards; the least recently used are deleted first
    <folder>/shards/<sha256>.<bytes>.tmp         a shard being downloaded; its bytes already count
    <folder>/files/<sha256 of an address>/       the latest version of any other file: a checkpoint, a film's features,
        <version>-<sha256>-<name>                by its own checksum

Files are named by their checksum, so a shard replaced remotely is another file, and only this machine's clock matters.
Each is checked when it arrives and flushed to disk before it has its name. What a disk or a person did to it later is
found where it is used, and it is fetched again: a shard's size when it is opened, its pictures when each is first read
(`pipelines.store`), all other files by their sha256, once a process.

Locks are the kernel's (flock): a reader holds a shared lock on each shard it has open and on the index of its set, a
download an exclusive one on its `.tmp`. A `.tmp` without a lock was left by a process that died.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from shard_tools.counters import count
from shard_tools.errors import ConfigError, RemoteError, ShardError

from . import cache_disk
from .checksums import sha256_of, sha256_once
from .locks import flock, open_locked
from .remote import WAIT, attempt, child, fetch, filesystem, is_remote, version_of
from .untrusted import is_plain_name, one_line, parse_json

LOCK = "lock"  # in the folder, and in that of each index
_log = logging.getLogger(__name__)
_POLL = 0.02  # seconds between two checks of what another process does
_LONGEST = 100  # bytes of a file's own name that are kept in the cache


@dataclass(frozen=True)
class OpenShard:
    """An open shard: its bytes, and the file whose lock keeps it in the cache until `close` (None: not cached)."""

    data: np.ndarray
    file: IO[bytes] | None = None

    def close(self) -> None:
        """Allow the cache to delete the shard. The map and all views into it stay valid."""
        if self.file is not None:
            self.file.close()


class Cache:
    """Files of remote sets, downloaded when needed and kept up to a limit.

    Args:
        folder: local folder, created if missing; by default `$BASSL_FAST_CACHE` or `~/.cache/bassl-fast`.
        limit: bytes that its shards may take; by default `$BASSL_FAST_CACHE_GIB` or 256 GiB.
        wait: seconds after which to give up on a download, or on room for it.

    Raises:
        ConfigError: a variable of the environment is not a local folder, or not a number of GiB.
    """

    def __init__(self, folder: str | Path | None = None, limit: float | None = None, wait: float = WAIT) -> None:
        self.folder = cache_disk.folder() if folder is None else Path(folder)
        self.limit, self.wait = cache_disk.limit() if limit is None else limit, wait
        self._shards = self.folder / "shards"
        self._indexes: list[IO[bytes]] = []  # held as long as this object lives

    def index(self, address: str, manifest_name: str, arrays: tuple[str, ...], for_shards: bool = True) -> Path:
        """Local folder with manifest and index arrays of the set at `address`, checked against each other.

        Raises:
            ShardError: no set there, or its files do not match its manifest.
            RemoteError: it cannot be reached in time.
            ConfigError: the cache is smaller than one shard, and is to keep them (`for_shards`).
        """
        fs, root = filesystem(address)
        try:
            manifest = attempt(f"{address}/{manifest_name}", lambda: fs.cat_file(child(root, manifest_name)), self.wait)
        except FileNotFoundError:
            raise ShardError(
                f"{address}/{manifest_name}: missing, so this is not a finished set of shards; run `bassl-fast pack` "
                "to its end"
            ) from None
        try:
            facts = parse_json(manifest)
            index = facts["index"]
            expected = {name: (int(index[name]["bytes"]), index[name]["sha256"]) for name in arrays}
            files = {name: index[name].get("file", name) for name in arrays}
            if not all(map(is_plain_name, files.values())):
                raise ValueError("the file of an array is not a plain file name")
            largest = max(int(shard["bytes"]) for shard in facts["shards"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ShardError(f"{address}/{manifest_name}: not a manifest ({one_line(error)}); pack again") from None
        if for_shards and largest > self.limit:
            raise ConfigError(
                f"cache limit {self.limit / 2**30:.3g} GiB: the largest shard of {address} has "
                f"{largest / 2**30:.3g} GiB; set BASSL_FAST_CACHE_GIB higher"
            )
        folder = self.folder / "index" / hashlib.sha256(manifest).hexdigest()
        with cache_disk.errors_of(self.folder):
            self._make_private()
            self._indexes.append(self._hold(folder))
            (folder / f"{os.getpid()}.tmp").write_bytes(manifest)
            _settle(folder / f"{os.getpid()}.tmp", folder / manifest_name)
            for name, (size, sha256) in expected.items():
                if not _is_whole(folder / name, sha256):
                    tmp = folder / f"{name}.{os.getpid()}.tmp"
                    self._fetch(fs, child(root, files[name]), f"{address}/{files[name]}", tmp, size, sha256)
                    _settle(tmp, folder / name)
        return folder

    def open(self, address: str, shard: dict[str, Any], release: Callable[[], bool] = lambda: False) -> OpenShard:
        """A shard of the set at `address`, downloaded if it is not here; it stays in the cache until closed.

        Args:
            shard: its entry in the manifest.
            release: called when there is no room: closes a shard that the caller has open, or returns False.

        Raises:
            ShardError: the shard is gone or was replaced, or the disk is full.
            RemoteError: it cannot be downloaded in time, or everything in the cache stays in use.
        """
        name, size, sha256 = f"{address}/{shard['name']}", shard["bytes"], shard["sha256"]
        path, tmp = self._shards / f"{sha256}.tar", self._shards / f"{sha256}.{size}.tmp"
        deadline, seen, fetched = time.monotonic() + self.wait, None, False
        with cache_disk.errors_of(self.folder):
            self._make_private()
            self._shards.mkdir(exist_ok=True)
            while True:
                if found := self._opened(path, size):
                    count("cache_misses" if fetched else "cache_hits")
                    return found
                reserved, full = self._reserve(tmp, path, size)
                if reserved is not None:
                    with reserved:
                        fs, root = filesystem(address)
                        self._fetch(fs, child(root, shard["name"]), name, tmp, size, sha256)
                        _settle(tmp, path)
                    fetched = True
                    continue
                if full and release():
                    continue
                if (now := _size(tmp)) != seen:  # another process is downloading it and makes progress
                    deadline, seen = time.monotonic() + self.wait, now
                if time.monotonic() > deadline:
                    raise RemoteError(
                        f"{name}: no room in {self.folder} for {self.wait:.0f} s, all {self.limit / 2**30:.3g} GiB of "
                        "its shards are in use; set BASSL_FAST_CACHE_GIB higher"
                        if full
                        else f"{name}: {self._stuck()}"
                    )
                time.sleep(_POLL)

    def file(self, address: str) -> Path:
        """The latest version of a remote file that is not a shard, as a local file; downloaded if it is not here.

        Versions are told apart by size and ETag or date; if the server states neither, the file is downloaded each
        time. The version before is deleted; a process that has it mapped keeps it.

        Raises:
            FileNotFoundError: no such file.
            RemoteError: it cannot be downloaded in time.
            ShardError: the disk is full.
        """
        fs, remote = filesystem(address)
        facts = attempt(address, lambda: fs.info(remote), self.wait)
        if facts.get("type") == "directory":
            raise FileNotFoundError(address)
        size, version = facts.get("size"), version_of(facts)
        key = hashlib.sha256(f"{size} {version}".encode()).hexdigest()[:16]
        name = address.split("?")[0].rsplit("/", 1)[-1].encode()[-_LONGEST:].decode(errors="ignore")
        folder = self.folder / "files" / hashlib.sha256(address.encode()).hexdigest()
        tmp = folder / f"{key}.tmp"
        with cache_disk.errors_of(self.folder):
            self._make_private()
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                with self._locked(tmp, address):
                    path = next(folder.glob(f"{key}-{'?' * 64}-*"), None) if version else None
                    if path is None:
                        sha256 = self._download(fs, remote, address, tmp, size)
                        path = folder / f"{key}-{sha256}-{name}"
                        _settle(tmp, path)
                        _delete_unused(folder, path)
                        return path
                    tmp.unlink(missing_ok=True)
                if _is_whole(path, path.name.split("-")[1]):
                    return path
                with suppress(FileNotFoundError):  # deleted by a process that found a later version
                    path.unlink()
                    _say_altered(path)

    def drop(self, shard: OpenShard) -> None:
        """Close a shard whose bytes are not those that arrived, and delete it; whoever has it open keeps it."""
        assert shard.file is not None, "a local shard"
        with cache_disk.errors_of(self.folder), shard.file as file, self.alone():
            path = Path(file.name)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):  # not yet replaced by another process
                    _say_altered(path)
                    path.unlink()

    def _opened(self, path: Path, size: int) -> OpenShard | None:
        """A cached shard with a shared lock on it, marked as just used; None if it is not here, or not for long."""
        file = open_locked(path, fcntl.LOCK_SH)
        if file is None:
            return None
        if os.fstat(file.fileno()).st_size != size:
            self.drop(OpenShard(np.empty(0, np.uint8), file))
            return None
        os.utime(file.fileno(), ns=(time.time_ns(),) * 2)  # the kernel's own "now" has a resolution of milliseconds
        try:
            return OpenShard(np.memmap(path, np.uint8, mode="r"), file)  # opened again: a map of `file` keeps its lock
        except FileNotFoundError:  # dropped by another process
            file.close()
            return None

    def _hold(self, folder: Path) -> IO[bytes]:
        """Create the folder of an index, if it is missing, with a shared lock that keeps it."""
        deadline = time.monotonic() + self.wait
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            if (file := open_locked(folder / LOCK, fcntl.LOCK_SH, create=True)) is not None:
                return file
            if time.monotonic() > deadline:
                raise RemoteError(f"{folder / LOCK}: {self._stuck()}")
            time.sleep(_POLL)

    def _stuck(self) -> str:
        return f"is held by a process that made no progress for {self.wait:.0f} s; stop it"

    @contextmanager
    def _locked(self, tmp: Path, name: str) -> Iterator[None]:
        """Held by the one process or thread that downloads into `tmp`."""
        deadline, seen = time.monotonic() + self.wait, None
        while (file := open_locked(tmp, create=True)) is None:
            if (now := _size(tmp)) != seen:  # its holder makes progress
                deadline, seen = time.monotonic() + self.wait, now
            if time.monotonic() > deadline:
                raise RemoteError(f"{name}: {self._stuck()}")
            time.sleep(_POLL)
        with file:
            yield

    def _make_private(self) -> None:
        """Create the folder for this user only: its files may have needed keys to read."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _reserve(self, tmp: Path, path: Path, size: int) -> tuple[IO[bytes] | None, bool]:
        """The locked `.tmp` to download into, and whether the cache is full.

        None if it is full, or another process is downloading the shard or has just finished.
        """
        with self.alone():
            if path.exists() or (file := open_locked(tmp, create=True)) is None:
                return None, False
            if self._make_room(size, tmp):
                return file, False
            tmp.unlink(missing_ok=True)
            file.close()
            return None, True

    def _make_room(self, size: int, mine: Path) -> bool:
        """Delete the least recently used shards, never one in use, until `size` bytes fit; True if they do."""
        total, candidates = size, []
        for path in self._shards.iterdir():
            if path == mine:
                continue
            if path.suffix == ".tmp":
                if (left := open_locked(path)) is not None:  # its process died
                    path.unlink(missing_ok=True)
                    left.close()
                else:
                    total += int(path.name.split(".")[1])
            elif path.suffix == ".tar":
                with suppress(FileNotFoundError):  # deleted by another process
                    facts = path.stat()
                    total += facts.st_size
                    candidates.append((facts.st_mtime_ns, facts.st_size, path))
        for _, freed, path in sorted(candidates):
            if total <= self.limit:
                break
            if (unused := open_locked(path)) is not None:
                path.unlink(missing_ok=True)
                unused.close()
                total -= freed
        return total <= self.limit

    def _fetch(self, fs: Any, remote: str, name: str, tmp: Path, size: int, sha256: str) -> None:
        """Download a file to `tmp` and check it; a copy that differs is downloaded once more."""
        try:
            for _ in range(2):
                if self._download(fs, remote, name, tmp, size) == sha256:
                    return
        except FileNotFoundError:
            raise ShardError(f"{name}: missing; copy it there again or pack again") from None
        tmp.unlink(missing_ok=True)
        raise ShardError(f"{name}: differs from its manifest, replaced or damaged; copy the set again or pack again")

    def _download(self, fs: Any, remote: str, name: str, tmp: Path, size: int | None) -> str:
        """Download a file to `tmp`, which a failure deletes; returns its sha256."""
        try:
            attempt(name, lambda: fetch(fs, remote, tmp, size), self.wait)
            count("cache_bytes", tmp.stat().st_size)
            with open(tmp, "rb") as file:
                return sha256_of(file)
        except BaseException as error:
            tmp.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(name) from None
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held while deciding what to delete and who downloads; never during a download."""
        deadline = time.monotonic() + self.wait
        with open(self.folder / LOCK, "w") as lock:
            while not flock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RemoteError(f"{lock.name}: {self._stuck()}")
                time.sleep(_POLL)
            yield


def local_file(where: str | Path) -> Path:
    """The path itself (which may not exist), or a local copy of the file at an address.

    Raises:
        FileNotFoundError, RemoteError, ShardError: see `Cache.file`.
    """
    return Cache().file(str(where)) if is_remote(where) else Path(where)


def _size(tmp: Path) -> int | None:
    try:
        return tmp.stat().st_size
    except FileNotFoundError:
        return None


def _is_whole(path: Path, sha256: str) -> bool:
    """Whether a file is here and has this checksum."""
    try:
        return sha256_once(path) == sha256
    except FileNotFoundError:
        return False


def _settle(tmp: Path, path: Path) -> None:
    """Flush a file to disk and give it its name, in this order: a name stands for whole contents."""
    with open(tmp, "rb") as file:
        os.fsync(file.fileno())
    os.replace(tmp, path)


def _delete_unused(folder: Path, keep: Path) -> None:
    """Delete the versions before, and parts of downloads that ended."""
    for old in folder.iterdir():
        if old != keep and (unused := open_locked(old)) is not None:
            old.unlink(missing_ok=True)
            unused.close()


def _say_altered(path: Path) -> None:
    _log.warning("%s: altered since it arrived; fetching it again", path)
