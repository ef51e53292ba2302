"""Films behind an address: folders of key-frames, tars, or a zip of tars."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.storage.remote import Entry, attempt, child, filesystem, listing

from . import keyframe_folder
from .names import film_of_tar, is_litter, keyframe_of
from .source import Keyframe, Keyframes, Scan, SourceShard, digest, film_scan
from .tar_films import in_tar
from .zip_films import zip_films

Result = TypeVar("Result")
TAR_FOLDERS = ("240P", movienet.FRAMES_DIR)  # folders that may hold the films, besides the source itself


def remote_films(uri: str) -> list[SourceShard]:
    if urlsplit(uri).path.lower().endswith(".zip"):
        return zip_films(uri)
    found: dict[str, SourceShard] = {}
    for name in (*TAR_FOLDERS, ""):
        if found and not name:
            break
        folder = f"{uri.rstrip('/')}/{name}".rstrip("/")
        try:
            entries = [entry for entry in listing(folder) if not is_litter(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            film = "" if entry.is_folder else film_of_tar(entry.name, folder)
            if film and film in found:
                raise SourceError(f"{uri}: film {film} appears twice; remove one of them")
            if film:
                found[film] = _remote_tar(film, child(folder, entry.name), entry)
        films = [entry.name for entry in entries if entry.is_folder]
        if films and (name or (not found and any(_holds_keyframes(child(folder, film)) for film in films))):
            found = {film: _remote_folder(film, child(folder, film)) for film in films} | found
    if not found:
        raise SourceError(
            f"{uri}: no films here; expected {movienet.FRAMES_DIR}/<film>/{movienet.keyframe_name(0, 0)}, "
            "<film>.tar or a zip of those"
        )
    return list(found.values())


def _holds_keyframes(folder: str) -> bool:
    return any(keyframe_of(entry.name) for entry in listing(folder))


def _remote_tar(film: str, where: str, entry: Entry) -> SourceShard:
    return SourceShard(film, partial(_scan_remote_tar, film, where, entry))


def _scan_remote_tar(film: str, where: str, entry: Entry) -> Scan:
    def keyframes() -> Keyframes:
        fs, _ = filesystem(where)
        return in_tar(_read(where, lambda: fs.cat_file(entry.path)), where)

    return film_scan(film, digest([_remote_facts(entry)]), keyframes)


def _remote_folder(film: str, where: str) -> SourceShard:
    return SourceShard(film, partial(_scan_remote_folder, film, where))


def _scan_remote_folder(film: str, where: str) -> Scan:
    entries = {entry.name: entry for entry in _read(where, lambda: listing(where)) if not entry.is_folder}
    shots, names = keyframe_folder.arrange_keyframes(where, entries)

    def keyframes() -> Keyframes:
        # All at once: a request per key-frame, many in flight.
        fs, _ = filesystem(where)
        paths = [entries[name].path for images in names for name in images]
        # Not `cat`, which takes [ ] in a name for a pattern.
        everything = [None] * len(paths)
        found = _read(where, lambda: fs.cat_ranges(paths, everything, everything, on_error="raise"))
        data = dict(zip(paths, found, strict=True))
        return shots, [
            [Keyframe(f"{where}/{name}", partial(data.__getitem__, entries[name].path)) for name in images]
            for images in names
        ]

    return film_scan(film, digest(_remote_facts(entries[name]) for images in names for name in images), keyframes)


def _read(where: str, action: Callable[[], Result]) -> Result:
    """Raises: SourceError for what was there and is not. RemoteError: it cannot be read in time."""
    try:
        return attempt(where, action)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{where}: gone since the source was listed; put it back, or run this again") from None


def _remote_facts(entry: Entry) -> str:
    return f"{entry.path} {entry.size} {entry.version}"
