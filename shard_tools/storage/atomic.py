"""The only way to write a file that must be whole: to a temporary name beside it, flushed to disk, then renamed.

Everything that is later taken as complete because it exists goes through here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
