"""Clips in folders: videos or folders of frames; all of them, or those in the lists of a data set (see `lists`).

    <root>/[train|val|test/]<class>/<video>.mp4
    <root>/[train|val|test/]<class>/<video>/%08d.jpg
    <root>/[train|val|test/]<video>/<video>_%06d.jpg           without a class

The size of a video's frames is known only when it is decoded, so shards of videos are cut by an estimate.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from shard_tools.errors import SourceError
from shard_tools.shards import format as fmt
from shard_tools.video.clips import clip_frames
from shard_tools.video.frames import read_header
from shard_tools.video.listing import VIDEO_SUFFIXES

from .folders import (
    ONE_SHOT,
    ShardCutter,
    check_classes,
    class_folders,
    classes_of,
    frames_in_order,
    is_video,
    picture_names,
    splits_of,
    subfolders,
    visible,
)
from .lists import Listing
from .source import Keyframe, Scan, Sequence, Source, SourceShard, digest, facts, read_file

_BITS_A_PIXEL = 2.0  # of a decoded frame's JPEG, to estimate the size of a shard


class Clip(NamedTuple):
    """A clip to pack."""

    name: str
    path: str  # of its video or folder of frames
    label: int  # -1: unknown
    frames: int  # according to a list; 0: unknown


def open_clips(
    root: Path, listing: Listing | None, fps: float | None, short_side: int, workers: int, quiet: bool | None
) -> Source:
    """The clips of a list, or all clips in folders of classes, or clips without classes.

    Args:
        fps: frames a second; by default that of the data set.
        short_side: of the frames of videos, in pixels.
        workers: videos opened at a time.

    Raises:
        SourceError: a clip is missing or cannot be opened, classes and folders differ, or a class is empty.
    """
    if listing is None:
        classes, clips = _unlisted(root)
        default = 30.0
    else:
        classes, default = listing.classes, listing.fps
        clips = _listed(root, listing)
    videos = any(os.path.isfile(mine[0].path) for mine in clips.values())
    if listing is None and not videos:
        default = 0.0
    rate = default if fps is None else fps
    shards: list[SourceShard] = []
    total = sum(map(len, clips.values()))
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, desc="open", unit="clip", disable=quiet) as bar:
        for split, mine in sorted(clips.items()):
            cut = ShardCutter(split)
            for clip, size in zip(mine, pool.map(partial(_bytes_of, rate, short_side), mine), strict=True):
                cut.add(clip, clip.label, size)
                bar.update()
            shards += cut.finish(partial(_scan_clips, rate, short_side))
    return Source(fmt.CLIPS, shards, classes, rate, {})


def _unlisted(root: Path) -> tuple[list[str], dict[str, list[Clip]]]:
    """Classes and, per split, the clips of a tree without lists."""
    splits = splits_of(root)
    folders = list(class_folders(root))
    if not folders:
        raise SourceError(f"{root}: no clips in it; expected <class>/<video>.mp4 or <class>/<video>/00000001.jpg")
    if picture_names(folders[0]):
        return [], {
            split: [Clip(name, str(root / split / name), -1, 0) for name in subfolders(root / split)]
            for split in splits
        }
    classes = classes_of(root, splits)
    labels = {name: label for label, name in enumerate(classes)}
    clips: dict[str, list[Clip]] = {}
    for split in splits:
        found: dict[str, Clip] = {}
        for name in classes:
            folder = root / split / name
            for file in (names := visible(folder)):
                path = folder / file
                if not path.is_dir() and not is_video(file):
                    raise SourceError(f"{path}: neither a video nor a folder of frames; move it out of its folder")
                clip = Clip(f"{name}/{file if path.is_dir() else path.stem}", str(path), labels[name], 0)
                if (other := found.setdefault(clip.name, clip)) is not clip:
                    raise SourceError(f"{path}: would be packed as {clip.name}, like {other.path}; rename one of them")
            if not names:
                raise SourceError(f"{folder}: a class without clips; fill or remove its folder")
        clips[split] = [found[name] for name in sorted(found)]
    return classes, clips


def _listed(root: Path, listing: Listing) -> dict[str, list[Clip]]:
    """Per split, the clips of a list, all of which must exist."""
    clips: dict[str, dict[str, Clip]] = {}
    missing: list[str] = []
    seen: dict[str, str] = {}
    bases: dict[str, tuple[Path, str]] = {}
    for entry in listing.clips:
        parts = entry.path.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise SourceError(f"{entry.where}: path {entry.path!r} leaves the folder; give a path relative to it")
        stem = entry.path.removesuffix(suffix) if (suffix := _suffix(parts[-1])) else entry.path
        if entry.split not in bases:
            bases[entry.split] = _base(root, entry.split, stem, suffix, entry.where)
        base, ending = bases[entry.split]
        path = base / (stem + ending)
        if not (path.is_file() if ending else path.is_dir()):
            missing.append(f"{entry.where}: {path} is missing")
        if (first := seen.setdefault(str(path), entry.where)) is not entry.where:
            raise SourceError(f"{entry.where}: {entry.path} is also listed at {first}; keep one of them")
        clip = Clip(stem, str(path), entry.label, 0 if ending else entry.frames)
        if (other := clips.setdefault(entry.split, {}).setdefault(stem, clip)) is not clip:
            raise SourceError(f"{entry.where}: would be packed as {stem}, like {other.path}; rename one of them")
    if missing:
        more = f", as are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SourceError(f"{missing[0]}{more}; fetch it or remove it from the list")
    if listing.in_folders:
        check_classes(root, listing.classes)
        homes = {clip.path.rsplit("/", 2)[0] for mine in clips.values() for clip in mine.values()}
        _check_folders(listing, [Path(home) for home in sorted(homes)])
    return {split: [mine[name] for name in sorted(mine)] for split, mine in clips.items()}


def _check_folders(listing: Listing, homes: list[Path]) -> None:
    """Raises: SourceError for a class without a folder in any of `homes`, or a folder there without a class."""
    found = {
        name: home
        for home in homes
        for name in subfolders(home)
        if any((home / name / file).is_dir() or is_video(file) for file in visible(home / name))
    }
    if extra := sorted(set(found) - set(listing.classes)):
        raise SourceError(f"{found[extra[0]] / extra[0]}: not a class in the lists of {listing.name}; move it away")
    if lacking := sorted(set(listing.classes) - set(found)):
        raise SourceError(
            f"{homes[0] / lacking[0]}: no clips here, and {listing.name} lists {len(listing.classes)} classes; "
            "fetch them"
        )


def _suffix(name: str) -> str:
    """The extension of a video's name; "" for a folder of frames."""
    return Path(name).suffix if is_video(name) else ""


