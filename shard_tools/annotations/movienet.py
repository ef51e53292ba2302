"""The MovieNet folder layout: where key-frames and BaSSL's labels are, how they are read and written.

<root>/240P_frames/<film>/shot_%04d_img_%d.jpg     key-frames, 240 pixels high
<root>/anno/anno.{train,val,test,...}.ndjson       one line per shot: video_id, shot_id, num_shot, boundary_label
<root>/anno/vid2idx.json                           film -> integer
<root>/scene318/                                   MovieNet's own labels and shot times, see `label318`
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import one_line, parse_json, read_lines, whole_number

from .label318 import read_label318, shot_times_of
from .labels import SPLITS, Annotated, ShotLabels

ANNO_FOLDERS = ("anno", "anno/anno", "")  # where BaSSL's files may be; its archive holds a folder of that name
FRAMES_DIR = "240P_frames"
_SIXTHS = (1, 3, 5)  # where in a shot its key-frames are
KEYFRAMES_PER_SHOT = len(_SIXTHS)


def keyframe_name(shot: int, image: int) -> str:
    return f"shot_{shot:04d}_img_{image}.jpg"


def keyframe_positions(first: int, last: int) -> list[int]:
    """Frame numbers of the key-frames of a shot of frames `first` to `last`: its 1/6, 3/6 and 5/6 points."""
    return [first + (last - first) * sixth // 6 for sixth in _SIXTHS]


def read_labels(root: Path, unsure: int = 1) -> dict[str, Annotated]:
    """All annotations under `root`, by film: BaSSL's in `anno/`, and of films not in those, MovieNet's in `scene318/`.

    Args:
        root: holds `anno/` or `scene318/`, or is one of them.
        unsure: what -1 in MovieNet's files counts as, see `label318.read_label318`.

    Raises:
        SourceError: a line is malformed or contradicts another; the message names file and line.
    """
    return read_label318(root, unsure) | _read_anno(root)


def find_anno(root: Path) -> list[Path]:
    """BaSSL's files of labels under `root`: of train, val and test; only if there are none, of trainvaltest."""
    for folder in (root / name for name in ANNO_FOLDERS):
        for names in (SPLITS, ("trainvaltest",)):
            if found := [path for name in names if (path := folder / f"anno.{name}.ndjson").is_file()]:
                return found
    return []


def _read_anno(root: Path) -> dict[str, Annotated]:
    films: dict[str, Annotated] = {}
    for path in find_anno(root):
        split = path.suffixes[-2][1:] if path.suffixes[-2][1:] in SPLITS else ""  # trainvaltest does not say which
        for number, line in read_lines(path):
            try:
                row = parse_json(line)
                film, shot, boundary = str(row["video_id"]), whole_number(row["shot_id"]), row["boundary_label"]
                boundary, count = whole_number(boundary), whole_number(row.get("num_shot", 0))
                scene = whole_number(row.get("invideo_scene_id", -1))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise SourceError(
                    f"{path}:{number}: not an annotation line ({one_line(error)}); "
                    "expected video_id, shot_id, boundary_label"
                ) from None
            if boundary not in (-1, 0, 1):
                raise SourceError(f"{path}:{number}: boundary_label {boundary}; expected 1, 0 or -1")
            known = films.setdefault(film, Annotated(split, count=count))
            if known.split != split:
                raise SourceError(f"{path}:{number}: film {film} is also in {known.split}; keep it in one split")
            if known.count != count:
                raise SourceError(
                    f"{path}:{number}: num_shot {count} of {film}, in an earlier line {known.count}; fix one of them"
                )
            if (before := known.labels.setdefault(shot, (boundary, scene))) != (boundary, scene):
                raise SourceError(
                    f"{path}:{number}: shot {shot} of {film} is labelled {boundary} (scene {scene}), in an earlier "
                    f"line {before[0]} (scene {before[1]}); remove one of them"
                )
    return films


def annotated_film(root: Path, film: str, annotations: dict[str, Annotated]) -> Annotated:
    """Annotations of one film with the times of its shots, if there are any."""
    known = annotations.get(film, Annotated())
    times = shot_times_of(root, film)
    return known if times is None else replace(known, times=times)


def labels_of_film(root: Path, film: str, shots: np.ndarray, annotations: dict[str, Annotated]) -> ShotLabels:
    """Labels and times of `film` for the shots `[S]` that have key-frames, see `Annotated.on`."""
    return annotated_film(root, film, annotations).on(shots)


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
