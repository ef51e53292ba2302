"""The video files that a user asks for beside the results: clips of scenes, and the film with chapters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bassl_fast.config.choices import Split
from shard_tools.errors import RemoteError, SourceError

from .film import FilmScenes
from .packets import read_index
from .remux import write_with_chapters
from .split import split_film

CLIPS = "clips"  # their folder


class Videos(NamedTuple):
    """What to write, see `bassl-fast scenes`."""

    split: Split | None = None
    chapters: bool = False


NO_VIDEOS = Videos()


class Written(NamedTuple):
    """What came of it.

    Attributes:
        said: how the files differ from what a user may expect, for people.
        failed: why a file could not be written.
    """

    said: list[str]
    failed: SourceError | RemoteError | None = None


def chapters_name(film: FilmScenes) -> str:
    """Name of the file of the film with chapters."""
    return f"{film.name}-chapters.mkv"


def write_videos(film: FilmScenes, folder: Path, videos: Videos) -> Written:
    """Write them to a folder of results; those that cannot be written do not stop the results."""
    said: list[str] = []
    try:
        index = read_index(film.source) if any(videos) else None
        if videos.split:
            (folder / CLIPS).mkdir()
            said += split_film(film, folder / CLIPS, videos.split, index)
        if videos.chapters:
            said += write_with_chapters(film, folder / chapters_name(film), index)
    except (SourceError, RemoteError) as error:
        return Written(said, error.with_traceback(None))
    return Written(said)
