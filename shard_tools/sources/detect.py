"""Detect what a source holds: films, pictures in folders of classes, or clips."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from shard_tools import plugins
from shard_tools.annotations import movienet
from shard_tools.errors import ConfigError, SourceError
from shard_tools.shards.format import CLIPS, FILMS, KINDS, PICTURES
from shard_tools.storage.remote import is_remote

from .clips import open_clips
from .films import TAR_FOLDERS, open_source
from .folders import are_frames, class_folders, is_video, picture_names, visible
from .lists import find_lists, list_reader
from .names import film_of_tar, keyframe_of
from .pictures import open_pictures
from .source import Source


@dataclass(frozen=True)
class Reading:
    """How pictures and clips are found, and how videos become frames.

    Args:
        layout: "films", "pictures" or "clips"; None detects it.
        split_id: which of the splits 1 to 3 of UCF101 and HMDB51.
        short_side: of the frames of videos, in pixels; 0 keeps their size.
        fps: frames a second at which videos are decoded, or folders of frames were; by default that of the data set:
            25 for UCF101, 12 for frames of Something-Something v1, otherwise 30; unknown for folders without lists.

    Raises:
        ConfigError: a value out of range.
    """

    layout: Literal["films", "pictures", "clips"] | None = None
    split_id: int = 1
    short_side: int = 256
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.layout not in (None, *KINDS):
            raise ConfigError(f"layout {self.layout!r}: unknown; use one of {', '.join(KINDS)}")
        if not 1 <= self.split_id <= 3:
            raise ConfigError(f"split_id {self.split_id}: UCF101 and HMDB51 have splits 1 to 3")
        if not (self.short_side == 0 or 16 <= self.short_side <= 4096):
            raise ConfigError(f"short_side {self.short_side}: use 16 to 4096 pixels, or 0 to keep the size")
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise ConfigError(f"fps {self.fps}: use 0.1 to 240 frames a second")


class Request(NamedTuple):
    """What `pack` was asked to pack.

    Attributes:
        source: path or address.
        annotations: folder of annotations or of lists of clips; None: where the source has them.
        reading: what the user says about the layout.
        workers: videos opened at a time.
        quiet: no progress bar; None shows one on a terminal.
    """

    source: str | Path
    annotations: str | Path | None = None
    reading: Reading = Reading()
    workers: int = 2
    quiet: bool | None = True

    @property
    def folder(self) -> Path | None:
        """The source, if it is a folder of this machine."""
        return Path(self.source) if not is_remote(self.source) and Path(self.source).is_dir() else None


Opener = Callable[[Request], Source | None]  # None: not a source of this kind


def open_layout(
    source: str | Path,
    annotations: str | Path | None = None,
    reading: Reading = Reading(),
    workers: int = 2,
    quiet: bool | None = True,
) -> Source:
    """The shards that `source` becomes, from the first of plug-ins and `OPENERS` that knows its layout.

    Args:
        source, annotations, reading, workers, quiet: see `Request`.

    Raises:
        SourceError: nothing there in a known layout, or two layouts fit.
    """
    request = Request(source, annotations, reading, workers, quiet)
    if (source_of_plugin := open_by_plugin(request)) is not None:
        return source_of_plugin
    return next(found for opener in OPENERS if (found := opener(request)) is not None)


def open_by_plugin(request: Request) -> Source | None:
    """The source, from the first plug-in that knows it; none is asked if the user gives the layout."""
    if request.reading.layout is not None:
        return None
    for name, opener in plugins.functions("sources").items():
        if (found := opener(request)) is None:
            continue
        if not isinstance(found, Source):
            raise ConfigError(f"plug-in {name}: returned {type(found).__name__}, not a Source; fix or remove it")
        return found._replace(shards=[shard._replace(plugin=name) for shard in found.shards])
    return None


def _open_clips(request: Request) -> Source | None:
    source, annotations, reading = request.source, request.annotations, request.reading
    folder = _folder_of(CLIPS, request)
    if folder is None:
        return None
    where = source if annotations is None else annotations
    listing = None if is_remote(where) else find_lists(Path(where), reading.split_id)
    if listing is None and reading.layout is None and _kind(folder) != CLIPS:
        return None
    if listing is None and annotations is not None:
        raise SourceError(f"{annotations}: no lists of clips here; give the folder that holds them, or leave it out")
    found = open_clips(folder, listing, reading.fps, reading.short_side, request.workers, request.quiet)
    return found._replace(reading=asdict(reading))


def _open_pictures(request: Request) -> Source | None:
    source, reading = request.source, request.reading
    folder = _folder_of(PICTURES, request)
    if folder is None or (reading.layout is None and _kind(folder) != PICTURES):
        return None
    for name in ("short_side", "fps", "split_id"):
        if getattr(reading, name) != getattr(Reading, name):
            raise SourceError(f"--{name} is for clips, and {source} holds pictures; leave it out")
    if request.annotations is not None:
        raise SourceError(f"--annotations is for films and clips, and {source} holds pictures; leave it out")
    return open_pictures(folder)._replace(reading=asdict(reading))


def _open_films(request: Request) -> Source:
    return Source(FILMS, open_source(request.source), [], 0.0, {})


def _folder_of(kind: str, request: Request) -> Path | None:
    """The source, if it is a local folder that the user did not declare to be of another kind.

    Raises:
        SourceError: the user declared this kind, and the source is not a local folder.
    """
    if request.reading.layout == kind and request.folder is None:
        if is_remote(request.source):
            raise SourceError(f"{request.source}: {kind} are packed from a local folder; copy it to this machine")
        raise SourceError(f"{request.source}: no such folder; give the one that holds the {kind}")
    return request.folder if request.reading.layout in (None, kind) else None


# Tried in this order; films come last, so whatever is wrong with an unknown folder is said in terms of films.
OPENERS: list[Opener] = [_open_clips, _open_pictures, _open_films]


def has_lists(source: str | Path, annotations: str | Path | None) -> bool:
    """Whether there are lists of clips where `open_layout` looks for them."""
    where = source if annotations is None else annotations
    return not is_remote(where) and list_reader(Path(where)) is not None


def _holds_tars(folder: Path) -> bool:
    return folder.is_dir() and any(film_of_tar(name, str(folder)) for name in os.listdir(folder))


def _kind(root: Path) -> str:
    """Films, unless there are folders of classes."""
    if (root / movienet.FRAMES_DIR).is_dir() or any(_holds_tars(root / name) for name in ("", *TAR_FOLDERS)):
        return FILMS
    if any(map(is_video, os.listdir(root))):
        return FILMS
    folders = list(class_folders(root))
    if any(keyframe_of(name) for folder in folders for name in os.listdir(folder)):
        return FILMS
    for folder in folders:
        names = visible(folder)
        if any(is_video(name) or picture_names(folder / name) for name in names):
            return CLIPS
        pictures = picture_names(folder)
        if len(pictures) > 1 and are_frames(pictures):
            raise SourceError(
                f"{folder}: numbered pictures, either a class of pictures or the frames of a clip; say which with "
                f"--layout {PICTURES} or --layout {CLIPS}"
            )
        if pictures:
            return PICTURES
    return FILMS
