"""The films given on the command line: files, folders of them, addresses; each with a plain name of its own."""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote, urlsplit

from shard_tools.storage.remote import is_remote
from shard_tools.video.listing import film_name, find_videos, name_films


def name_sources(given: list[str]) -> dict[str, str]:
    """Name fit for a folder -> path or address of every film; a film given twice is taken once.

    Prints what is left out of folders.

    Raises:
        SourceError: no such folder, or none of the folders holds a video.
    """
    sources: dict[object, tuple[str, PurePath]] = {}
    for film in given:
        if is_remote(film):
            sources.setdefault(film, (film, _path_of(film)))
            continue
        path = Path(film)
        if path.is_dir():
            found = find_videos(path)
            found.require(path)
            if line := found.say(path):
                print(line, flush=True)
        for file in found.files if path.is_dir() else [path]:
            sources.setdefault(file.resolve(), (str(file), file))
    source_of = {path: source for source, path in sources.values()}
    return {name: source_of[path] for name, path in name_films(source_of).items()}


def name_of(film: str | Path) -> str:
    """Name of the film at a path or address, fit for a folder."""
    return film_name(_path_of(film).stem)


def _path_of(film: str | Path) -> PurePath:
    return PurePosixPath(unquote(urlsplit(str(film)).path)) if is_remote(film) else PurePath(film)
