"""sha256 of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

_known: dict[tuple[str, int, int, int], str] = {}


def sha256_of(file: IO[bytes]) -> str:
    """sha256 of the rest of `file`, as hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """sha256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return sha256_of(file)


def sha256_once(path: str | Path) -> str:
    """sha256 of a file; this process reads it again only when the file system says that it changed.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        facts = os.fstat(file.fileno())
        key = (os.path.abspath(path), facts.st_ino, facts.st_size, facts.st_ctime_ns)
        if key not in _known:
            _known[key] = sha256_of(file)
    return _known[key]
