"""The errors a user can meet: one line that names the thing and the fix.

Every one derives from `BasslFastError`, which the command line turns into a one-line message and exit code 1.
Anything else that escapes is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import re

# user:password@ of an address, and the values behind its question mark, such as those of a signed one.
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^\s?]*\?)[^\s'\"<>)]*[^\s'\"<>):]")


def masked(text: str) -> str:
    """`text` without the secrets of the addresses in it, as it may be shown and written down."""
    return _QUERY.sub(r"\1***", _USER.sub("***@", text))


class BasslFastError(Exception):
    """Base of all errors that are the user's to mend; as text they are one line, addresses without their secrets."""

    def __str__(self) -> str:
        return masked(" ".join(super().__str__().splitlines()))


class SourceError(BasslFastError):
    """What should be packed is not there, not in the layout, or broken."""


class ShardError(BasslFastError):
    """A shard or its index is missing, cut, changed or of another version."""


class RemoteError(BasslFastError):
    """A remote file cannot be reached, read or written in the time allowed."""


class PictureError(ShardError):
    """One picture in a shard cannot be decoded or does not match its checksum."""


class ConfigError(BasslFastError):
    """A configuration value is unknown, out of range or contradicts another."""


class CheckpointError(BasslFastError):
    """A checkpoint is missing, broken, or belongs to another recipe."""


class FeatureError(BasslFastError):
    """Cached features are missing or do not fit the checkpoint or the shards."""


class TrainingError(BasslFastError):
    """Training cannot go on (a loss that is not finite, a broken process group)."""


class EngineError(BasslFastError):
    """A cluster cannot be reached, or does not bring its work to an end."""


class LostProcess(TrainingError):
    """Another process of the training ended, or cannot be reached."""


class MissingDependency(BasslFastError):
    """An optional package is needed for this and not installed."""
