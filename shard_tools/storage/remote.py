"""Remote files (`s3://`, `gs://`, `hf://`, `http(s)://`, any protocol of fsspec), with retries.

Keys come from the environment or the cloud's own configuration files, never from ours.
"""

from __future__ import annotations

import errno
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

import fsspec
from fsspec import AbstractFileSystem

from shard_tools.counters import count
from shard_tools.errors import BasslFastError, ConfigError, MissingDependency, RemoteError

from .untrusted import one_line

WAIT = 60.0  # seconds for which a request is retried
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_STALL = 10  # seconds without a byte after which a connection is closed

Result = TypeVar("Result")


def is_remote(uri: object) -> bool:
    """Whether `uri` is an address rather than a local path."""
    return "://" in str(uri) and not str(uri).startswith("file://")


def absolute(where: str | Path) -> str:
    """Name of a file or folder that is valid in any working folder."""
    return str(where) if is_remote(where) else str(Path(where).resolve())


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Raises:
        MissingDependency: its package is not installed.
        RemoteError: an unknown protocol, or a malformed address.
        ConfigError: $AWS_ENDPOINT_URL is not the address of a server.
    """
    protocol = uri.split("://")[0]
    if protocol in ("s3", "gs", "gcs"):
        _check_bucket(uri)
    try:
        filesystem, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, **_options(protocol))
    except ImportError as error:
        extra = {"s3": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}.get(protocol)
        fix = f"pip install 'bassl-fast[{extra}]'" if extra else str(error)
        raise MissingDependency(f"{uri}: fsspec needs another package for {protocol}://; {fix}") from None
    except ValueError as error:
        raise RemoteError(f"{uri}: {error}; give a path, or an s3://, gs://, hf:// or http(s):// address") from None
    # Retries are up to `attempt`, which knows when to stop.
    if hasattr(filesystem, "retries"):
        filesystem.retries = 1
    return filesystem, path.rstrip("/")


def _check_bucket(uri: str) -> None:
    bucket = uri.split("://")[1].split("/")[0]
    if not (_BUCKET.fullmatch(bucket) or bucket.startswith("arn:")):
        raise RemoteError(f"{uri}: {bucket!r} is not the name of a bucket; write s3://bucket/folder")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if (endpoint := os.environ.get(name)) and uri.startswith("s3://"):
            try:
                parts = urlsplit(endpoint)
                if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                    raise ValueError
            except ValueError:
                raise ConfigError(
                    f"{name} {endpoint!r}: not the address of a server; write http(s)://host or http(s)://host:port"
                ) from None


def _options(protocol: str) -> dict[str, Any]:
    """Timeouts: those of the libraries are minutes, or none."""
    if protocol == "s3":
        once = {"connect_timeout": _STALL, "read_timeout": _STALL, "retries": {"max_attempts": 0}}
        # fsspec reuses a file system with the same options, so server and keys must be among them.
        names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
        names["endpoint_url"] = "AWS_ENDPOINT_URL_S3" if "AWS_ENDPOINT_URL_S3" in os.environ else "AWS_ENDPOINT_URL"
        return {"config_kwargs": once} | {option: os.environ.get(name) or None for option, name in names.items()}
    if protocol == "hf":  # `endpoint`: as above, and huggingface_hub reads its environment only once
        return {"endpoint": os.environ.get("HF_ENDPOINT") or None, "token": os.environ.get("HF_TOKEN") or None}
    if protocol in ("http", "https"):
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_connect=_STALL, sock_read=_STALL)}}
    return {}


def attempt(what: str, action: Callable[[], Result], wait: float = WAIT) -> Result:
    """The result of `action`, retried with growing pauses while it fails.

    Args:
        what: name for the error.
        wait: seconds after which it is not retried again; a request that hangs ends by the connection's own timeout.

    Raises:
        FileNotFoundError, OSError of the local disk, errors of ours: at once, as a retry helps with none of them.
        RemoteError: no permission, no such address, or no success in time.
    """
    deadline, pause = time.monotonic() + wait, 0.1
    while True:
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError, MemoryError, BasslFastError):
            raise
        except Exception as error:  # every library behind fsspec has errors of its own
            # What a server refuses has no local file name.
            if isinstance(error, OSError) and (error.errno in _DISK or error.filename is not None):
                raise
            if fix := _fix_of(error, what):
                raise RemoteError(f"{what}: {fix} ({one_line(error)})") from None
            if time.monotonic() + pause > deadline:
                raise RemoteError(
                    f"{what}: given up after {wait:.0f} s ({one_line(error)}); check the server and try again"
                ) from None
        count("retries")
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, 5.0)


def _fix_of(error: Exception, what: str) -> str:
    """What to do about an error that a retry would only repeat; "" for one that may pass."""
    kind, answer = type(error).__name__, _answer_of(error)
    status = getattr(error, "status", 0) or answer.status
    if kind == "ProfileNotFound":
        return "AWS_PROFILE is not a profile of this machine; add it to ~/.aws/config, or unset it"
    if what.startswith("s3://") and status == 400 and not answer.says_why:  # HEAD has no room for the reason
        return _fix_of(asked, "") if (asked := _ask_bucket(what)) else ""
    if answer.code in ("ExpiredToken", "TokenRefreshRequired", "InvalidToken", "RequestExpired"):
        return f"the session token is not valid, {answer.message or answer.code}; renew AWS_SESSION_TOKEN and its keys"
    if answer.region and status in (301, 307, 400):
        return f"the bucket is in another region; set AWS_DEFAULT_REGION={answer.region}"
    if status in (301, 307) or answer.code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return "the bucket is in another region, or at another server; set AWS_DEFAULT_REGION or AWS_ENDPOINT_URL"
    if isinstance(error, PermissionError) or status in (401, 403):
        return "no permission; set the keys in the environment"
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return "no keys; set them in the environment"
    if (
        type(error) is ValueError
        or kind in ("ParamValidationError", "HfUriError", "HFValidationError")
        or (400 <= status < 500 and status not in (408, 429))
    ):
        return "refused; fix the address"
    return ""


class _Answer(NamedTuple):
    """What a server's refusal says, as far as it is known."""

    status: int = 0
    code: str = ""
    message: str = ""
    region: str = ""  # of the bucket

    @property
    def says_why(self) -> bool:
        return bool(self.code) and not self.code.isdigit()


