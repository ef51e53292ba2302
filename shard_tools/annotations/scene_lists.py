"""Scenes of videos as BBC Planet Earth and OVSD publish them: a text file a video, in frames as decoded or in shots.

<root>/[annotations/]scenes/[annotator_0/]<video>.txt    "0,1,4,36": first shots of the scenes (BBC), or a line a scene,
                                                         its first and last frame (OVSD)
<root>/[annotations/]shots/<video>.txt                   a line a shot, its first and last frame; if missing, shots are
                                                         detected

BBC: Baraldi et al. 2015, "A Deep Siamese Network for Scene Detection in Broadcast Videos"; OVSD: Rotman et al. 2017,
"Optimal Sequential Grouping for Robust Video Scene Detection Using Multiple Modalities".

The name of a video may differ from that of its files in case, in punctuation and in an ending `_scenes`. Else the first
number in the names counts, if it is unique: `bbc_05.mp4` belongs to `05_Jungles.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shard_tools.errors import ConfigError, SourceError
from shard_tools.storage.untrusted import read_text, whole_number

from .label318 import read_shot_times


class SceneList(NamedTuple):
    """Scenes of one video.

    Attributes:
        path: of the list.
        starts: first frame of every scene, as decoded, from 0.
        shots: file of the first and last frames of its shots; None if there is none.
    """

    path: Path
    starts: list[int]
    shots: Path | None

    def boundaries(self, shots: np.ndarray) -> np.ndarray:
        """`[S]` int8, 1 for the last shot of a scene, of shots that start at the frames `[S]`.

        A scene that begins inside a shot begins at the nearest start of one.
        """
        labels = np.zeros(len(shots), np.int8)
        nearest = np.abs(np.asarray(self.starts)[:, None] - shots).argmin(1)
        labels[nearest[nearest > 0] - 1] = 1
        return labels


def find_scene_lists(root: Path, annotator: int = 0) -> list[Path]:
    """The lists of scenes under `root`; empty if there are none.

    Args:
        annotator: whose, where several people labelled the same videos.

    Raises:
        ConfigError: no such annotator.
    """
    for folder in (root / "annotations" / "scenes", root / "scenes"):
        several = sorted(path.name for path in folder.glob("annotator_*") if path.is_dir())
        if several and f"annotator_{annotator}" not in several:
            raise ConfigError(f"annotator {annotator}: {folder} has {', '.join(several)}")
        where = folder / f"annotator_{annotator}" if several else folder
        if found := sorted(path for path in where.glob("*.txt") if not path.name.startswith(".")):
            return found
    return []


def match_videos(lists: Iterable[Path], films: Iterable[str]) -> tuple[dict[str, Path], list[Path]]:
    """Film -> its list of scenes, and the lists that belong to no film."""
    left, lists = list(films), list(lists)
    found: dict[str, Path] = {}
    for key in (_letters, _number):
        keys, names = [key(path.stem) for path in lists], [key(film) for film in left]
        for path, name in zip(list(lists), keys, strict=True):
            if name and keys.count(name) == 1 and names.count(name) == 1:
                found[left[names.index(name)]] = path
                lists.remove(path)
        left = [film for film in left if film not in found]
    return found, lists


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", re.sub(r"_?scenes?$", "", name.lower()))


def _number(name: str) -> str:
    match = re.search(r"[0-9]+", name)
    return str(int(match[0])) if match else ""


def read_scene_list(path: Path) -> SceneList:
    """Read the scenes of one video and find its list of shots.

    Raises:
        SourceError: malformed, not ascending, or shots that are not in the list of shots.
    """
    folder = path.parent if path.parent.name == "scenes" else path.parent.parent
    shots = folder.parent / "shots" / path.name
    text = read_text(path)
    if len(re.findall(r"[^\s,]+", text)) == 1 or "," in text:
        starts = _starts_of_shots(path, text, shots)
    else:
        starts = read_shot_times(path)[:, 0].tolist()
    if not starts or any(after <= start for start, after in pairwise(starts)):
        raise SourceError(f"{path}: scenes that do not follow each other, or none; fix the list")
    return SceneList(path, starts, shots if shots.is_file() else None)


def _starts_of_shots(path: Path, text: str, shots: Path) -> list[int]:
    """First frames of the scenes in a list of their first shots; the number of all shots may end it."""
    if not shots.is_file():
        raise SourceError(f"{path}: names first shots of scenes, but there is no list of shots; put {shots} there")
    frames = read_shot_times(shots)[:, 0].tolist()
    try:
        numbers = [whole_number(word) for word in re.split(r"[\s,]+", text.strip().strip(","))]
    except ValueError as error:
        raise SourceError(f"{path}: not a list of first shots ({error}); expected '0,1,4,36'") from None
    if min(numbers) < 0 or max(numbers) > len(frames):
        raise SourceError(f"{path}: a scene begins with shot {max(numbers)}; {shots} has {len(frames)}, from 0")
    return [frames[number] for number in numbers if number < len(frames)]
