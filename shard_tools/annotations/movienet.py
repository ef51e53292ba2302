"""The MovieNet folder layout: where key-frames, labels and shot times are, how they are read and written.

<root>/240P_frames/<film>/shot_%04d_img_%d.jpg     key-frames, 240 pixels high
<root>/anno/anno.{train,val,test,...}.ndjson       one line a shot: video_id, shot_id, num_shot, boundary_label
<root>/anno/vid2idx.json                           film -> integer
<root>/scene318/shot_movie318/<film>.txt           one line a shot: start end key key key   (frames at 24/s)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import one_line, parse_json, read_lines

from .labels import ShotLabels, scenes_from_boundaries

FRAMES_DIR = "240P_frames"
SPLITS = ("train", "val", "test")
_SIXTHS = (1, 3, 5)  # where in a shot its key-frames are
KEYFRAMES_PER_SHOT = len(_SIXTHS)


def keyframe_name(shot: int, image: int) -> str:
    return f"shot_{shot:04d}_img_{image}.jpg"


def keyframe_positions(first: int, last: int) -> list[int]:
    """Frame numbers of the key-frames of a shot of frames `first` to `last`: its 1/6, 3/6 and 5/6 points."""
    return [first + (last - first) * sixth // 6 for sixth in _SIXTHS]


def _int32(value: Any) -> int:
    number = int(value)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"{number} is out of range")
    return number


def read_labels(root: Path) -> dict[str, tuple[str, dict[int, tuple[int, int]]]]:
    """All annotations under `root/anno`: film -> (split, shot number -> (boundary, scene or -1)).

    Only the train, val and test files are read: the others (pretrain, trainvaltest) repeat them or hold no labels.

    Raises:
        SourceError: a line is not the expected JSON; the message names file and line.
    """
    films: dict[str, tuple[str, dict[int, tuple[int, int]]]] = {}
    for split in SPLITS:
        path = root / "anno" / f"anno.{split}.ndjson"
        if not path.is_file():
            continue
        for number, line in read_lines(path):
            try:
                row = parse_json(line)
                film, shot, boundary = str(row["video_id"]), _int32(row["shot_id"]), int(row["boundary_label"])
                scene = _int32(row.get("invideo_scene_id", -1))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise SourceError(
                    f"{path}:{number}: not an annotation line ({one_line(error)}); "
                    "expected video_id, shot_id, boundary_label"
                ) from None
            if boundary not in (-1, 0, 1):
                raise SourceError(f"{path}:{number}: boundary_label {boundary}; expected 1, 0 or -1")
            known_split, shots = films.setdefault(film, (split, {}))
            if known_split != split:
                raise SourceError(f"{path}:{number}: film {film} is also in {known_split}; keep it in one split")
            shots[shot] = (boundary, scene)
    return films


def read_shot_times(path: Path) -> np.ndarray:
    """`[S, 2]` int32 first and last frame of each shot, from a `shot_movie318` file.

    Raises:
        SourceError: a line does not start with two integers.
    """
    rows = []
    for number, line in read_lines(path):
        try:
            start, end = (_int32(word) for word in line.split()[:2])
        except ValueError:
            raise SourceError(f"{path}:{number}: not a shot line; expected 'start end key key key'") from None
        rows.append((start, end))
    return np.array(rows, np.int32).reshape(-1, 2)


def labels_of_film(root: Path, film: str, shots: np.ndarray, annotations: dict) -> ShotLabels:
    """Labels of `film` for the shots `[S]` that have key-frames; unknown values are -1.

    If the last shot of a scene has no key-frames, the scene ends with the last of its shots that has some.
    """
    split, rows = annotations.get(film, ("", {}))
    boundary = np.array([rows.get(int(s), (-1, -1))[0] for s in shots], np.int8)
    ends = np.array(sorted(s for s, (label, _) in rows.items() if label == 1 and s >= shots[0]), np.int64)
    before = np.searchsorted(shots, ends, side="right") - 1
    boundary[before[boundary[before] == 0]] = 1
    scene = np.array([rows.get(int(s), (-1, -1))[1] for s in shots], np.int32)
    if (scene < 0).any():
        scene = scenes_from_boundaries(boundary)
    times = np.full((len(shots), 2), -1, np.int32)
    times_file = root / "scene318" / "shot_movie318" / f"{film}.txt"
    if times_file.is_file():
        table = read_shot_times(times_file)
        known = shots < len(table)
        times[known] = table[shots[known]]
    return ShotLabels(shots, boundary, scene, times[:, 0], times[:, 1], split)


def write_annotations(root: Path, films: dict[str, ShotLabels]) -> None:
    """Write `anno/` and `scene318/shot_movie318/` for films whose key-frames are under `root/240P_frames`.

    Line n of a shot file is shot n, so a gap in the numbers is a line of -1. Key-frames are those of
    `keyframe_positions`.
    """
    anno, times = root / "anno", root / "scene318" / "shot_movie318"
    anno.mkdir(parents=True, exist_ok=True)
    times.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = {name: [] for name in ("pretrain", "trainvaltest", *SPLITS)}
    first_scene = 0
    for index, (film, labels) in enumerate(sorted(films.items())):
        for i, shot in enumerate(labels.shot):
            row = {
                "video_id": film,
                "shot_id": f"{shot:04d}",
                "num_shot": len(labels.shot),
                "boundary_label": int(labels.boundary[i]),
            }
            lines["pretrain"].append(json.dumps({**row, "boundary_label": -1}))
            if labels.split == "test":
                scene = int(labels.scene[i])
                row |= {
                    "global_video_id": index,
                    "invideo_scene_id": scene,
                    "global_scene_id": -1 if scene < 0 else first_scene + scene,
                }
            if labels.split:
                lines[labels.split].append(json.dumps(row))
                lines["trainvaltest"].append(json.dumps(row))
        first_scene += int(labels.scene.max(initial=-1)) + 1
        rows = ["-1 -1 -1 -1 -1\n"] * (int(labels.shot.max(initial=-1)) + 1)
        for shot, start, end in zip(labels.shot.tolist(), labels.start.tolist(), labels.end.tolist(), strict=True):
            rows[shot] = " ".join(map(str, (start, end, *keyframe_positions(start, end)))) + "\n"
        (times / f"{film}.txt").write_text("".join(rows), encoding="utf-8")
    for name, rows in lines.items():
        (anno / f"anno.{name}.ndjson").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    index_of = {film: i for i, film in enumerate(sorted(films))}
    (anno / "vid2idx.json").write_text(json.dumps(index_of, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
