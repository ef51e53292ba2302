"""Films behind an address: folders of key-frames, tars, or a zip of tars."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.storage.remote import Entry, attempt, filesystem, listing

from . import keyframe_folder
from .source import Keyframe, Keyframes, Scan, SourceShard, digest, film_scan
from .tar_films import in_tar
from .zip_films import zip_films

TAR_FOLDERS = ("240P", movienet.FRAMES_DIR)  # folders that may hold the films, besides the source itself


def remote_films(uri: str) -> list[SourceShard]:
    _, root = filesystem(uri)
    if root.endswith(".zip"):
        return zip_films(uri, partial(_open_remote, uri))
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
        f"{uri}: no films here; expected {movienet.FRAMES_DIR}/<film>/{movienet.keyframe_name(0, 0)}, "
        "<film>.tar or a zip of those"
    )


def _open_remote(uri: str) -> Any:
    fs, path = filesystem(uri)
    # One request per 8 MiB read in order; the directory at the end of a zip is read separately.
    return attempt(uri, lambda: fs.open(path, "rb", block_size=8 << 20))


def _remote_tar(where: str, entry: Entry) -> SourceShard:
    return SourceShard(Path(entry.name).stem, partial(_scan_remote_tar, where, entry))


def _scan_remote_tar(where: str, entry: Entry) -> Scan:
    def keyframes() -> Keyframes:
        fs, _ = filesystem(where)
        return in_tar(attempt(where, lambda: fs.cat_file(entry.path)), where)

    return film_scan(Path(entry.name).stem, digest([_remote_facts(entry)]), keyframes)


def _remote_folder(film: str, where: str) -> SourceShard:
    return SourceShard(film, partial(_scan_remote_folder, film, where))


def _scan_remote_folder(film: str, where: str) -> Scan:
    entries = {entry.name: entry for entry in listing(where) if not entry.is_folder}
    shots, names = keyframe_folder.arrange_keyframes(where, entries)

    def keyframes() -> Keyframes:
        # All at once: a request per key-frame, many in flight.
        fs, _ = filesystem(where)
        paths = [entries[name].path for images in names for name in images]
        data = attempt(where, lambda: fs.cat(paths, on_error="raise"))
        data = data if isinstance(data, dict) else {paths[0]: data}
        return shots, [
            [Keyframe(f"{where}/{name}", partial(data.__getitem__, entries[name].path)) for name in images]
            for images in names
        ]

    return film_scan(film, digest(_remote_facts(entries[name]) for images in names for name in images), keyframes)


def _remote_facts(entry: Entry) -> str:
    return f"{entry.path} {entry.size} {entry.version}"
