"""Where films come from: a key-frame folder, a zip of per-film tars, or a folder of per-film tars; here or remote.

What goes into one shard is a name, a fingerprint (equal: nobody touched it) and sequences of pictures, of which a film
is one. Nothing is unpacked to disk: a film that comes in a tar is read at once, so memory is that of one film a
worker. Pictures and clips, many a shard, come from `trees`.
"""

from __future__ import annotations

import io
import lzma
import mmap
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.storage.remote import Entry, attempt, filesystem, is_remote, listing
from shard_tools.storage.untrusted import TarHeader, one_line, tar_members

from . import keyframe_folder
from .source import Buffer, Keyframe, Keyframes, Scan, Sequence, SourceShard, digest, facts, read_file

_MOST_UNPACKED = 100  # times as large as compressed; JPEGs hardly shrink
TAR_FOLDERS = ("240P", movienet.FRAMES_DIR)  # where MovieNet's zip, and people, keep the films


def open_source(source: str | Path) -> list[SourceShard]:
    """The films of a source, in order of name.

    Raises:
        SourceError: nothing there, or nothing in a known layout.
    """
    if is_remote(source):
        films = _remote_films(str(source))
    elif Path(source).is_file():
        films = _zip_films(str(source), partial(open, source, "rb"))
    else:
        films = _local_films(Path(source))
    films.sort(key=lambda film: film.name)
    for one, other in pairwise(films):
        if one.name == other.name:
            raise SourceError(f"{source}: film {one.name} comes twice; remove one of them")
    return films


def _local_films(source: Path) -> list[SourceShard]:
    tars = [path for folder in (source, *(source / name for name in TAR_FOLDERS)) for path in folder.glob("*.tar")]
    tars = [path for path in tars if not path.name.startswith(".")]
    if not tars:
        return [_folder_film(folder) for folder in keyframe_folder.list_films(keyframe_folder.find_frames_dir(source))]
    if loose := [path for path in keyframe_folder.list_films(tars[0].parent) if any(path.glob("shot_*.jpg"))]:
        raise SourceError(f"{loose[0]}: key-frames beside tars of key-frames; keep the films in one of the two ways")
    return [_tar_film(path) for path in tars]


def _film(name: str, fingerprint: str, keyframes: Callable[[], Keyframes]) -> Scan:
    return Scan(fingerprint, lambda: [Sequence(name, *keyframes())])


def _folder_film(folder: Path) -> SourceShard:
    return SourceShard(folder.name, partial(_scan_folder, folder))


def _scan_folder(folder: Path) -> Scan:
    shots, files = keyframe_folder.list_keyframes(folder)
    keyframes = [[Keyframe(path, partial(read_file, path)) for path in images] for images in files]
    return _film(folder.name, digest(facts(path) for images in files for path in images), lambda: (shots, keyframes))


def _tar_film(path: Path) -> SourceShard:
    return SourceShard(path.stem, partial(_scan_tar, path))


def _scan_tar(path: Path) -> Scan:
    def keyframes() -> Keyframes:
        try:
            with open(path, "rb") as file:
                return in_tar(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), str(path))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise SourceError(f"{path}: cannot be read ({error}); copy it again") from None

    return _film(path.stem, digest([facts(str(path))]), keyframes)


def in_tar(data: Buffer, where: str) -> Keyframes:
    """Key-frames of one film in the bytes of a tar; members may stand in a folder and in any order.

    Raises:
        SourceError: not a tar, cut short, a member that would leave the folder or is no file, or key-frames missing.
    """
    view = memoryview(data)
    found: dict[str, Buffer] = {}
    for name, start, size in _members(view, where):
        *folders, file = name.removeprefix("./").split("/")
        if len(folders) > 1 or ".." in folders or "" in folders or start is None:
            raise SourceError(
                f"{where}: member {name!r} is no plain file <film>/{movienet.keyframe_name(0, 0)}; "
                "get this tar from where you trust it"
            )
        if file in found:
            raise SourceError(f"{where}: member {name!r} comes twice; pack the tar again")
        found[file] = view[start : start + size]
    shots, names = keyframe_folder.arrange_keyframes(where, found)
    return shots, [[Keyframe(f"{where}: {name}", partial(found.get, name)) for name in images] for images in names]


