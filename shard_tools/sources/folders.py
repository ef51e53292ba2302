"""Folders of classes, with or without folders of splits around them, and how their contents are cut into shards.

    <root>/[train|val|test/]<class>/...                       pictures (see `pictures`) and clips (see `clips`)

A shard is cut when it reaches `SHARD` bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.annotations.movienet import SPLITS
from shard_tools.errors import SourceError
from shard_tools.video.listing import VIDEO_SUFFIXES

from .names import is_litter
from .source import Scan, SourceShard

PICTURE_SUFFIXES = (".jpg", ".jpeg")
SHARD = 1 << 30  # bytes at which a shard is cut
ONE_SHOT = np.zeros(1, np.int64)  # the shot numbers of a sequence of one shot
_FRAME = re.compile(r"(.*?)([0-9]+)\.jpe?g", re.IGNORECASE)


def visible(folder: Path) -> list[str]:
    """Names in a folder, in order, without what desktop systems leave there."""
    return sorted(name for name in os.listdir(folder) if not is_litter(name))


def is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)


def picture_names(folder: Path) -> list[str]:
    """Names of the pictures in a folder, in order; empty if it is not a folder."""
    return [name for name in visible(folder) if name.lower().endswith(PICTURE_SUFFIXES)] if folder.is_dir() else []


def subfolders(folder: Path) -> list[str]:
    return [name for name in visible(folder) if (folder / name).is_dir()]


def splits_of(root: Path) -> list[str]:
    """The folders train, val and test in `root` that hold folders; [""] if there are none.

    Raises:
        SourceError: something to pack is beside them.
    """
    splits = [split for split in SPLITS if (root / split).is_dir() and subfolders(root / split)]
    for name in subfolders(root) if splits else ():
        inside = visible(root / name)
        if name not in SPLITS and (picture_names(root / name) or any(map(is_video, inside)) or subfolders(root / name)):
            raise SourceError(
                f"{root / name}: is beside the split {splits[0]!r}; name it train, val or test, with folders of "
                "classes in it, or move it away"
            )
    return splits or [""]


def class_folders(root: Path) -> Iterator[Path]:
    """The folders of classes, or of clips without classes, of all splits."""
    for split in splits_of(root):
        yield from (root / split / name for name in subfolders(root / split))


def are_frames(names: list[str]) -> bool:
    """Whether pictures are numbered consecutively, as the frames of a clip are."""
    try:
        return bool(frames_in_order("", names))
    except SourceError:
        return False


def frames_in_order(folder: str, names: Iterable[str]) -> list[str]:
    """File names of the frames of a clip, in order of their numbers, which start at 0 or 1.

    Raises:
        SourceError: no frame, a number is missing or duplicated, or a file is not a frame.
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


def check_classes(root: Path, classes: list[str]) -> None:
    """Raises: SourceError for two classes that differ only in case or Unicode form: on other disks they are one."""
    seen: dict[str, str] = {}
    for name in classes:
        if (other := seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)) is not name:
            raise SourceError(f"{root}: classes {other!r} and {name!r} differ only in case or Unicode form; merge them")


def classes_of(root: Path, splits: list[str]) -> list[str]:
    """Names of the class folders, which must be the same in all splits."""
    found = {split: subfolders(root / split) for split in splits}
    classes = sorted(set().union(*found.values()))
    for split in splits:
        for name in visible(root / split):
            if name.lower().endswith((*PICTURE_SUFFIXES, *VIDEO_SUFFIXES)) and name not in found[split]:
                raise SourceError(f"{root / split / name}: not in the folder of a class; move it into one or away")
    for split, mine in found.items():
        if missing := sorted(set(classes) - set(mine)):
            others = next(other for other in splits if missing[0] in found[other])
            raise SourceError(
                f"{root / split}: no class {missing[0]!r}, which {root / others} has; splits need the same classes, "
                "because labels are their numbers"
            )
    check_classes(root, classes)
    return classes


class ShardCutter:
    """Cuts a run of items into shards of about `SHARD` bytes."""

    def __init__(self, split: str) -> None:
        self._split, self._room = split, 0
        self._parts: list[tuple[list, list[int], Any]] = []  # items, labels, sha256 of what is known of them

    def add(self, item: object, label: int, size: int, known: str = "") -> None:
        """Append an item of `size` bytes; `known` goes into the fingerprint of its shard."""
        if self._room < size or not self._parts:
            self._parts.append(([], [], hashlib.sha256()))
            self._room = SHARD
        items, labels, facts_of_all = self._parts[-1]
        items.append(item)
        labels.append(label)
        facts_of_all.update(f"{known}\n".encode(errors="surrogateescape"))
        self._room -= size

    def finish(self, scan: Callable[[list, str], Scan]) -> list[SourceShard]:
        """The shards; `scan` reads the items of one, given their fingerprint."""
        shards = []
        for number, (items, labels, facts_of_all) in enumerate(self._parts):
            read = partial(scan, items, facts_of_all.hexdigest())
            name = f"{self._split or 'all'}-{number:05d}"
            shards.append(SourceShard(name, read, self._split, np.array(labels, np.int32)))
        return shards
