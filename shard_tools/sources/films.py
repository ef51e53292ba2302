"""Where films come from: a key-frame folder, a zip of per-film tars, or a folder of per-film tars; local or remote.

A film is one shard: a name, a fingerprint that changes when its files do, and its key-frames by shot. Nothing is
unpacked to disk: a film in a tar is read at once, so memory is that of one film per worker.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from shard_tools.errors import SourceError
from shard_tools.storage.remote import attempt, filesystem, is_remote, listing

from . import keyframe_folder
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
        films = zip_films(str(source), partial(open, source, "rb"))
    else:
        films = _local_films(Path(source))
    films.sort(key=lambda film: film.name)
    for one, other in pairwise(films):
        if one.name == other.name:
            raise SourceError(f"{source}: film {one.name} appears twice; remove one of them")
    return films


def _local_films(source: Path) -> list[SourceShard]:
    tars = [path for folder in (source, *(source / name for name in TAR_FOLDERS)) for path in folder.glob("*.tar")]
    tars = [path for path in tars if not path.name.startswith(".")]
    if not tars:
        return [_folder_film(folder) for folder in keyframe_folder.list_films(keyframe_folder.find_frames_dir(source))]
    if loose := [path for path in keyframe_folder.list_films(tars[0].parent) if any(path.glob("shot_*.jpg"))]:
        raise SourceError(f"{loose[0]}: key-frames beside tars of key-frames; keep all films as folders or all as tars")
    return [tar_film(path) for path in tars]


def _folder_film(folder: Path) -> SourceShard:
    return SourceShard(folder.name, partial(_scan_folder, folder))


def _scan_folder(folder: Path) -> Scan:
    shots, files = keyframe_folder.list_keyframes(folder)
    keyframes = [[Keyframe(path, partial(read_file, path)) for path in images] for images in files]
    fingerprint = digest(facts(path) for images in files for path in images)
    return film_scan(folder.name, fingerprint, lambda: (shots, keyframes))


@contextmanager
def annotations_folder(source: str | Path, given: str | Path | None = None) -> Iterator[Path]:
    """The folder that holds `anno/` and `scene318/`: the one given, the source itself, or the folder of the zip.

    Remote annotations are copied to a temporary folder.

    Raises:
        SourceError: the folder given has no `anno/`. RemoteError: it cannot be read in time.
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
                    data = attempt(f"{where}/{part}/{entry.name}", partial(fs.cat_file, entry.path))
                    (Path(folder) / part / entry.name).write_bytes(data)
        yield Path(folder)
