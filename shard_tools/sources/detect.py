"""What a source is, told by what is there: films, pictures in folders of classes, or clips."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from shard_tools.annotations import movienet
from shard_tools.errors import ConfigError, SourceError
from shard_tools.shards.format import CLIPS, FILMS, KINDS, PICTURES
from shard_tools.storage.remote import is_remote

from . import folders as trees
from . import keyframe_folder
from .films import TAR_FOLDERS, open_source
from .lists import find_lists, list_reader
from .source import Source


@dataclass(frozen=True)
class Reading:
    """How pictures and clips are found, and how videos become frames.

    Args:
        layout: "films", "pictures" or "clips", where what is there does not tell.
        split_id: which of the splits 1 to 3 of UCF101 and HMDB51.
        short_side: of the frames of videos, in pixels; 0 leaves them as they are.
        fps: frames a second that videos are decoded at, or that folders of frames were; by default that of the data
            set: 25 of UCF101, 12 of frames of Something-Something v1, otherwise 30, unknown of folders without lists.
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
            raise ConfigError(f"short_side {self.short_side}: use 16 to 4096 pixels, or 0 for pictures as they are")
        if self.fps is not None and not 0.1 <= self.fps <= 240:
            raise ConfigError(f"fps {self.fps}: use 0.1 to 240 frames a second")


def open_layout(
    source: str | Path, annotations: str | Path | None, reading: Reading, workers: int = 2, quiet: bool | None = True
) -> Source:
    """The shards that `source` becomes.

    Args:
        annotations: folder of the lists of clips; by default the source itself.
        workers: videos looked at at a time.
        quiet: no progress bar; None shows one on a terminal.

    Raises:
        SourceError: nothing there in a known layout, or it is not told which of two it is in.
    """
    kind, listing = reading.layout, None
    if is_remote(source) and kind in (PICTURES, CLIPS):
        raise SourceError(f"{source}: {kind} are packed from a folder of this machine; copy it here")
    if kind in (PICTURES, CLIPS) and not Path(source).is_dir():
        raise SourceError(f"{source}: no such folder; give the one that holds the {kind}")
    if not is_remote(source) and Path(source).is_dir() and kind in (None, CLIPS):
        if not is_remote(where := annotations or source):
            listing = find_lists(Path(where), reading.split_id)
        kind = CLIPS if listing else kind or _kind(Path(source))
    if kind == CLIPS and annotations is not None and listing is None:
        raise SourceError(f"{annotations}: no lists of clips there; give the folder that holds them, or leave it out")
    if kind == PICTURES:
        for name in ("short_side", "fps", "split_id"):
            if getattr(reading, name) != getattr(Reading, name):
                raise SourceError(f"--{name} is for clips, and {source} holds pictures; leave it out")
        if annotations is not None:
            raise SourceError(f"--annotations is for films and clips, and {source} holds pictures; leave it out")
        return trees.open_pictures(Path(source))._replace(reading=asdict(reading))
    if kind == CLIPS:
        clips = trees.open_clips(Path(source), listing, reading.fps, reading.short_side, workers, quiet)
        return clips._replace(reading=asdict(reading))
    return Source(FILMS, open_source(source), [], 0.0, {})


def has_lists(source: str | Path, annotations: str | Path | None) -> bool:
    """Whether lists of clips stand where `open_layout` looks for them."""
    where = source if annotations is None else annotations
    return not is_remote(where) and list_reader(Path(where)) is not None


def _kind(root: Path) -> str:
    """Films unless folders of classes are there: whatever is wrong with a folder is said of films."""
    if (root / movienet.FRAMES_DIR).is_dir() or any(any((root / name).glob("*.tar")) for name in ("", *TAR_FOLDERS)):
        return FILMS
    if any(map(trees.is_video, os.listdir(root))):
        return FILMS
    for folder in trees.class_folders(root):
        names = trees.visible(folder)
        if any(keyframe_folder.KEYFRAME.fullmatch(name) for name in names):
            return FILMS
        if any(trees.is_video(name) or trees.pictures(folder / name) for name in names):
            return CLIPS
        pictures = trees.pictures(folder)
        if len(pictures) > 1 and trees.are_frames(pictures):
            raise SourceError(
                f"{folder}: pictures numbered one after another, a class of pictures or the frames of a clip; "
                f"say which by --layout {PICTURES} or --layout {CLIPS}"
            )
        if pictures:
            return PICTURES
    return FILMS
