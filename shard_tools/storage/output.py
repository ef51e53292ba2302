"""A folder to write shards to, local or remote. A file in it is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Protocol, TextIO

from shard_tools.errors import RemoteError, ShardError
from shard_tools.storage.atomic import write_atomically

from .checksums import sha256_of
from .remote import attempt, filesystem, is_remote, listing

_NO_FSYNC_OF_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # CIFS, VirtualBox's folders, some of FUSE
PARTS = ".pack"  # folder of what only a pack at work needs, beside the shards


class Place(Protocol):
    """The folder that `pack` writes to. Names may contain `/`."""

    uri: str

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it does not exist."""

    def read(self, name: str) -> bytes | None:
        """Contents of a file; None if it does not exist."""

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file."""

    def take(self, path: Path, name: str) -> None:
        """Move a finished local file to `name`."""

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

    def settle(self) -> None:
        """Flush the names of all files written so far to disk."""

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder; empty if it does not exist."""

    def sha256(self, name: str) -> str:
        """sha256 of a file."""

    def scratch(self) -> Path:
        """A local folder for files that `take` then moves."""

    def clear(self) -> None:
        """Delete what only a running pack needs."""

    def writing(self) -> AbstractContextManager[None]:
        """Held by one process at a time, where locks exist."""

    def join(self) -> None:
        """Called by a worker process: no other pack may write here until it has ended too."""


def open_place(uri: str | Path) -> Place:
    """The folder at a path or address.

    Raises:
        RemoteError: an address that cannot be written to.
    """
    if (protocol := str(uri).split("://")[0]) in ("http", "https", "hf"):
        raise RemoteError(f"{uri}: {protocol} addresses are read-only; give a path, or an s3:// or gs:// address")
    return RemotePlace(str(uri)) if is_remote(uri) else LocalPlace(Path(uri))


class LocalPlace:
    """A local folder; files are written as `.tmp` and renamed."""

    def __init__(self, root: Path) -> None:
        self.root, self.uri = root, str(root)

    def size(self, name: str) -> int | None:
        path = self.root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def take(self, path: Path, name: str) -> None:
        os.replace(path, self.root / name)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def settle(self) -> None:
        folder = os.open(self.root, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _NO_FSYNC_OF_FOLDERS:
                raise
        finally:
            os.close(folder)

    def names(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.root / folder).glob("*"))

    def sha256(self, name: str) -> str:
        with open(self.root / name, "rb") as file:
            return sha256_of(file)

    def scratch(self) -> Path:
        folder = self.root / PARTS
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear(self) -> None:
        shutil.rmtree(self.root / PARTS, ignore_errors=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        scratch = self.scratch()
        with open(scratch / "lock", "w") as lock, open(scratch / "workers", "w") as workers:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _wait_for_none(workers)
            except BlockingIOError:
                raise ShardError(
                    f"{self.root}: another pack is writing here; wait for it or choose another folder"
                ) from None
            except OSError:  # some network file systems have no locks
                pass
            yield

    def join(self) -> None:
        self._joined = open(self.scratch() / "workers")  # noqa: SIM115 (held until the process ends)
        with suppress(OSError):
            fcntl.flock(self._joined, fcntl.LOCK_SH)


def _wait_for_none(workers: TextIO) -> None:
    """Wait until no worker holds the file: the workers of a killed pack die a moment after it."""
    for wait in (0.05, 0.1, 0.2, 0.5, 0):
        try:
            fcntl.flock(workers, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(workers, fcntl.LOCK_UN)
            return
        except BlockingIOError:
            if not wait:
                raise
            time.sleep(wait)


class RemotePlace:
    """A remote folder. Object stores show a file only when it is whole, and have no locks."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs, self._root = filesystem(uri)
        self._scratch = tempfile.TemporaryDirectory(prefix="bassl-fast-")

    def _try(self, name: str, action):
        return attempt(f"{self.uri}/{name}", action)

    def size(self, name: str) -> int | None:
        try:
            return self._try(name, lambda: self._fs.size(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes | None:
        try:
            return self._try(name, lambda: self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        self._put(name, lambda: self._fs.pipe_file(f"{self._root}/{name}", data))

    def copy(self, path: Path, name: str) -> None:
        """Copy a local file to `name`; what was there before stays until the copy is complete."""
        self._put(name, lambda: self._fs.put_file(str(path), f"{self._root}/{name}"))

    def take(self, path: Path, name: str) -> None:
        self.copy(path, name)
        path.unlink()

    def _put(self, name: str, action: Callable[[], object]) -> None:
        try:
            self._try(name, action)
        except FileNotFoundError:
            raise RemoteError(f"{self.uri}/{name}: no such bucket or folder; create it, or fix the address") from None

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._try(name, lambda: self._fs.rm_file(f"{self._root}/{name}"))

    def settle(self) -> None:
        pass

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in listing(f"{self.uri}/{folder}"))
        except FileNotFoundError:
            return []

    def tree(self, folder: str) -> list[str]:
        """Names of all files below a folder."""
        found = self._try(folder, lambda: self._fs.find(f"{self._root}/{folder}"))
        names = (path.removeprefix(f"{self._root}/") for path in found)
        return [name for name in names if not name.endswith("/") and name not in (folder, self._root)]  # not marks

    def sha256(self, name: str) -> str:
        def read() -> str:
            with self._fs.open(f"{self._root}/{name}", "rb", block_size=8 << 20) as file:
                return sha256_of(file)

        return self._try(name, read)

    def scratch(self) -> Path:
        return Path(self._scratch.name)

    def clear(self) -> None:
        for name in self.names(PARTS):
            self.delete(f"{PARTS}/{name}")
        self._scratch.cleanup()

    def writing(self):
        return nullcontext()

    def join(self) -> None:
        pass
