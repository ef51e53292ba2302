"""MovieNet's own labels of 318 films, and the times of their shots.

<root>/scene318/label318/<film>.txt         `0003 1`: a shot and its label; as a rule, the last shot has no line
<root>/scene318/meta/split318.json          {"train": [films], "val": [films], "test": [films], ...}
<root>/scene318/shot_movie318/<film>.txt    `start end key key key`: line n is shot n   (frames at 24/s)

Label 1: the next shot begins a scene. 0: it does not. -1: marked in another way; LGSS, the benchmark's reference,
counts it as 1 (Rao et al. 2020, "A Local-to-Global Approach to Multi-modal Movie Scene Segmentation").
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import parse_json, read_lines, read_text, whole_number

from .labels import SPLITS, Annotated

SCENE318 = ("label318", "meta", "shot_movie318")
_FOLDERS = ("scene318", "")
_LABEL = re.compile(r"([0-9]{1,9})\s+(-1|0|1)")


def find_in_scene318(root: Path, name: str) -> Path | None:
    """A file or folder of `scene318/` under `root`; None if it is not there."""
    return next((path for folder in _FOLDERS if (path := root / folder / name).exists()), None)


def read_label318(root: Path, unsure: int = 1) -> dict[str, Annotated]:
    """Labels of all films in `label318/`; the last shot of a film, which has none there, is labelled 0.

    Args:
        unsure: what -1 counts as: 1 as LGSS does, 0, or -1 for unlabelled.

    Raises:
        SourceError: a line is malformed or contradicts another, or a film is in two splits.
    """
    folder = find_in_scene318(root, "label318")
    if folder is None:
        return {}
    splits = _read_splits(root)
    films = {}
    for path in sorted(folder.glob("*.txt")):
        if path.name.startswith("."):
            continue
        labels = {shot: (unsure if label < 0 else label, -1) for shot, label in _read_film(path).items()}
        times = shot_times_of(root, path.stem)
        last = max(labels, default=-1) + 1
        if labels and (times is None or len(times) == last + 1):
            labels[last] = (0, -1)
        count = max(labels, default=-1) + 1 if times is None else len(times)
        films[path.stem] = Annotated(splits.get(path.stem, ""), labels, count)
    return films


def _read_film(path: Path) -> dict[int, int]:
    labels: dict[int, int] = {}
    for number, line in read_lines(path):
        match = _LABEL.fullmatch(line.strip())
        if match is None:
            raise SourceError(f"{path}:{number}: not a shot and its label; expected '0003 1', with label 1, 0 or -1")
        shot, label = int(match[1]), int(match[2])
        if labels.setdefault(shot, label) != label:
            raise SourceError(
                f"{path}:{number}: shot {shot} is labelled {label}, in an earlier line {labels[shot]}; remove one"
            )
    return labels


def _read_splits(root: Path) -> dict[str, str]:
    path = find_in_scene318(root, "meta/split318.json")
    if path is None:
        return {}
    splits: dict[str, str] = {}
    try:
        listed = parse_json(read_text(path))
        films = [(str(film), split) for split in SPLITS for film in listed.get(split, [])]
    except (ValueError, AttributeError, TypeError):
        raise SourceError(f'{path}: not the splits of films; expected {{"train": [...], "val": [...], ...}}') from None
    for film, split in films:
        if splits.setdefault(film, split) != split:
            raise SourceError(f"{path}: film {film} is in {splits[film]} and in {split}; keep it in one split")
    return splits


def shot_times_of(root: Path, film: str) -> np.ndarray | None:
    """See `read_shot_times`; None if there is no file for `film`."""
    path = find_in_scene318(root, f"shot_movie318/{film}.txt")
    return None if path is None else read_shot_times(path)


def read_shot_times(path: Path) -> np.ndarray:
    """`[S, 2]` int32 first and last frame of each shot, from a `shot_movie318` file; -1 for a shot that does not exist.

    Raises:
        SourceError: a line does not start with two integers, ends before it starts, or is blank.
    """
    rows: list[tuple[int, int]] = []
    for number, line in read_lines(path):
        if number > len(rows) + 1:
            raise SourceError(
                f"{path}:{len(rows) + 1}: blank, which would shift all later shots; remove the line, or write '-1 -1' "
                "for a shot that does not exist"
            )
        try:
            start, end = (whole_number(word) for word in line.split()[:2])
        except ValueError:
            raise SourceError(f"{path}:{number}: not a shot line; expected 'start end key key key'") from None
        if start > end or (start < 0) != (end < 0):
            raise SourceError(f"{path}:{number}: ends at frame {end}, before it starts at {start}; fix the line")
        rows.append((start, end))
    return np.array(rows, np.int32).reshape(-1, 2)
