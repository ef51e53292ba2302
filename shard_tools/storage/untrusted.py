"""Read untrusted files: bounded in memory, and anything malformed is a ValueError."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
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
# numpy parses a header by `ast`, where threads may disturb each other (a SystemError, seen on Python 3.11.7).
_HEADERS = Lock()
_LARGEST_HEADER = 1 << 20  # bytes of an extended tar header, which are read at once


def parse_json(text: str | bytes) -> Any:
    """Parse a JSON document.

    Raises:
        ValueError: it is not JSON, or nested too deeply for Python's parser.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def map_npy(path: str | Path) -> np.memmap:
    """Memory-map the array of a `.npy` file, whose header can claim no more bytes than the file has.

    Raises:
        ValueError: not a `.npy` file. OSError: it cannot be read.
    """
    try:
        with _HEADERS, np.errstate(over="ignore"):  # of a huge shape, which the file cannot hold
            return np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy raises many kinds of errors for a damaged header
        raise ValueError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """The start of a library's error message, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_plain_name(name: str) -> bool:
    """Whether `name` can only be a file directly in its folder."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name and length <= _LONGEST_NAME


class TarHeader(tarfile.TarInfo):
    """For `tarfile.open(tarinfo=...)`: refuses headers that would make tarfile read too much, or loop forever."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> TarHeader:
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
    """(number, text) of the non-empty lines of a text file, whatever ends a line and with or without a byte-order mark.

    Raises:
        SourceError: no such file, or not UTF-8.
    """
    return [(number, line) for number, line in enumerate(_LINE_END.split(read_text(path)), 1) if line.strip()]


def read_text(path: Path) -> str:
    """A small text file without its byte-order mark.

    Raises:
        SourceError: no such file, or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path}: missing; put it there") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); copy it again") from None


def whole_number(value: Any) -> int:
    """A number that a file has as JSON or as text.

    Raises:
        ValueError: not a whole number of 32 bits, such as 0.7.
    """
    number = int(value) if isinstance(value, str) and _WHOLE.fullmatch(value.strip()) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or number != number // 1:
        raise ValueError(f"{value!r} is not a whole number")
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"{value} is out of range")
    return int(number)


_LINE_END = re.compile(r"\r\n|\r|\n")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
