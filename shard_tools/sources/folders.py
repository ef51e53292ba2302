"""Pictures and clips in folders, and which of them share a shard.

    <root>/[train|val|test/]<class>/*.jpg                      pictures
    <root>/[train|val|test/]<class>/<video>.mp4                clips, videos
    <root>/[train|val|test/]<class>/<video>/%08d.jpg           clips, folders of frames
    <root>/[train|val|test/]<video>/<video>_%06d.jpg           clips without a class

With lists (see `lists`), these say which clips there are, their splits and classes. Shards are cut when they reach
`SHARD` bytes: those of files that are copied, an estimate of those of videos, which are known only when decoded.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from shard_tools.annotations.movienet import SPLITS
from shard_tools.errors import SourceError
from shard_tools.shards import format as fmt
from shard_tools.video.clips import clip_frames
from shard_tools.video.frames import read_header
from shard_tools.video.keyframes import VIDEO_SUFFIXES

from .keyframe_folder import LITTER
from .lists import Listing
from .source import Keyframe, Scan, Sequence, Source, SourceShard, digest, facts, read_file

PICTURE_SUFFIXES = (".jpg", ".jpeg")
SHARD = 1 << 30  # bytes that a shard is cut at
_FRAME = re.compile(r"(.*?)([0-9]+)\.jpe?g", re.IGNORECASE)
_BITS_A_PIXEL = 2.0  # of a decoded frame's JPEG, to guess the size of a shard
_ONE = np.zeros(1, np.int64)  # the shot numbers of a sequence of one shot


class Clip(NamedTuple):
    """A clip to pack: name, path of its video or folder of frames, class or -1, frames that a list says it has or 0."""

    name: str
    path: str
    label: int
    frames: int


# --- folders


def visible(folder: Path) -> list[str]:
    """Names in a folder, in order, without what desktop systems leave there."""
    return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name.lower() not in LITTER)


def is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def pictures(folder: Path) -> list[str]:
    """Names of the pictures in a folder, in order; none in what is no folder."""
    return [name for name in visible(folder) if name.lower().endswith(PICTURE_SUFFIXES)] if folder.is_dir() else []


def _folders(folder: Path) -> list[str]:
    return [name for name in visible(folder) if (folder / name).is_dir()]


def splits_of(root: Path) -> list[str]:
    """Those of train, val and test that are folders of folders in `root`; [""] where none is.

    Raises:
        SourceError: something to pack stands beside them.
    """
    splits = [split for split in SPLITS if (root / split).is_dir() and _folders(root / split)]
    for name in _folders(root) if splits else ():
        inside = visible(root / name)
        if name not in SPLITS and (pictures(root / name) or any(map(is_video, inside)) or _folders(root / name)):
            raise SourceError(
                f"{root / name}: stands beside the split {splits[0]!r}; call it train, val or test, with folders of "
                "classes in it, or move it away"
            )
    return splits or [""]


def class_folders(root: Path) -> Iterator[Path]:
    """The folders that are classes, or clips without one, of all splits."""
    for split in splits_of(root):
        yield from (root / split / name for name in _folders(root / split))


def are_frames(names: list[str]) -> bool:
    """Whether pictures are numbered one after another, as the frames of a clip are."""
    try:
        return bool(_in_order("", names))
    except SourceError:
        return False


def _in_order(folder: str, names: Iterable[str]) -> list[str]:
    """File names of the frames of a clip, in order of their numbers, which begin at 0 or 1.

    Raises:
        SourceError: none, a number is missing or comes twice, or a file that is no frame.
    """
    numbered: dict[int, str] = {}
    prefix = None
    for name in names:
        match = _FRAME.fullmatch(name)
        prefix = match[1] if match and prefix is None else prefix
        if match is None or match[1] != prefix or int(match[2]) in numbered:
            raise SourceError(f"{folder}/{name}: not a frame like its neighbours (%08d.jpg); move it out of the folder")
        numbered[int(match[2])] = name
    if not numbered:
        raise SourceError(f"{folder}: a clip without frames; extract them again or remove it")
    first = min(numbered)
    for number in range(first if first == 0 else 1, first + len(numbered)):
        if number not in numbered:
            raise SourceError(f"{folder}: frame {number} missing; extract its frames again")
    return [numbered[number] for number in sorted(numbered)]


def _check_classes(root: Path, classes: list[str]) -> None:
    """Raises: SourceError for two classes that only case or Unicode form tells apart: on other disks they are one."""
    seen: dict[str, str] = {}
    for name in classes:
        if (other := seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)) is not name:
            raise SourceError(f"{root}: classes {other!r} and {name!r} differ in case or Unicode form alone; join them")


def _classes_of_splits(root: Path, splits: list[str]) -> list[str]:
    """The class folders, which all splits must have."""
    found = {split: _folders(root / split) for split in splits}
    classes = sorted(set().union(*found.values()))
    for split in splits:
        for name in visible(root / split):
            if name.lower().endswith((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)) and name not in found[split]:
                raise SourceError(f"{root / split / name}: in no folder of a class; move it into one or away")
    for split, mine in found.items():
        if missing := sorted(set(classes) - set(mine)):
            others = next(other for other in splits if missing[0] in found[other])
            raise SourceError(
                f"{root / split}: no class {missing[0]!r}, which {root / others} has; splits need the same classes, "
                "as labels count them"
            )
    _check_classes(root, classes)
    return classes


# --- pictures


def open_pictures(root: Path) -> Source:
    """Pictures in folders of classes, with folders of splits around them or without.

    Raises:
        SourceError: no class, an empty one, a file that is no picture's, or classes that splits do not share.
    """
    splits = splits_of(root)
    for split in SPLITS if splits != [""] else ():
        if split not in splits and (root / split).is_dir():
            raise SourceError(f"{root / split}: no folders of classes in it; sort its pictures or move it away")
    classes = _classes_of_splits(root, splits)
    if not classes:
        raise SourceError(f"{root}: no folder of a class in it; expected train/<class>/*.jpg or <class>/*.jpg")
    labels = {name: label for label, name in enumerate(classes)}
    shards: list[SourceShard] = []
    for split in sorted(splits):
        cut = _Cut(split)
        for name in sorted(classes, key=lambda name: f"{name}/"):  # so that `<class>/<picture>` comes in order
            _add_class(cut, root / split / name, name, labels[name])
        shards += cut.finish(partial(_scan_pictures, str(root / split)))
    return Source(fmt.PICTURES, shards, classes, 0.0, {})


def _add_class(cut: _Cut, folder: Path, name: str, label: int) -> None:
    where, known = str(folder), {}
    with os.scandir(folder) as entries:
        for entry in entries:
            file = entry.name
            if file.startswith(".") or file.lower() in LITTER:
                continue
            stem = file.rpartition(".")[0]
            if not file.lower().endswith(PICTURE_SUFFIXES) or not stem:
                raise SourceError(
                    f"{where}/{file}: no picture by its name ({' '.join(PICTURE_SUFFIXES)}); convert it or move it away"
                )
            try:
                found = entry.stat()
            except OSError as error:
                raise SourceError(f"{where}/{file}: {error.strerror}; fetch this picture again or remove it") from None
            stem = stem.replace(".", "_")  # what follows the first dot is a WebDataset extension
            if stem in known:
                raise SourceError(f"{where}/{file}: would be {name}/{stem}, as {known[stem][0]} is; rename one of them")
            known[stem] = file, found.st_size, found.st_mtime_ns
    if not known:
        raise SourceError(f"{where}: a class without a picture; fill or remove its folder")
    for stem in sorted(known):
        file, size, time = known[stem]
        cut.add(f"{name}/{file}", label, 512 + size + len(fmt.padding(size)), f"{name}/{file} {size} {time}")


def _scan_pictures(root: str, files: list[str], fingerprint: str) -> Scan:
    return Scan(fingerprint, lambda: map(partial(_picture, root), files))


def _picture(root: str, file: str) -> Sequence:
    folder, _, name = file.rpartition("/")
    path = f"{root}/{file}"
    stem = name.rpartition(".")[0].replace(".", "_")
    return Sequence(f"{folder}/{stem}", _ONE, ((Keyframe(path, partial(read_file, path)),),))


class _Cut:
    """Deals what comes in order into shards of about `SHARD` bytes."""

    def __init__(self, split: str) -> None:
        self._split, self._parts, self._room = split, [], 0

    def add(self, item: object, label: int, size: int, known: str = "") -> None:
        """`size` in bytes; `known` goes into the fingerprint."""
        if self._room < size or not self._parts:
            self._parts.append(([], [], hashlib.sha256()))
            self._room = SHARD
        items, labels, facts_of_all = self._parts[-1]
        items.append(item)
        labels.append(label)
        facts_of_all.update(f"{known}\n".encode(errors="surrogateescape"))
        self._room -= size

    def finish(self, scan: Callable[[list, str], Scan]) -> list[SourceShard]:
        """The shards; `scan` looks at the items of one, given their fingerprint."""
        shards = []
        for number, (items, labels, facts_of_all) in enumerate(self._parts):
            look = partial(scan, items, facts_of_all.hexdigest())
            name = f"{self._split or 'all'}-{number:05d}"
            shards.append(SourceShard(name, look, self._split, np.array(labels, np.int32)))
        return shards


# --- clips


def open_clips(
    root: Path, listing: Listing | None, fps: float | None, short_side: int, workers: int, quiet: bool | None
) -> Source:
    """Clips that lists name, or all in folders of classes, or in folders of their own.

    Args:
        fps: frames a second; by default that of the data set.
        short_side: of the frames of videos.

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
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, desc="look", unit="clip", disable=quiet) as bar:
        for split, mine in sorted(clips.items()):
            cut = _Cut(split)
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
    if pictures(folders[0]):
        return [], {
            split: [Clip(name, str(root / split / name), -1, 0) for name in _folders(root / split)] for split in splits
        }
    classes = _classes_of_splits(root, splits)
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
                    raise SourceError(f"{path}: would be clip {clip.name}, as {other.path} is; rename one of them")
            if not names:
                raise SourceError(f"{folder}: a class without a clip; fill or remove its folder")
        clips[split] = [found[name] for name in sorted(found)]
    return classes, clips


