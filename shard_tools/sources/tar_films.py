"""Films in tars of key-frames, read through a memory map."""

from __future__ import annotations

import io
import mmap
import tarfile
from functools import partial
from pathlib import Path

import numpy as np

from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import TarHeader, one_line, tar_members

from . import keyframe_folder
from .names import parts_of
from .source import Buffer, Keyframe, Keyframes, Scan, SourceShard, digest, facts, film_scan


def tar_film(film: str, path: Path) -> SourceShard:
    return SourceShard(film, partial(_scan_tar, film, path))


def _scan_tar(film: str, path: Path) -> Scan:
    def keyframes() -> Keyframes:
        try:
            with open(path, "rb") as file:
                return in_tar(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), str(path))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise SourceError(f"{path}: cannot be read ({error}); copy it again") from None

    return film_scan(film, digest([facts(str(path))]), keyframes)


def in_tar(data: Buffer, where: str) -> Keyframes:
    """Key-frames of one film in the bytes of a tar. Members may be in one folder, and in any order.

    Raises:
        SourceError: not a tar, cut short, a member that leaves the folder or is not a file, or key-frames missing.
    """
    view = memoryview(data)
    found: dict[str, Buffer] = {}
    for name, start, size in _members(view, where):
        if not (parts := parts_of(name)):
            continue
        *folders, file = parts
        if len(folders) > 1 or ".." in folders or "" in folders or start is None:
            raise SourceError(
                f"{where}: member {name!r} is not a plain file <film>/{movienet.keyframe_name(0, 0)}; "
                "get this tar from a source you trust"
            )
        if file in found:
            raise SourceError(f"{where}: member {name!r} appears twice; make the tar again")
        found[file] = view[start : start + size]
    shots, names = keyframe_folder.arrange_keyframes(where, found)
    return shots, [
        [Keyframe(f"{where}: {name}", partial(found.__getitem__, name)) for name in images] for images in names
    ]


def _members(view: memoryview, where: str) -> list[tuple[str, int | None, int]]:
    """(name, start of its bytes, size) of every member except folders; start is None for a link or a device."""
    members, end = _plain_members(view)
    if members is None:
        try:
            with tarfile.open(fileobj=io.BytesIO(view), mode="r:", tarinfo=TarHeader) as tar:
                files = [member for member in tar_members(tar) if not member.isdir()]
                plain = {m.name: m for m in files if m.isreg()}
                files = [plain.get(m.linkname, m).replace(name=m.name) if m.islnk() else m for m in files]
                members = [(m.name, m.offset_data if m.isreg() else None, m.size) for m in files]
                end = tar.offset
        except Exception as error:  # tarfile raises many kinds for a damaged header
            raise SourceError(f"{where}: not a whole tar ({one_line(error)}); copy it again") from None
    # tarfile takes the end of a file as the end of the archive; a whole archive ends with a block of zeros.
    if view[end : end + tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
        what = "cut short" if members else "not a tar, or cut short"
        raise SourceError(f"{where}: {what} (no end mark at byte {len(view)}); copy it again")
    if np.frombuffer(view[end:], np.uint8).any():
        raise SourceError(
            f"{where}: more data after its end at byte {end}; join tars with `tar --concatenate`, not with `cat`"
        )
    return members


def _plain_members(view: memoryview) -> tuple[list[tuple[str, int | None, int]] | None, int]:
    """Members of a tar of plain files and folders, and where they end; None if it holds anything else.

    tarfile takes longer to read the headers of small files than the kernel takes to read the files themselves.
    """
    at = 0
    members: list[tuple[str, int | None, int]] = []
    while at + tarfile.BLOCKSIZE <= len(view):
        header = bytes(view[at : at + tarfile.BLOCKSIZE])
        if header[0] == 0:
            return members, at
        try:
            size, checksum = int(header[124:135], 8), int(header[148:154], 8)
            name = header[: header.index(0, 0, 101)].decode()
        except ValueError:
            return None, 0
        kind, prefix = header[156:157], header[345]
        if sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum or header[257:262] != b"ustar" or prefix:
            return None, 0
        at += tarfile.BLOCKSIZE
        if kind == b"x":  # attributes of the next member, such as a time in fractions of a second
            more = bytes(view[at : at + size])
            if b"path=" in more or b"size=" in more or b"sparse" in more:
                return None, 0
        elif kind == b"0":
            members.append((name, at, size))
        elif kind != b"5":
            return None, 0
        at += size + -size % tarfile.BLOCKSIZE
    return members, at
