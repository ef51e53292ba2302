"""Pictures in folders of classes: `<root>/[train|val|test/]<class>/*.jpg`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from shard_tools.annotations.movienet import SPLITS
from shard_tools.errors import SourceError
from shard_tools.shards import format as fmt

from .folders import ONE_SHOT, PICTURE_SUFFIXES, ShardCutter, classes_of, splits_of
from .names import is_litter
from .source import Keyframe, Scan, Sequence, Source, SourceShard, read_file


def open_pictures(root: Path) -> Source:
    """Pictures in folders of classes, with or without folders of splits around them.

    Raises:
        SourceError: no class, an empty class, a file that is not a picture, or splits with different classes.
    """
    splits = splits_of(root)
    for split in SPLITS if splits != [""] else ():
        if split not in splits and (root / split).is_dir():
            raise SourceError(f"{root / split}: no folders of classes in it; sort its pictures or move it away")
    classes = classes_of(root, splits)
    if not classes:
        raise SourceError(f"{root}: no folders of classes in it; expected train/<class>/*.jpg or <class>/*.jpg")
    labels = {name: label for label, name in enumerate(classes)}
    shards: list[SourceShard] = []
    for split in sorted(splits):
        cut = ShardCutter(split)
        for name in sorted(classes, key=lambda name: f"{name}/"):  # so that `<class>/<picture>` is in order
            _add_class(cut, root / split / name, name, labels[name])
        shards += cut.finish(partial(_scan_pictures, str(root / split)))
    return Source(fmt.PICTURES, shards, classes, 0.0, {})


def _add_class(cut: ShardCutter, folder: Path, name: str, label: int) -> None:
    where = str(folder)
    known: dict[str, tuple[str, int, int]] = {}  # stem -> file, bytes, time
    with os.scandir(folder) as entries:
        for entry in entries:
            file = entry.name
            if is_litter(file):
                continue
            stem = file.rpartition(".")[0]
            if not file.lower().endswith(PICTURE_SUFFIXES) or not stem:
                raise SourceError(
                    f"{where}/{file}: its name is not that of a picture ({' '.join(PICTURE_SUFFIXES)}); convert it or "
                    "move it away"
                )
            try:
                found = entry.stat()
            except OSError as error:
                raise SourceError(f"{where}/{file}: {error.strerror}; fetch this picture again or remove it") from None
            stem = stem.replace(".", "_")  # WebDataset takes what follows the first dot as the extension
            if stem in known:
                raise SourceError(
                    f"{where}/{file}: would be packed as {name}/{stem}, like {known[stem][0]}; rename one of them"
                )
            known[stem] = file, found.st_size, found.st_mtime_ns
    if not known:
        raise SourceError(f"{where}: a class without pictures; fill or remove its folder")
    for stem in sorted(known):
        file, size, time = known[stem]
        cut.add(f"{name}/{file}", label, 512 + size + len(fmt.padding(size)), f"{name}/{file} {size} {time}")


def _scan_pictures(root: str, files: list[str], fingerprint: str) -> Scan:
    return Scan(fingerprint, lambda: map(partial(_picture, root), files))


def _picture(root: str, file: str) -> Sequence:
    folder, _, name = file.rpartition("/")
    path = f"{root}/{file}"
    stem = name.rpartition(".")[0].replace(".", "_")
    return Sequence(f"{folder}/{stem}", ONE_SHOT, ((Keyframe(path, partial(read_file, path)),),))
