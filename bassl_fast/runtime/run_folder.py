"""The folder that a run writes to, local or remote.

    run -> local folder -> publish -> s3://...

For a remote folder the run works in a private local folder, and what changed there is copied file by file. An object
store shows a file only when its upload is complete, so after any failure the previous checkpoint is still whole.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from shard_tools.errors import RemoteError
from shard_tools.storage.atomic import check_writable
from shard_tools.storage.cache import local_file
from shard_tools.storage.output import RemotePlace, open_place
from shard_tools.storage.remote import is_remote, listing

_AT_A_TIME = 8  # small files copied


class RunFolder:
    """Where a run writes.

    Args:
        out: folder or address.

    Attributes:
        path: local folder to write to.

    Raises:
        RemoteError, ConfigError: an address or folder that cannot be written to.
    """

    def __init__(self, out: str | Path) -> None:
        self.out, self.path = str(out).rstrip("/"), Path(out)
        self._place: RemotePlace | None = None
        self._copied: dict[str, tuple[int, int]] = {}
        if is_remote(out):
            self._place = open_place(out)  # type: ignore[assignment]  # remote
            self.path = Path(tempfile.mkdtemp(prefix="bassl-fast-"))
            self._clear = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        else:
            check_writable(self.path)

    def where(self, name: str) -> str:
        """Final path or address of a file."""
        return f"{self.out}/{name}"

    def has(self, name: str) -> bool:
        """Whether the run has such a file, from now or earlier."""
        return (self.path / name).exists() if self._place is None else self._place.size(name) is not None

    def bring(self, pattern: str, folder: str = "") -> None:
        """Fetch the files of `folder` from an earlier run whose names match `pattern` to below `path`."""
        if self._place is None:
            return
        to = self.path / folder

        def fetch(name: str) -> None:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local_file(name), to / name.rsplit("/", 1)[-1])

        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(fetch, files(self.where(folder).rstrip("/"), pattern)))

    def replace(self, folder: str, last: str) -> None:
        """Replace the remote folder of this name by the local one; does nothing for a local run.

        Args:
            last: the file that makes the folder valid: the old one is deleted first, the new one written last.

        Raises:
            RemoteError: it cannot be copied in time.
        """
        place = self._place
        if place is None:
            return
        paths = {
            path.relative_to(self.path).as_posix(): path for path in (self.path / folder).rglob("*") if path.is_file()
        }
        last = f"{folder}/{last}"
        place.delete(last)
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(place.delete, set(place.tree(folder)) - paths.keys()))
            list(pool.map(lambda name: place.copy(paths[name], name), paths.keys() - {last}))
        place.copy(paths[last], last)
        shutil.rmtree(self.path / folder)

    def publish(self) -> None:
        """Copy what changed since the last call, checkpoints last; does nothing for a local run.

        Raises:
            RemoteError: it cannot be copied in time; the local folder is kept.
        """
        if self._place is None:
            return
        there = [path for path in self.path.rglob("*") if path.is_file() and path.suffix != ".tmp"]
        try:
            for path in sorted(there, key=lambda path: (path.suffix == ".ckpt", path)):
                name, facts = path.relative_to(self.path).as_posix(), path.stat()
                state = facts.st_mtime_ns, facts.st_size
                if self._copied.get(name) != state:
                    self._place.copy(path, name)
                    self._copied[name] = state
        except RemoteError as error:
            self._clear.detach()
            raise RemoteError(f"{error}; all files of the run are in {self.path}") from None


def folder_of(file: str | Path) -> str:
    """Path or address of the folder that a file is in."""
    return str(file).rsplit("/", 1)[0] if is_remote(file) else str(Path(file).parent)


def files(folder: str | Path, pattern: str) -> list[str]:
    """Paths or addresses of the files of a folder whose names match, sorted; empty if there is no such folder."""
    if not is_remote(folder):
        return sorted(map(str, Path(folder).glob(pattern)))
    try:
        return [f"{folder}/{entry.name}" for entry in sorted(listing(str(folder))) if fnmatch(entry.name, pattern)]
    except FileNotFoundError:
        return []
