"""Files behind an address (`s3://`, `gs://`, `http(s)://`, whatever fsspec knows): opened, and tried again for a while.

Keys come from the environment or the cloud's own files, never from ours.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
from fsspec import AbstractFileSystem

from .errors import MissingDependency, RemoteError

WAIT = 60.0  # seconds that one request is tried for
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_STALL = 10  # seconds without a byte after which a connection is given up

Result = TypeVar("Result")


def is_remote(uri: object) -> bool:
    """Whether `uri` is an address rather than a path of this machine."""
    return "://" in str(uri) and not str(uri).startswith("file://")


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address and the path in it.

    Raises:
        MissingDependency: its package is not installed.
        RemoteError: no such kind of address, or it cannot be made sense of.
    """
    protocol = uri.split("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, **_options(protocol))
    except ImportError as error:
        extra = {"s3": "s3", "gs": "gs", "gcs": "gs"}.get(protocol)
        fix = f"pip install 'bassl-fast[{extra}]'" if extra else str(error)
        raise MissingDependency(f"{uri}: fsspec needs another package for {protocol}://; {fix}") from None
    except ValueError as error:
        raise RemoteError(f"{uri}: {error}; give a path, or an s3://, gs:// or http(s):// address") from None
    # `attempt` tries again, and knows when to stop.
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1
    return filesystem, path.rstrip("/")


def _options(protocol: str) -> dict[str, Any]:
    """Bounds on the wait for one byte: the libraries' own are minutes, or none."""
    if protocol == "s3":
        once = {"connect_timeout": _STALL, "read_timeout": _STALL, "retries": {"max_attempts": 0}}
        return {"config_kwargs": once}
    if protocol in ("http", "https"):
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_connect=_STALL, sock_read=_STALL)}}
    return {}


def attempt(what: str, action: Callable[[], Result], wait: float = WAIT) -> Result:
    """The result of `action`, tried again with growing pauses while it fails.

    Args:
        what: stands in the error.
        wait: seconds after which no new try begins; one that hangs is cut off by the connection's own limit.

    Raises:
        FileNotFoundError, OSError of this machine's disk: at once, as trying again mends neither.
        RemoteError: no permission, or nothing helped in time.
    """
    deadline, pause = time.monotonic() + wait, 0.1
    while True:
        try:
            return action()
        except (FileNotFoundError, MemoryError):
            raise
        except PermissionError as error:
            raise RemoteError(f"{what}: no permission ({_short(error)}); set the keys in the environment") from None
        except Exception as error:  # every library behind fsspec has errors of its own
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            if time.monotonic() + pause > deadline:
                raise RemoteError(
                    f"{what}: given up after {wait:.0f} s ({_short(error)}); look after the server and try again"
                ) from None
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 5.0)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def sizes(uri: str) -> dict[str, int]:
    """Name -> bytes of the files in a remote folder.

    Raises:
        RemoteError: it cannot be listed in time.
    """
    fs, root = filesystem(uri)
    try:
        entries = attempt(uri, lambda: fs.ls(root, detail=True))
    except FileNotFoundError:
        return {}
    return {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in entries if entry["type"] == "file"}