def _members(view: memoryview, where: str) -> list[tuple[str, int | None, int]]:
    """(name, start of its bytes, size) of every member but folders; no start for a link or a device."""
    members, end = _plain_members(view)
    if members is None:
        try:
            with tarfile.open(fileobj=io.BytesIO(view), mode="r:", tarinfo=TarHeader) as tar:
                files = [member for member in tar_members(tar) if not member.isdir()]
                members = [(m.name, m.offset_data if m.isreg() else None, m.size) for m in files]
                end = tar.offset
        except Exception as error:  # tarfile raises many kinds for a damaged header
            raise SourceError(f"{where}: not a whole tar ({one_line(error)}); copy it again") from None
    # tarfile takes the end of a file for the end of the archive; a whole one says so by a block of zeros.
    if view[end : end + tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
        what = "cut short" if members else "no tar, or cut short"
        raise SourceError(f"{where}: {what} (no end mark at byte {len(view)}); copy it again")
    return members


def _plain_members(view: memoryview) -> tuple[list[tuple[str, int | None, int]] | None, int]:
    """Members of a tar of plain files and folders, and where they end; None if it has anything else in it.

    tarfile takes longer to read the headers of small files than the kernel takes to read the files.
    """
    at, members = 0, []
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
        if kind == b"x":  # more about the next member, such as a time in fractions of a second
            more = bytes(view[at : at + size])
            if b"path=" in more or b"size=" in more or b"sparse" in more:
                return None, 0
        elif kind == b"0":
            members.append((name, at, size))
        elif kind != b"5":
            return None, 0
        at += size + -size % tarfile.BLOCKSIZE
    return members, at


def _zip_films(where: str, open_file: Callable[[], Any]) -> list[SourceShard]:
    try:
        with open_file() as file:
            if file.read(2) != b"PK":
                raise SourceError(f"{where}: no zip; give the zip of key-frames, or the folder that holds the films")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
    except FileNotFoundError:
        raise SourceError(f"{where}: not there; give the zip of key-frames, or a folder") from None
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise SourceError(f"{where}: not a whole zip ({error}); download it again") from None
    tars = [m for m in members if m.filename.endswith(".tar") and not m.filename.startswith("__MACOSX/")]
    if not tars:
        raise SourceError(f"{where}: no tar in it; expected a zip of 240P/<film>.tar, as MovieNet's key-frames are")
    for member in tars:
        if "/" in (name := member.filename.removeprefix("240P/")) or name == ".tar":
            raise SourceError(f"{where}: member {member.filename!r} stands elsewhere than 240P/<film>.tar; zip it anew")
    return [_zipped_film(where, open_file, member) for member in tars]


def _zipped_film(where: str, open_file: Callable[[], Any], member: zipfile.ZipInfo) -> SourceShard:
    return SourceShard(Path(member.filename).stem, partial(_scan_zipped, where, open_file, member))


def _scan_zipped(where: str, open_file: Callable[[], Any], member: zipfile.ZipInfo) -> Scan:
    name = f"{where}: {member.filename}"

    def keyframes() -> Keyframes:
        try:
            with open_file() as file:
                if member.compress_type == zipfile.ZIP_STORED and isinstance(file, io.BufferedReader):
                    data = _stored(file, member)
                else:
                    if member.file_size > _MOST_UNPACKED * member.compress_size:
                        raise ValueError(f"claims to unpack {member.compress_size} bytes to {member.file_size}")
                    with zipfile.ZipFile(file) as archive:
                        data = archive.read(member)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, RuntimeError, EOFError, ValueError) as error:
            raise SourceError(f"{name}: cannot be read ({error}); download the zip again") from None
        return in_tar(data, name)

    known = f"{member.filename} {member.file_size} {member.CRC}"
    return _film(Path(member.filename).stem, digest([known]), keyframes)


def _stored(file: io.BufferedReader, member: zipfile.ZipInfo) -> memoryview:
    """A member that is not compressed, as a view into the mapped zip (no copy); zipfile would copy it twice."""
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


