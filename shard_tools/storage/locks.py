"""The kernel's locks on files (flock). Nothing here waits in the kernel, where a wait has no timeout."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any

from shard_tools.errors import ConfigError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # some of NFS, FUSE and cluster file systems


def flock(file: IO[Any], kind: int) -> bool:
    """Lock a file unless others have it; closed on an error.

    Args:
        kind: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.

    Raises:
        ConfigError: its file system has no locks.
    """
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        if error.errno not in _NO_LOCKS:
            raise
        raise ConfigError(
            f"{file.name}: this file system has no locks ({error.strerror}); set BASSL_FAST_CACHE to a folder on a "
            "local disk"
        ) from None
    return True


def open_locked(path: Path, kind: int = fcntl.LOCK_EX, create: bool = False) -> IO[bytes] | None:
    """The file with a lock, which closing it gives back; None if it is missing, deleted, or others have it."""
    try:
        file = open(path, "ab" if create else "rb")  # noqa: SIM115
    except FileNotFoundError:
        return None
    if flock(file, kind) and os.fstat(file.fileno()).st_nlink:
        return file
    file.close()
    return None
