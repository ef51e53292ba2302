"""Films in a zip of tars, as MovieNet's key-frames are distributed."""

from __future__ import annotations

import io
import lzma
import mmap
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from shard_tools.errors import SourceError

from .source import Buffer, Keyframes, Scan, SourceShard, digest, film_scan
from .tar_films import in_tar

_MOST_UNPACKED = 100  # times its compressed size; JPEGs hardly shrink, so more is a zip bomb


def zip_films(where: str, open_file: Callable[[], Any]) -> list[SourceShard]:
    try:
        with open_file() as file:
            if file.read(2) != b"PK":
                raise SourceError(f"{where}: not a zip; give the zip of key-frames, or the folder that holds the films")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
    except FileNotFoundError:
        raise SourceError(f"{where}: no such file; give the zip of key-frames, or a folder") from None
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{where}: not a whole zip ({error}); download it again") from None
    tars = [m for m in members if m.filename.endswith(".tar") and not m.filename.startswith("__MACOSX/")]
    if not tars:
        raise SourceError(f"{where}: no tar in it; expected a zip of 240P/<film>.tar, as MovieNet's key-frames are")
    for member in tars:
        if "/" in (name := member.filename.removeprefix("240P/")) or name == ".tar":
            raise SourceError(f"{where}: member {member.filename!r} is not 240P/<film>.tar; make the zip again")
    return [_zipped_film(where, open_file, member) for member in tars]


def _zipped_film(where: str, open_file: Callable[[], Any], member: zipfile.ZipInfo) -> SourceShard:
    return SourceShard(Path(member.filename).stem, partial(_scan_zipped, where, open_file, member))


def _scan_zipped(where: str, open_file: Callable[[], Any], member: zipfile.ZipInfo) -> Scan:
    name = f"{where}: {member.filename}"

    def keyframes() -> Keyframes:
        try:
            with open_file() as file:
                if member.compress_type == zipfile.ZIP_STORED and isinstance(file, io.BufferedReader):
                    data: Buffer = _stored(file, member)
                else:
                    if member.file_size > _MOST_UNPACKED * member.compress_size:
                        raise ValueError(f"claims to unpack {member.compress_size} bytes to {member.file_size}")
                    with zipfile.ZipFile(file) as archive:
                        data = archive.read(member)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, RuntimeError, EOFError, ValueError) as error:
            raise SourceError(f"{name}: cannot be read ({error}); download the zip again") from None
        return in_tar(data, name)

    known = f"{member.filename} {member.file_size} {member.CRC}"
    return film_scan(Path(member.filename).stem, digest([known]), keyframes)


def _stored(file: io.BufferedReader, member: zipfile.ZipInfo) -> memoryview:
    """An uncompressed member as a view into the mapped zip; zipfile would copy it twice."""
    view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    at = member.header_offset  # of the local header: 30 bytes, a name, an extra field (APPNOTE 4.3.7)
    if view[at : at + 4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("no local header where the directory says")
    start = (
        at + 30 + int.from_bytes(view[at + 26 : at + 28], "little") + int.from_bytes(view[at + 28 : at + 30], "little")
    )
    data = view[start : start + member.file_size]
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile("bytes differ from its crc32")
    return data
