"""Files that come from elsewhere are data: read within bounds, and what a parser chokes on is a ValueError."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import SourceError

_LONGEST_NAME = 255  # bytes; no file system of ours takes more
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_LARGEST_HEADER = 1 << 20  # bytes of an extended tar header, which are read at once


def parse_json(text: str | bytes) -> Any:
    """What a JSON document says.

    Raises:
        ValueError: it is none, or nested deeper than Python's parser goes.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def map_npy(path: str | Path) -> np.memmap:
    """The array of a `.npy` file, mapped: whatever its header claims, it takes no more than the file has.

    Raises:
        ValueError: it is none. OSError: it cannot be read.
    """
    try:
        with np.errstate(over="ignore"):  # of a shape beyond all memory, which the file cannot hold
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy raises many kinds for a damaged header
        raise ValueError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """The first words of a library's complaint."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_plain_name(name: str) -> bool:
    """Whether `name` can only be that of a file in its folder."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and length <= _LONGEST_NAME


class TarHeader(tarfile.TarInfo):
    """For `tarfile.open(tarinfo=...)`: refuses what tarfile would read at once, or go back over without end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> TarHeader:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _EXTENDED and header.size > _LARGEST_HEADER):
            raise ValueError(f"a header of {header.name!r} claims {header.size} bytes")
        return header


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members of an archive opened with `TarHeader`.

    Raises:
        ValueError: a member of negative size.
    """
    for member in tar:
        if member.size < 0:
            raise ValueError(f"member {member.name!r} claims {member.size} bytes")
        yield member


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines of a text file that are not empty.

    Raises:
        SourceError: no such file, or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; put it there") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); copy it again") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