def _base(root: Path, split: str, stem: str, suffix: str, where: str) -> tuple[Path, str]:
    """The folder that the paths of a list are relative to, and their extension there ("": folders of frames)."""
    endings = (suffix, "") if suffix else ("", *VIDEO_SUFFIXES)
    for base in (root / split, root, *(root / name for name in subfolders(root))):
        for ending in endings:
            path = base / (stem + ending)
            if path.is_file() if ending else path.is_dir():
                return base, ending
    raise SourceError(f"{where}: {root / (stem + suffix)} is missing; fetch it or remove it from the list")


def _bytes_of(fps: float, short_side: int, clip: Clip) -> int:
    """Estimated bytes of a clip in a shard. Opens videos, so that a broken one is found before any is packed."""
    if not os.path.isdir(clip.path):
        header = read_header(clip.path)
        if (frames := int(header.duration * fps)) > fmt.MOST_IMAGES:
            raise SourceError(
                f"{clip.path}: {frames} frames, a clip has at most {fmt.MOST_IMAGES}; cut it, or pack the folder it "
                "is in as films"
            )
        pixels = short_side**2 * 16 / 9 if short_side else 1280 * 720
        return int(max(header.duration, 1.0) * fps * (512 + pixels * _BITS_A_PIXEL / 8))
    names = visible(Path(clip.path))
    if not names:
        raise SourceError(f"{clip.path}: a clip without frames; extract them again or remove it")
    try:
        return len(names) * (1024 + os.stat(f"{clip.path}/{names[0]}").st_size)
    except OSError as error:
        raise SourceError(f"{clip.path}/{names[0]}: {error.strerror}; extract its frames again") from None


def _scan_clips(fps: float, short_side: int, clips: list[Clip], _: str) -> Scan:
    lines = [f"{fps:g} frames a second, {short_side} pixels"]
    found = []
    for clip in clips:
        frames = None
        if os.path.isdir(clip.path):
            frames = [f"{clip.path}/{name}" for name in frames_in_order(clip.path, visible(Path(clip.path)))]
            if clip.frames not in (0, len(frames)):
                raise SourceError(
                    f"{clip.path}: {len(frames)} frames, its list says {clip.frames}; extract its frames again"
                )
        lines += [clip.name, *map(facts, frames or [clip.path])]
        found.append((clip, frames))
    return Scan(digest(lines), lambda: (_clip(clip, frames, fps, short_side) for clip, frames in found))


def _clip(clip: Clip, frames: list[str] | None, fps: float, short_side: int) -> Sequence:
    if frames is None:
        jpegs = clip_frames(clip.path, fps, short_side)
        images = (Keyframe(clip.path, partial(bytes, jpeg)) for jpeg in jpegs)
    else:
        images = (Keyframe(path, partial(read_file, path)) for path in frames)
    return Sequence(clip.name, ONE_SHOT, (images,))