def _listed(root: Path, listing: Listing) -> dict[str, list[Clip]]:
    """Per split, the clips that lists name, each of which must be there."""
    clips: dict[str, dict[str, Clip]] = {}
    missing: list[str] = []
    seen: dict[str, str] = {}
    bases: dict[str, tuple[Path, str | None]] = {}
    for entry in listing.clips:
        parts = entry.path.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise SourceError(f"{entry.where}: path {entry.path!r} leads out of the folder; give paths relative to it")
        stem = entry.path.removesuffix(suffix) if (suffix := _suffix(parts[-1])) else entry.path
        if entry.split not in bases:
            bases[entry.split] = _base(root, entry.split, stem, suffix, entry.where)
        base, ending = bases[entry.split]
        path = base / (stem + ending)
        if not (path.is_file() if ending else path.is_dir()):
            missing.append(f"{entry.where}: {path} is missing")
        if (first := seen.setdefault(str(path), entry.where)) is not entry.where:
            raise SourceError(f"{entry.where}: {entry.path} stands at {first} too; keep it in one place")
        clip = Clip(stem, str(path), entry.label, 0 if ending else entry.frames)
        if (other := clips.setdefault(entry.split, {}).setdefault(stem, clip)) is not clip:
            raise SourceError(f"{entry.where}: would be clip {stem}, as {other.path} is; rename one of them")
    if missing:
        more = f", as are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SourceError(f"{missing[0]}{more}; fetch it or take it off the list")
    if listing.in_folders:
        _check_classes(root, listing.classes)
        homes = {clip.path.rsplit("/", 2)[0] for mine in clips.values() for clip in mine.values()}
        _check_folders(listing, [Path(home) for home in sorted(homes)])
    return {split: [mine[name] for name in sorted(mine)] for split, mine in clips.items()}


