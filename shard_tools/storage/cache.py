"""Remote shards on this machine: a folder of bounded size that any number of processes share.

    <folder>/index/<sha256 of the manifest>/     the index arrays of one version of a set
    <folder>/shards/<sha256>.tar                 whole, checked shards; least recently used go first
    <folder>/shards/<sha256>.<bytes>.tmp         one that is being fetched; its bytes are taken into account already
    <folder>/files/<sha256 of an address>/       the latest version of any other file: a checkpoint, a film's features

Shards are named by what they hold, so one that was replaced remotely is another file, and no clock but this machine's
matters. Locks are the kernel's (flock): a reader holds a shared one on the shard it has open, whoever fetches holds an
exclusive one on the `.tmp`, and what nobody holds any more belonged to a process that died.
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

_POLL = 0.02  # seconds between two looks at what another process does


def sha256_of(file: IO[bytes]) -> str:
    """Checksum of what is left to read in `file`, as hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class OpenShard:
    """A shard in use: its bytes, and the file whose lock keeps it in the cache until `close` (None: no cache)."""

    data: np.ndarray
    file: IO[bytes] | None = None

    def close(self) -> None:
        """Let the cache delete the shard. The map, and every view into it, stays valid."""
        if self.file is not None:
            self.file.close()


class Cache:
    """Files of remote sets, fetched when asked for and kept up to a limit.

    Args:
        folder: of this machine; made if missing. `$BASSL_FAST_CACHE` or `~/.cache/bassl-fast` if left out.
        limit: most bytes that its shards may take; `$BASSL_FAST_CACHE_GIB` or 256 GiB if left out.
        wait: seconds that a fetch, or room for it, is tried for.
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
        """Folder of this machine with manifest and index arrays of the set at `address`, checked against each other.

        Raises:
            ShardError: no set there, or its files do not fit its manifest.
            RemoteError: it cannot be reached in time.
        """
        fs, root = filesystem(address)
        try:
            manifest = attempt(f"{address}/{manifest_name}", lambda: fs.cat_file(child(root, manifest_name)), self.wait)
        except FileNotFoundError:
            raise ShardError(
                f"{address}/{manifest_name}: missing, so this is no finished set of shards; run `bassl-fast pack` to "
                "its end"
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
        """A shard of the set at `address`, fetched if it is not here; it stays in the cache until closed.

        Args:
            shard: its row of the manifest.
            release: called when there is no room: closes a shard that the caller holds, or returns False.

        Raises:
            ShardError: the shard is gone or was replaced; the disk is full.
            RemoteError: it cannot be fetched in time, or everything in the cache stays in use.
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
                if (now := _size(tmp)) != seen:  # somebody else is fetching it, and gets on
                    deadline, seen = time.monotonic() + self.wait, now
                if time.monotonic() > deadline:
                    raise RemoteError(
                        f"{name}: no room in {self.folder} for {self.wait:.0f} s, all {self.limit / 2**30:.3g} GiB of "
                        "its shards are in use; set BASSL_FAST_CACHE_GIB higher"
                        if full
                        else f"{name}: another process has it and stands still for {self.wait:.0f} s; stop it"
                    )
                time.sleep(_POLL)

    def file(self, address: str) -> Path:
        """A remote file that is no shard: its latest version on this machine, fetched if that is not here.

        Versions are told apart by size and what the server says (an ETag, a date); where it says nothing, the file is
        fetched each time. The version before goes; who has it mapped keeps it.

        Raises:
            FileNotFoundError: no such file.
            RemoteError: it cannot be fetched in time.
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
        """Held by the one process or thread that fetches into `tmp`."""
        deadline, seen = time.monotonic() + self.wait, None
        while (file := _lock(tmp)) is None:
            if (now := _size(tmp)) != seen:  # whoever has it gets on
                deadline, seen = time.monotonic() + self.wait, now
            if time.monotonic() > deadline:
                raise RemoteError(f"{name}: another process has it and stands still for {self.wait:.0f} s; stop it")
            time.sleep(_POLL)
        with file:
            yield

    def _make_private(self) -> None:
        """Make the folder, if it is not there, for this user alone: what keys were needed for is not everybody's."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def _reserve(self, tmp: Path, path: Path, size: int) -> tuple[IO[bytes] | None, bool]:
        """The locked `.tmp` to fetch into, or None: another has it or just finished; and whether room is what lacks."""
        with self._alone():
            if path.exists() or (file := _lock(tmp)) is None:
                return None, False
            if self._make_room(size, tmp):
                return file, False
            tmp.unlink(missing_ok=True)
            file.close()
            return None, True

    def _make_room(self, size: int, mine: Path) -> bool:
        """Delete what is used least until `size` bytes are free of the limit; never what is in use."""
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
                with suppress(FileNotFoundError):  # somebody tidies up
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
        """Copy a remote file to `tmp` and check it; a copy that differs is fetched once more."""
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
        """Held while it is decided what goes and who fetches; never while fetching."""
        deadline = time.monotonic() + self.wait
        with open(self.folder / "lock", "w") as lock:
            while not _flock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RemoteError(
                        f"{lock.name}: another process holds it and stands still for {self.wait:.0f} s; stop it"
                    )
                time.sleep(_POLL)
            yield


def local_file(where: str | Path) -> Path:
    """The file at a path, which need not be there; of the one at an address, a copy on this machine.

    Raises:
        FileNotFoundError, RemoteError, ShardError: as of `Cache.file`.
    """
    return Cache().file(str(where)) if is_remote(where) else Path(where)


def _size(tmp: Path) -> int | None:
    try:
        return tmp.stat().st_size
    except FileNotFoundError:
        return None


def _lock(path: Path, create: bool = True) -> IO[bytes] | None:
    """The file, locked for this process alone; None if another has it, or it went meanwhile."""
    try:
        file = open(path, "ab" if create else "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    if _flock(file, fcntl.LOCK_EX) and os.fstat(file.fileno()).st_nlink:
        return file
    file.close()
    return None


def _flock(file: IO[Any], kind: int) -> bool:
    """Lock a file unless others have it; nobody waits in the kernel, where a wait has no end."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_locked(path: Path) -> OpenShard | None:
    """A shard of the cache with a shared lock on it, moved to the front; None if it is not here, or about to go."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    if not _flock(file, fcntl.LOCK_SH) or os.fstat(file.fileno()).st_nlink == 0:
        file.close()
        return None
    os.utime(path, ns=(time.time_ns(),) * 2)  # the kernel's own "now" moves in steps of milliseconds
    return OpenShard(np.memmap(path, np.uint8, mode="r"), file)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Say plainly what the disk under the cache says."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"{error.filename or folder}: {error.strerror or error}; make room there or choose another cache folder"
        ) from error
