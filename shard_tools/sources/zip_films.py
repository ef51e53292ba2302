"""Films in a zip: a tar for each, as MovieNet's key-frames are distributed, or a folder of key-frames for each.

The directory of the zip is read once; a film is read by where its members are, so nothing is unpacked to disk.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import IO, Any, TypeVar

import numpy as np

from shard_tools.errors import SourceError
from shard_tools.storage.remote import attempt, filesystem, is_remote

from .keyframe_folder import arrange_keyframes
from .names import film_of_tar, keyframe_of, parts_of
from .source import Buffer, Keyframe, Keyframes, Scan, SourceShard, digest, film_scan
from .tar_films import in_tar

_MOST_UNPACKED = 100  # times its compressed size; JPEGs hardly shrink, so more is a zip bomb
_BLOCK = 8 << 20  # bytes of a request for what is read in order
_MEMBER = np.dtype([("at", "<u8"), ("packed", "<u8"), ("size", "<u8"), ("crc", "<u4"), ("method", "<u2")])
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, NotImplementedError)
_ENCRYPTED = 1  # flag of a member

Result = TypeVar("Result")


def zip_films(where: str) -> list[SourceShard]:
    """The films in the zip at a path or address.

    Raises:
        SourceError: no such file, not a whole zip, encrypted, or no films in it. RemoteError: it cannot be read.
    """
    try:
        members = _use(where, partial(_directory, where))
    except FileNotFoundError:
        raise SourceError(f"{where}: no such file; give the zip of key-frames, or a folder") from None
    found = [(parts, member) for member in members if (parts := parts_of(member.filename))]
    tars = [(parts, member) for parts, member in found if film_of_tar(parts[-1], where)]
    if encrypted := [member.filename for _, member in tars or found if member.flag_bits & _ENCRYPTED]:
        raise SourceError(f"{where}: member {encrypted[0]!r} is encrypted; unpack the zip and give the folder")
    for parts, member in tars:
        if parts[:-1] not in ([], ["240P"]):
            raise SourceError(f"{where}: member {member.filename!r} is not 240P/<film>.tar; make the zip again")
    if tars:
        return [_of_tar(where, film_of_tar(parts[-1], where), member) for parts, member in tars]
    folders: dict[tuple[str, ...], list[tuple[str, zipfile.ZipInfo]]] = defaultdict(list)
    for parts, member in found:
        folders[tuple(parts[:-1])].append((parts[-1], member))
    films = {parts: files for parts, files in folders.items() if any(keyframe_of(name) for name, _ in files)}
    if not films:
        raise SourceError(
            f"{where}: no films in it; expected a zip of 240P/<film>.tar, as MovieNet's key-frames are, or of "
            "<film>/shot_0000_img_0.jpg"
        )
    if wrong := [parts for parts in films if not parts or {"", ".."} & set(parts)]:
        there = "/".join(wrong[0]) or "no folder"
        raise SourceError(f"{where}: key-frames in {there}; expected <film>/shot_0000_img_0.jpg")
    return [_of_folder(where, parts[-1], files) for parts, files in films.items()]


def _use(where: str, action: Callable[[IO[bytes]], Result]) -> Result:
    """What `action` makes of the open zip; requests for a remote one are retried.

    Raises:
        SourceError: what is read is not that of a whole zip.
    """

    def read() -> Result:
        try:
            with _open(where) as file:
                return action(file)
        except FileNotFoundError:
            raise
        except _DAMAGED as error:
            # zipfile takes an error of the connection for one of the file.
            if is_remote(where) and isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise SourceError(f"{where}: not a whole zip ({error}); download it again") from None
        except OSError as error:
            if is_remote(where):
                raise
            raise SourceError(f"{where}: not a whole zip ({error}); download it again") from None

    return attempt(where, read) if is_remote(where) else read()


def _open(where: str) -> Any:
    if not is_remote(where):
        return open(where, "rb")
    fs, path = filesystem(where)
    return fs.open(path, "rb", block_size=_BLOCK)


def _directory(where: str, file: IO[bytes]) -> list[zipfile.ZipInfo]:
    if file.read(2) != b"PK":
        raise SourceError(f"{where}: not a zip; give the zip of key-frames, or the folder that holds the films")
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _rows(where: str, members: Iterable[zipfile.ZipInfo]) -> np.ndarray:
    """Rows of `_MEMBER`: unlike ZipInfos, small to keep and to pass to other processes, for millions of key-frames."""
    rows = [(m.header_offset, m.compress_size, m.file_size, m.CRC, m.compress_type) for m in members]
    try:
        return np.array(rows, _MEMBER)
    except OverflowError:
        raise SourceError(f"{where}: not a whole zip (members outside of it); download it again") from None


def _of_tar(where: str, film: str, member: zipfile.ZipInfo) -> SourceShard:
    row = _rows(where, [member])
    return SourceShard(film, partial(_scan_tar, where, film, member.filename, row))


def _scan_tar(where: str, film: str, member: str, row: np.ndarray) -> Scan:
    def keyframes() -> Keyframes:
        return in_tar(_contents(where, [member], row)[0], f"{where}: {member}")

    known = f"{member} {row['size'][0]} {row['crc'][0]}"
    return film_scan(film, digest([known]), keyframes)


def _of_folder(where: str, film: str, files: list[tuple[str, zipfile.ZipInfo]]) -> SourceShard:
    rows = _rows(where, (member for _, member in files))
    return SourceShard(film, partial(_scan_folder, where, film, [name for name, _ in files], rows))


def _scan_folder(where: str, film: str, names: list[str], rows: np.ndarray) -> Scan:
    shots, arranged = arrange_keyframes(f"{where}: {film}", names)

    def keyframes() -> Keyframes:
        data = dict(zip(names, _contents(where, [f"{film}/{name}" for name in names], rows), strict=True))
        return shots, [
            [Keyframe(f"{where}: {film}/{name}", partial(data.__getitem__, name)) for name in images]
            for images in arranged
        ]

    known = (f"{name} {row['size']} {row['crc']}" for name, row in sorted(zip(names, rows, strict=True), key=_first))
    return film_scan(film, digest(known), keyframes)


def _first(pair: tuple[str, np.ndarray]) -> str:
    return pair[0]


def _contents(where: str, names: list[str], rows: np.ndarray) -> list[Buffer]:
    """Bytes of members, read in the order in which they are in the zip.

    Raises:
        SourceError: they cannot be read. RemoteError: the zip cannot be read in time.
    """

    def read(file: IO[bytes]) -> list[Buffer]:
        mapped = None if is_remote(where) else memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found: list[Buffer] = [b""] * len(rows)
        for number in np.argsort(rows["at"], kind="stable").tolist():
            found[number] = _member(where, names[number], rows[number], file, mapped)
        return found

    try:
        return _use(where, read)
    except FileNotFoundError:
        raise SourceError(f"{where}: gone since it was opened; put it back, or run this again") from None


def _member(where: str, name: str, row: np.void, file: IO[bytes], mapped: memoryview | None) -> Buffer:
    """Bytes of a member: of one that is not compressed, in a zip on this machine, a view into the zip."""
    at, packed, size, crc, method = row.tolist()

    def piece(start: int, length: int) -> Buffer:
        if mapped is not None:
            return mapped[start : start + length]
        file.seek(start)
        return file.read(length)

    try:
        if size > _MOST_UNPACKED * max(packed, 1):
            raise ValueError(f"claims to unpack {packed} bytes to {size}")
        head = bytes(piece(at, 30))  # and then a name and an extra field of the lengths it states (APPNOTE 4.3.7)
        if head[:4] != b"PK\x03\x04":
            raise ValueError("no local header where the directory says")
        start = at + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        if method == zipfile.ZIP_STORED:
            data = piece(start, size)
        elif method == zipfile.ZIP_DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece(start, packed), size + 1)
        else:
            raise ValueError(f"compression method {method} is unknown; make the zip with method deflate or stored")
        if len(data) != size or zlib.crc32(data) != crc:
            raise ValueError("bytes differ from its crc32")
    except (ValueError, zlib.error, OverflowError) as error:
        raise SourceError(f"{where}: {name}: cannot be read ({error}); download the zip again") from None
    return data
