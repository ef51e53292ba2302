"""Where the cache is and how large, from the environment, and what is said of its disk's errors."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shard_tools.errors import ConfigError, ShardError

from .remote import is_remote

_FULL = "make room there, or set BASSL_FAST_CACHE to a folder on another disk"
_FORBIDDEN = "set BASSL_FAST_CACHE to a folder that you may write to"
_A_FILE = "a file is in the place of a folder; set BASSL_FAST_CACHE to another folder"
_MANY = "close files, or raise `ulimit -n`"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.EEXIST: _A_FILE,
    errno.ENOTDIR: _A_FILE,
    errno.EMFILE: _MANY,
    errno.ENFILE: _MANY,
}


def folder() -> Path:
    """The folder that the environment names, or the usual one.

    Raises:
        ConfigError: not a local folder.
    """
    given = os.environ.get("BASSL_FAST_CACHE") or "~/.cache/bassl-fast"
    if is_remote(given):
        raise ConfigError(f"BASSL_FAST_CACHE {given}: an address; give a local folder")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise ConfigError(f"BASSL_FAST_CACHE {given}: no such home folder; give the whole path of a folder") from None


def limit() -> float:
    """Bytes that the environment allows for shards.

    Raises:
        ConfigError: not a number of GiB.
    """
    gib = os.environ.get("BASSL_FAST_CACHE_GIB", "256")
    try:
        found = float(gib) * 2**30
        if not 0 < found < math.inf:
            raise ValueError
    except ValueError:
        raise ConfigError(f"BASSL_FAST_CACHE_GIB {gib!r}: must be a positive number of GiB, such as 256") from None
    return found


@contextmanager
def errors_of(folder: Path) -> Iterator[None]:
    """Turn an error of the cache's disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of no disk: a file that is not at its address
            raise
        fix = _FIXES.get(error.errno, "check that disk, or set BASSL_FAST_CACHE to a folder on another")
        raise ShardError(f"{error.filename or folder}: {error.strerror}; {fix}") from error