def _check_folders(listing: Listing, homes: list[Path]) -> None:
    """Raises: SourceError for a class without a folder in any of `homes`, or a folder there without a class."""
    found = {
        name: home
        for home in homes
        for name in _folders(home)
        if any((home / name / file).is_dir() or is_video(file) for file in visible(home / name))
    }
    if extra := sorted(set(found) - set(listing.classes)):
        raise SourceError(f"{found[extra[0]] / extra[0]}: no class of the lists of {listing.name}; move it away")
    if lacking := sorted(set(listing.classes) - set(found)):
        raise SourceError(
            f"{homes[0] / lacking[0]}: no clips there, and {listing.name} has {len(listing.classes)} classes; fetch it"
        )


def _suffix(name: str) -> str:
    """The ending of a video's name, "" for that of a folder of frames."""
    return Path(name).suffix if is_video(name) else ""


def _base(root: Path, split: str, stem: str, suffix: str, where: str) -> tuple[Path, str]:
    """The folder that the paths of a list start from, and what they end in there ("": folders of frames)."""
    endings = (suffix, "") if suffix else ("", *VIDEO_SUFFIXES)
    for base in (root / split, root, *(root / name for name in _folders(root))):
        for ending in endings:
            path = base / (stem + ending)
            if path.is_file() if ending else path.is_dir():
                return base, ending
    raise SourceError(f"{where}: {root / (stem + suffix)} is missing; fetch it or take it off the list")


def _bytes_of(fps: float, short_side: int, clip: Clip) -> int:
    """About how many bytes a clip takes in a shard; opens a video, so that one that is broken is found at once."""
    if not os.path.isdir(clip.path):
        header = read_header(clip.path)
        if (frames := int(header.duration * fps)) > fmt.MOST_IMAGES:
            raise SourceError(
                f"{clip.path}: {frames} frames, a clip has at most {fmt.MOST_IMAGES}; cut it, or pack the folder of "
                "films that it lies in"
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
            frames = [f"{clip.path}/{name}" for name in _in_order(clip.path, visible(Path(clip.path)))]
            if clip.frames not in (0, len(frames)):
                raise SourceError(
                    f"{clip.path}: {len(frames)} frames, its list says {clip.frames}; extract its frames again"
                )
        lines += [clip.name, *map(facts, frames or [clip.path])]
        found.append((clip, frames))
    return Scan(digest(lines), lambda: (_clip(clip, frames, fps, short_side) for clip, frames in found))


def _clip(clip: Clip, frames: list[str] | None, fps: float, short_side: int) -> Sequence:
    if frames is None:
        images = (Keyframe(clip.path, lambda jpeg=jpeg: jpeg) for jpeg in clip_frames(clip.path, fps, short_side))
    else:
        images = (Keyframe(path, partial(read_file, path)) for path in frames)
    return Sequence(clip.name, _ONE, (images,))
