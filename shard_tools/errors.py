"""The errors that a user can meet: one line that names the thing and the fix.

All derive from `BasslFastError`, which the command line turns into a one-line message and exit code 1. Anything else
that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import re

# user:password@ of an address, and its query, such as the signature of a signed address.
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^\s?]*\?)[^\s'\"<>)]*[^\s'\"<>):]")


def masked(text: str) -> str:
    """`text` without the secrets of the addresses in it, for messages and files; bytes that are no text are escaped."""
    text = text.encode(errors="backslashreplace").decode()
    return _QUERY.sub(r"\1***", _USER.sub("***@", text))


_NO_PERMISSION = "; choose a folder you may write to"
_FULL = "; make room or choose another disk, then run the same command again"
_A_FILE = "; a file is in the place of a folder, choose another path"
_FIXES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _NO_PERMISSION,
    errno.EPERM: _NO_PERMISSION,
    errno.EROFS: _NO_PERMISSION,
    errno.ENOTDIR: _A_FILE,
    errno.EEXIST: _A_FILE,
    errno.EISDIR: "; a folder is in the place of a file, choose another path",
    errno.ENOENT: "; check the path",
}


def with_fix(error: OSError, where: str = "") -> str:
    """An error of the system in one line: the file, what is wrong with it, and the fix.

    Args:
        where: path or address to name if `error` names none.
    """
    named = str(error.filename or where)
    reason = f"{error.strerror or error}{_FIXES.get(error.errno or 0, '')}"
    return masked(f"{named}: {reason}" if named else reason)


class BasslFastError(Exception):
    """Base of all errors that the user can fix; as text one line, with masked addresses."""

    def __str__(self) -> str:
        return masked(" ".join(super().__str__().splitlines()))


class SourceError(BasslFastError):
    """A source to pack is missing, broken, or in no known layout."""


class ShardError(BasslFastError):
    """A shard or its index is missing, cut, changed or of another version."""


class RemoteError(BasslFastError):
    """A remote file cannot be reached, read or written in time."""


class PictureError(ShardError):
    """One picture in a shard cannot be decoded or does not match its checksum."""


class DeviceError(BasslFastError):
    """A GPU has no memory left, or its driver reports an error."""


class ConfigError(BasslFastError):
    """A configuration value is unknown, out of range, or contradicts another."""


class CheckpointError(BasslFastError):
    """A checkpoint is missing, broken, or of another recipe."""


class FeatureError(BasslFastError):
    """Cached features are missing, or do not match the checkpoint or the shards."""


class TrainingError(BasslFastError):
    """Training cannot continue (a loss that is not finite, a broken process group)."""


class EngineError(BasslFastError):
    """A cluster cannot be reached, or does not finish its work."""


class LostProcess(TrainingError):
    """Another process of the training ended or cannot be reached."""


class MissingDependency(BasslFastError):
    """A needed optional package is not installed."""
