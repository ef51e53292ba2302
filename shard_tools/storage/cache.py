"""The cache of remote shards: a local folder of bounded size, shared by any number of processes.

    <folder>/index/<sha256 of the manifest>/     the index arrays of one version of a set
    <folder>/shards/<sha256>.tar                 whole, checked shards; the least recently used are deleted first
    <folder>/shards/<sha256>.<bytes>.tmp         a shard being downloaded; its bytes already count
    <folder>/files/<sha256 of an address>/       the latest version of any other file: a checkpoint, a film's features

Shards are named by their checksum, so a shard replaced remotely is another file, and only this machine's clock matters.
Locks are the kernel's (flock): a reader holds a shared lock on each shard it has open, a download an exclusive one on
its `.tmp`. A `.tmp` without a lock was left by a process that died.
"""

from __future__ import annotations

import fcntl
import hashlib
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

from .remote import WAIT, attempt, child, fetch, filesystem, is_remote, version_of
from .untrusted import one_line, parse_json

_POLL = 0.02  # seconds between two checks of what another process does


def sha256_of(file: IO[bytes]) -> str:
    """sha256 of the rest of `file`, as hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


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
        ConfigError: `$BASSL_FAST_CACHE_GIB` is not a number.
    """

    def __init__(self, folder: str | Path | None = None, limit: float | None = None, wait: float = WAIT) -> None:
        if limit is None:
            gib = os.environ.get("BASSL_FAST_CACHE_GIB") or "256"
            try:
                limit = float(gib) * 2**30
            except ValueError:
                raise ConfigError(f"BASSL_FAST_CACHE_GIB {gib!r}: must be a number of GiB") from None
        self.folder = Path(folder or os.environ.get("BASSL_FAST_CACHE") or Path.home() / ".cache" / "bassl-fast")
        self.limit, self.wait = limit, wait
        self._shards = self.folder / "shards"

    def index(self, address: str, manifest_name: str, arrays: tuple[str, ...]) -> Path:
        """Local folder with manifest and index arrays of the set at `address`, checked against each other.

        Raises:
            ShardError: no set there, or its files do not match its manifest.
            RemoteError: it cannot be reached in time.
            ConfigError: the cache is smaller than one shard.
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
            expected = {name: (int(facts["index"][name]["bytes"]), facts["index"][name]["sha256"]) for name in arrays}
            largest = max(int(shard["bytes"]) for shard in facts["shards"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ShardError(f"{address}/{manifest_name}: not a manifest ({one_line(error)}); pack again") from None
        if largest > self.limit:
            raise ConfigError(
                f"cache limit {self.limit / 2**30:.3g} GiB: the largest shard of {address} has "
                f"{largest / 2**30:.3g} GiB; set BASSL_FAST_CACHE_GIB higher"
            )
        folder = self.folder / "index" / hashlib.sha256(manifest).hexdigest()
        with _disk(self.folder):
            self._make_private()
            folder.mkdir(parents=True, exist_ok=True)
            for name, (size, sha256) in expected.items():
                path = folder / name
                if not (path.is_file() and path.stat().st_size == size):
                    tmp = folder / f"{name}.{os.getpid()}.tmp"
                    self._fetch(fs, child(root, name), f"{address}/{name}", tmp, size, sha256)
                    os.replace(tmp, path)
            (folder / f"{os.getpid()}.tmp").write_bytes(manifest)
            os.replace(folder / f"{os.getpid()}.tmp", folder / manifest_name)
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
        with _disk(self.folder):
            self._make_private()
            self._shards.mkdir(exist_ok=True)
            while True:
                if found := _open_locked(path):
                    count("cache_misses" if fetched else "cache_hits")
                    return found
                reserved, full = self._reserve(tmp, path, size)
                if reserved is not None:
                    with reserved:
                        fs, root = filesystem(address)
                        self._fetch(fs, child(root, shard["name"]), name, tmp, size, sha256)
                        os.replace(tmp, path)
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
                        else f"{name}: is held by a process that made no progress for {self.wait:.0f} s; stop it"
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
        folder = self.folder / "files" / hashlib.sha256(address.encode()).hexdigest()
        path, tmp = folder / f"{key}-{address.split('?')[0].rsplit('/', 1)[-1]}", folder / f"{key}.tmp"
        with _disk(self.folder):
            self._make_private()
            folder.mkdir(parents=True, exist_ok=True)
            with self._locked(tmp, address):
                if version and path.is_file():
                    tmp.unlink(missing_ok=True)
                    return path
                attempt(address, lambda: fetch(fs, remote, tmp, size), self.wait)
                count("cache_bytes", tmp.stat().st_size)
                os.replace(tmp, path)
                for old in folder.iterdir():
                    if old != path and (unused := _lock(old, create=False)) is not None:
                        old.unlink(missing_ok=True)
                        unused.close()
        return path

    @contextmanager
    def _locked(self, tmp: Path, name: str) -> Iterator[None]:
        """Held by the one process or thread that downloads into `tmp`."""
        deadline, seen = time.monotonic() + self.wait, None
        while (file := _lock(tmp)) is None:
            if (now := _size(tmp)) != seen:  # its holder makes progress
                deadline, seen = time.monotonic() + self.wait, now
            if time.monotonic() > deadline:
                raise RemoteError(f"{name}: is held by a process that made no progress for {self.wait:.0f} s; stop it")
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
        with self._alone():
            if path.exists() or (file := _lock(tmp)) is None:
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
                if (left := _lock(path, create=False)) is not None:  # its process died
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
            if (unused := _lock(path, create=False)) is not None:
                path.unlink(missing_ok=True)
                unused.close()
                total -= freed
        return total <= self.limit

    def _fetch(self, fs: Any, remote: str, name: str, tmp: Path, size: int, sha256: str) -> None:
        """Download a file to `tmp` and check it; a copy that differs is downloaded once more."""
        try:
            for _ in range(2):
                try:
                    attempt(name, lambda: fetch(fs, remote, tmp, size), self.wait)
                except FileNotFoundError:
                    raise ShardError(f"{name}: missing; copy it there again or pack again") from None
                with open(tmp, "rb") as file:
                    if sha256_of(file) == sha256:
                        count("cache_bytes", size)
                        return
            raise ShardError(
                f"{name}: differs from its manifest, replaced or damaged; copy the set again or pack again"
            )
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Held while deciding what to delete and who downloads; never during a download."""
        deadline = time.monotonic() + self.wait
        with open(self.folder / "lock", "w") as lock:
            while not _flock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RemoteError(
                        f"{lock.name}: is held by a process that made no progress for {self.wait:.0f} s; stop it"
                    )
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


def _lock(path: Path, create: bool = True) -> IO[bytes] | None:
    """The file with an exclusive lock; None if another process has it, or it was deleted."""
    try:
        file = open(path, "ab" if create else "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    if _flock(file, fcntl.LOCK_EX) and os.fstat(file.fileno()).st_nlink:
        return file
    file.close()
    return None


def _flock(file: IO[Any], kind: int) -> bool:
    """Lock a file unless others have it. Never waits in the kernel, where a wait has no timeout."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_locked(path: Path) -> OpenShard | None:
    """A cached shard with a shared lock on it, marked as just used; None if it is not here or about to be deleted."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    if not _flock(file, fcntl.LOCK_SH) or os.fstat(file.fileno()).st_nlink == 0:
        file.close()
        return None
    os.utime(path, ns=(time.time_ns(),) * 2)  # the kernel's own "now" has a resolution of milliseconds
    return OpenShard(np.memmap(path, np.uint8, mode="r"), file)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn an error of the cache's disk into one line."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{error.filename or folder}: {error.strerror or error}; make room there or choose another cache folder"
        ) from error