def _answer_of(error: BaseException | None) -> _Answer:
    """The answer that an error, or its cause, was made of."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore's
            facts, why = response.get("ResponseMetadata", {}), response.get("Error", {})
            region = why.get("Region") or facts.get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
            return _Answer(facts.get("HTTPStatusCode", 0), why.get("Code", ""), why.get("Message", ""), region)
        if response is not None:  # huggingface_hub's
            return _Answer(getattr(response, "status_code", 0))
        error = error.__cause__
    return _Answer()


def _ask_bucket(address: str) -> Exception | None:
    """Why a server of S3 refuses: the error of a request whose answer says so."""
    fs, path = filesystem(address)
    try:
        fs.call_s3("list_objects_v2", Bucket=path.split("/")[0], MaxKeys=1)
    except Exception as error:  # whatever it is, it says more than the one before
        return error
    return None


def version_of(facts: dict[str, Any]) -> str:
    """ETag, checksum or date of a file, whichever fsspec reports; "" if none."""
    names = ("ETag", "md5Hash", "etag", "blob_id", "mtime", "LastModified", "Last-Modified")
    return str(next(filter(None, map(facts.get, names)), ""))


class Entry(NamedTuple):
    """A file or folder in a remote folder."""

    name: str
    path: str  # for its file system
    is_folder: bool
    size: int | None  # bytes; None if the listing does not say
    version: str  # see `version_of`


def listing(uri: str) -> list[Entry]:
    """Entries of a remote folder; over http, the links of the server's index page.

    Raises:
        FileNotFoundError: no such folder, or the server has no index page.
        RemoteError: it cannot be listed in time.
    """
    fs, root = filesystem(uri)
    found = attempt(uri, lambda: fs.ls(f"{root}/" if _is_url(root) else root, detail=True))
    entries = []
    for facts in found:
        name = facts["name"].rstrip("/").rsplit("/", 1)[-1]
        if _is_url(root):
            if (
                "?" in name or facts["name"].rstrip("/") != f"{root}/{name}"
            ):  # another view of the page, or another page
                continue
            name = unquote(name)
        if name in ("", ".", "..") or "/" in name:
            continue
        if facts["name"].rstrip("/") == root:  # the mark of an empty folder, which consoles of S3 leave
            continue
        path, is_folder = facts["name"].rstrip("/"), facts["type"] == "directory"
        entries.append(Entry(name, path, is_folder, facts.get("size"), version_of(facts)))
    return entries


def sizes(uri: str) -> dict[str, int | None] | None:
    """Name -> bytes of the files in a remote folder; None over http, where listings have no sizes.

    Raises:
        RemoteError: it cannot be listed in time.
    """
    if _is_url(uri):
        return None
    try:
        return {entry.name: entry.size for entry in listing(uri) if not entry.is_folder}
    except FileNotFoundError:
        return {}


def child(root: str, name: str) -> str:
    """The path of a file below a folder, both for their file system."""
    return f"{root}/{quote(name) if _is_url(root) else name}"


def fetch(fs: AbstractFileSystem, path: str, to: Path, size: int | None) -> None:
    """Download a remote file.

    Raises:
        ConnectionError: it is not `size` bytes long.
    """
    fs.get_file(path, str(to))
    if size is not None and (found := to.stat().st_size) != size:
        raise ConnectionError(f"received {found} bytes of {size}")


def _is_url(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))