def _remote_films(uri: str) -> list[SourceShard]:
    _, root = filesystem(uri)
    if root.endswith(".zip"):
        return _zip_films(uri, partial(_open_remote, uri))
    for name in (*TAR_FOLDERS, ""):
        folder = f"{uri.rstrip('/')}/{name}".rstrip("/")
        try:
            entries = listing(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        tars = [entry for entry in entries if entry.name.endswith(".tar")]
        if tars:
            return [_remote_tar(f"{folder}/{entry.name}", entry) for entry in tars]
        films = [entry.name for entry in entries if entry.is_folder]
        if films and (
            name or any(keyframe_folder.KEYFRAME.fullmatch(entry.name) for entry in listing(f"{folder}/{films[0]}"))
        ):
            return [_remote_folder(film, f"{folder}/{film}") for film in films]
    raise SourceError(
        f"{uri}: no films there; expected {movienet.FRAMES_DIR}/<film>/{movienet.keyframe_name(0, 0)}, "
        "<film>.tar or a zip of those"
    )


def _open_remote(uri: str) -> Any:
    fs, path = filesystem(uri)
    # One request for each 8 MiB read onwards; the directory at the end of a zip is read apart.
    return attempt(uri, lambda: fs.open(path, "rb", block_size=8 << 20))


def _remote_tar(where: str, entry: Entry) -> SourceShard:
    return SourceShard(Path(entry.name).stem, partial(_scan_remote_tar, where, entry))


def _scan_remote_tar(where: str, entry: Entry) -> Scan:
    def keyframes() -> Keyframes:
        fs, _ = filesystem(where)
        return in_tar(attempt(where, lambda: fs.cat_file(entry.path)), where)

    return _film(Path(entry.name).stem, digest([_remote_facts(entry)]), keyframes)


def _remote_folder(film: str, where: str) -> SourceShard:
    return SourceShard(film, partial(_scan_remote_folder, film, where))


def _scan_remote_folder(film: str, where: str) -> Scan:
    entries = {entry.name: entry for entry in listing(where) if not entry.is_folder}
    shots, names = keyframe_folder.arrange_keyframes(where, entries)

    def keyframes() -> Keyframes:
        # At once: a request a key-frame, many under way.
        fs, _ = filesystem(where)
        paths = [entries[name].path for images in names for name in images]
        data = attempt(where, lambda: fs.cat(paths, on_error="raise"))
        data = data if isinstance(data, dict) else {paths[0]: data}
        return shots, [
            [Keyframe(f"{where}/{name}", partial(data.get, entries[name].path)) for name in images] for images in names
        ]

    return _film(film, digest(_remote_facts(entries[name]) for images in names for name in images), keyframes)


def _remote_facts(entry: Entry) -> str:
    return f"{entry.path} {entry.size} {entry.version}"


@contextmanager
def annotations(source: str | Path, given: str | Path | None = None) -> Iterator[Path]:
    """The folder that holds `anno/` and `scene318/`: the one given, or the source itself, or what holds the zip.

    Remote annotation files are copied to a folder of this machine for the time being.
    """
    where = str(given if given is not None else source).rstrip("/")
    if given is None and (where.endswith(".zip") or Path(where).name in TAR_FOLDERS):
        where = where.rsplit("/", 1)[0] if "/" in where else "."
    if not is_remote(where):
        if given is not None and not (Path(where) / "anno").is_dir():
            raise SourceError(f"{where}: no folder anno/ in it; give the folder that holds anno/anno.train.ndjson")
        yield Path(where)
        return
    fs, _ = filesystem(where)
    with tempfile.TemporaryDirectory(prefix="bassl-fast-") as folder:
        for part in ("anno", "scene318/shot_movie318"):
            try:
                entries = listing(f"{where}/{part}")
            except (FileNotFoundError, NotADirectoryError):
                continue
            (Path(folder) / part).mkdir(parents=True)
            for entry in entries:
                if entry.name.endswith((".ndjson", ".txt")):
                    data = attempt(f"{where}/{part}/{entry.name}", lambda entry=entry: fs.cat_file(entry.path))
                    (Path(folder) / part / entry.name).write_bytes(data)
        yield Path(folder)
