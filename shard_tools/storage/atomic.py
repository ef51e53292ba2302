"""The only way to write a file that must be whole: to a temporary name beside it, flushed to disk, then renamed.

Everything that is later taken as complete because it exists goes through here.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shard_tools.errors import ConfigError, with_fix


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (`<name>.tmp`) that is renamed to `path` when the block succeeds.

    The block must close the file. On an error the temporary file is removed and `path` stays as it was.

    Example:
        >>> with whole_file(Path("weights.bin")) as tmp:
        ...     tmp.write_bytes(b"...")
    """
    tmp = path.with_name(path.name + ".tmp")
    try:
        yield tmp
        file = os.open(tmp, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that the file is whole or not there."""
    with whole_file(path) as tmp:
        tmp.write_bytes(data)


def check_writable(folder: str | Path) -> None:
    """Check, before long work, that a local folder can be written to; it need not exist yet, and nothing stays in it.

    Raises:
        ConfigError: a file is in its place, or there is no permission.
    """
    root = Path(folder)
    there = next(path for path in (root, *root.parents) if os.path.exists(path))
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        tempfile.TemporaryFile(dir=there).close()
    except NotADirectoryError as error:
        raise ConfigError(with_fix(error)) from None
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}); choose a folder you may write to") from None
