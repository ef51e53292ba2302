"""The videos in folders, and the names their films get."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import NamedTuple

from shard_tools.errors import SourceError

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".m2p", ".m2t", ".m2ts", ".m2v", ".m4v", ".mkv"),
    *(".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".rmvb", ".tod", ".ts"),
    *(".vob", ".webm", ".wmv", ".wtv", ".y4m"),
)
RESULTS = "scenes.json"  # a folder with it holds what `bassl-fast scenes` wrote, clips of films among it
_LONGEST = 180  # bytes of a film's name: files are named after it, and a name may have 255


_NAMES, _HIDDEN, _RESULTS = "not videos by their names", "hidden", "earlier results"  # reasons to leave files out


class Videos(NamedTuple):
    """Files below a folder, sorted: videos by their suffix, and what else there is, by the reason to leave it out."""

    files: list[Path]
    left_out: dict[str, list[Path]]

    def say(self, folder: Path | str, most: int = 3) -> str:
        """One line about what is left out; "" if nothing is."""
        parts = []
        for reason, paths in self.left_out.items():
            names = [os.fspath(path.relative_to(folder)) for path in paths]
            more = f" and {len(names) - most} more" if len(names) > most else ""
            parts.append(f"{', '.join(names[:most])}{more} ({reason})")
        return f"{folder}: left out {'; '.join(parts)}" if parts else ""

    def require(self, folder: Path | str) -> None:
        """Raises: SourceError if there is no video."""
        if not self.files and set(self.left_out) == {_RESULTS}:
            raise SourceError(f"{folder}: only earlier results in it; give the films themselves")
        if not self.files:
            raise SourceError(f"{folder}: no videos in it; expected files ending in {' '.join(VIDEO_SUFFIXES)}")


def find_videos(folder: Path) -> Videos:
    """The video files in `folder` and the folders in it, linked ones too.

    Hidden files and folders, and results of `bassl-fast scenes`, are left out.

    Raises:
        SourceError: no such folder.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give the folder that holds the video files")
    files: list[Path] = []
    left_out: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if RESULTS in names:
            folders.clear()
            left_out.setdefault(_RESULTS, []).append(Path(place))
            continue
        if (real := os.path.realpath(place)) in seen:  # a link to a folder that holds it
            folders.clear()
            continue
        seen.add(real)
        for name in sorted([*folders, *names]):  # "._a.mp4" is not a video, but what macOS keeps beside one
            if name.startswith("."):
                left_out.setdefault(_HIDDEN, []).append(Path(place, name))
            elif name in names and Path(name).suffix.lower() in VIDEO_SUFFIXES:
                files.append(Path(place, name))
            elif name in names:
                left_out.setdefault(_NAMES, []).append(Path(place, name))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return Videos(sorted(files), left_out)


def list_videos(folder: Path) -> list[Path]:
    """The video files of `find_videos`.

    Raises:
        SourceError: no such folder, or no video in it.
    """
    found = find_videos(folder)
    found.require(folder)
    return found.files


def film_name(name: str) -> str:
    """`name` as a file name without dots, blanks or separators: "Big Buck (2008)" -> "Big_Buck_2008"."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_-") or "film"
    if len(plain.encode()) <= _LONGEST:
        return plain
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{plain.encode()[: _LONGEST - 9].decode(errors='ignore')}_{digest}"


def name_films(files: Iterable[PurePath]) -> dict[str, PurePath]:
    """Film name -> file, in the order of `files`.

    A film is named after its file; of files with the same name, after the suffix too, or else the folder as well.

    >>> list(name_films(map(Path, ["a/one.mp4", "a/two.mp4", "a/two.mkv", "b/one.mp4"])))
    ['a_one', 'two_mp4', 'two_mkv', 'b_one']
    """
    files = list(dict.fromkeys(files))
    names: dict[PurePath, str] = {}
    for way in _WAYS:
        proposed = {path: film_name(way(path)) for path in files if path not in names}
        taken = [*proposed.values(), *names.values()]
        names |= {path: name for path, name in proposed.items() if taken.count(name) == 1}
    return {names[path]: path for path in files}


_WAYS: tuple[Callable[[PurePath], str], ...] = (
    lambda path: path.stem,
    lambda path: path.name,
    lambda path: f"{path.parent.name}_{path.stem}",
    lambda path: f"{path.parent.name}_{path.name}",
    lambda path: f"{path.name}_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}",
)
