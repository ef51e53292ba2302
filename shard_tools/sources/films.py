"""Where films come from: a key-frame folder, a zip of per-film tars, or a folder of per-film tars; local or remote.

A film is one shard: a name, a fingerprint that changes when its files do, and its key-frames by shot. Nothing is
unpacked to disk: a film in a tar is read at once, so memory is that of one film per worker.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path

from shard_tools.annotations import movienet
from shard_tools.annotations.label318 import SCENE318, find_in_scene318
from shard_tools.errors import SourceError
from shard_tools.storage.remote import attempt, filesystem, is_remote, listing
from shard_tools.storage.untrusted import is_plain_name

from . import keyframe_folder
from .names import film_of_tar
from .remote_films import TAR_FOLDERS, remote_films
from .source import Keyframe, Scan, SourceShard, digest, facts, film_scan, read_file
from .tar_films import tar_film
from .zip_films import zip_films


def open_source(source: str | Path) -> list[SourceShard]:
    """The films of a source, in order of name.

    Raises:
        SourceError: nothing there, or nothing in a known layout.
    """
    if is_remote(source):
        films = remote_films(str(source))
    elif Path(source).is_file():
        films = zip_films(str(source))
    else:
        films = _local_films(Path(source))
    for film in films:
        if not is_plain_name(film.name):
            raise SourceError(f"{source}: the name of film {film.name!r} is not UTF-8 text or too long; rename it")
    films.sort(key=lambda film: film.name)
    for one, other in pairwise(films):
        if one.name == other.name:
            raise SourceError(f"{source}: film {one.name} appears twice; remove one of them")
    return films


def _local_films(source: Path) -> list[SourceShard]:
    """Films in `240P` and `240P_frames`, or if there are none, in the folder itself.

    A film that is there as a tar and as a folder is read from the tar: a folder may be unpacked in part.
    """
    tars = {film: path for name in TAR_FOLDERS for film, path in _tars(source / name).items()}
    folders = keyframe_folder.list_films(source / movienet.FRAMES_DIR) if tars else []
    if not tars and not (source / movienet.FRAMES_DIR).is_dir():
        tars = _tars(source)
        if tars and (loose := [path for path in keyframe_folder.list_films(source) if any(path.glob("shot_*.jpg"))]):
            raise SourceError(
                f"{loose[0]}: key-frames beside tars of key-frames; keep all films as folders or all as tars"
            )
    if not tars:
        folders = keyframe_folder.list_films(keyframe_folder.find_frames_dir(source))
    films = [tar_film(film, path) for film, path in tars.items()]
    return films + [_folder_film(folder) for folder in folders if folder.name not in tars]


def _tars(folder: Path) -> dict[str, Path]:
    """Film -> its tar, in a folder that may not exist."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {film: path for path in paths if (film := film_of_tar(path.name, str(folder)))}


def _folder_film(folder: Path) -> SourceShard:
    return SourceShard(folder.name, partial(_scan_folder, folder))


def _scan_folder(folder: Path) -> Scan:
    shots, files = keyframe_folder.list_keyframes(folder)
    keyframes = [[Keyframe(path, partial(read_file, path)) for path in images] for images in files]
    fingerprint = digest(facts(path) for images in files for path in images)
    return film_scan(folder.name, fingerprint, lambda: (shots, keyframes))


_ANNOTATIONS = (*movienet.ANNO_FOLDERS, *(f"scene318/{name}" for name in SCENE318))  # folders with annotations


@contextmanager
def annotations_folder(source: str | Path, given: str | Path | None = None) -> Iterator[Path]:
    """The folder that holds `anno/` or `scene318/`: the one given, the source itself, or the folder around it.

    Remote annotations are copied to a temporary folder.

    Raises:
        SourceError: the folder given holds no annotations. RemoteError: it cannot be read in time.
    """
    where = str(given if given is not None else source).rstrip("/")
    remote = is_remote(where)
    if given is None:
        place = where.split("?")[0] if remote else os.path.abspath(where)
        if place.lower().endswith(".zip") or place.rsplit("/", 1)[-1] in TAR_FOLDERS:
            where = place.rsplit("/", 1)[0]
    with tempfile.TemporaryDirectory(prefix="bassl-fast-") if remote else nullcontext(where) as folder:
        if remote:
            _fetch_annotations(where, Path(folder))
        if given is not None and not has_annotations(Path(folder)):
            raise SourceError(
                f"{where}: no folder anno/ or scene318/ in it; give the folder that holds anno/anno.train.ndjson or "
                "scene318/label318/"
            )
        yield Path(folder)


def has_annotations(folder: Path) -> bool:
    return bool(movienet.find_anno(folder)) or find_in_scene318(folder, "label318") is not None


def _fetch_annotations(where: str, to: Path) -> None:
    fs, _ = filesystem(where)
    for part in _ANNOTATIONS:
        address = f"{where}/{part}".rstrip("/")
        try:
            entries = listing(address)
        except (FileNotFoundError, NotADirectoryError):
            continue
        (to / part).mkdir(parents=True, exist_ok=True)
        for entry in entries:
            known = (".ndjson", ".txt", ".json") if part else (".ndjson",)  # "": may be the folder of all films
            if entry.name.endswith(known) and not entry.is_folder and is_plain_name(entry.name):
                data = attempt(f"{address}/{entry.name}", partial(fs.cat_file, entry.path))
                (to / part / entry.name).write_bytes(data)
