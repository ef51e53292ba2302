"""Extract key-frames of video files into a folder in MovieNet's layout, so that any film can be packed.

    films/*.mp4  ->  shots  ->  240P_frames/<film>/shot_%04d_img_%d.jpg  +  anno/  +  scene318/

Several files joined in order are a film with known scenes: each join is a scene boundary, other cuts are not.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from shard_tools.annotations.labels import ShotLabels, scenes_from_boundaries
from shard_tools.annotations.movienet import FRAMES_DIR, SPLITS, keyframe_name, write_annotations
from shard_tools.annotations.scene_lists import SceneList
from shard_tools.errors import ConfigError, SourceError
from shard_tools.progress import Progress

from .detectors import Detector, make_cutter
from .frames import decode, read_header
from .listing import film_name, list_videos, name_films
from .shot_list import ListedShots, read_shot_list
from .shots import cut_shots, fit_width, picture_width, ticks

QUALITY = 90  # of a key-frame's JPEG


def duration(path: Path) -> float:
    """Seconds of film according to the header of the file, 0 unknown: for a progress bar.

    Raises:
        SourceError: not a readable file, or no video stream.
    """
    return read_header(path).duration


def extract_film(
    files: list[Path],
    root: Path,
    film: str,
    split: str = "test",
    detector: Detector = "transitions",
    progress: Progress | None = None,
    scenes: SceneList | None = None,
) -> ShotLabels:
    """Write the key-frames of `files`, joined in order as one film, to `root/240P_frames/<film>`.

    The folder appears only when it is complete. Shots are numbered across files. With several files, the last shot of
    each but the last is a scene boundary; with one, nothing is known, so boundary and scene are -1. First and last
    frames of shots are on one contiguous timeline of 24 a second; frame k of a file is the picture shown at k/24
    seconds. All key-frames of a film have one size: wider files lose their sides, as bars would give the joins away.

    Args:
        film: a plain folder name, see `film_name`.
        progress: counts seconds of film.
        scenes: of a single file, for labels; its shots, if listed there, are not detected.

    Raises:
        SourceError: no file, a file cannot be read to its end, or the film already exists.
    """
    target = root / FRAMES_DIR / film
    if not files:
        raise SourceError(f"{target}: a film without files; give at least one video")
    if target.exists():
        raise SourceError(f"{target}: already exists; remove it or choose another folder")
    # A file that cannot be opened is found before the long work.
    width = min(picture_width(next(decode(path))) for path in files)
    target.parent.mkdir(parents=True, exist_ok=True)
    shots: list[tuple[int, int]] = []
    boundary: list[int] = []
    starts: list[int] = []
    listed = read_shot_list(scenes.shots) if scenes and scenes.shots else None
    with tempfile.TemporaryDirectory(prefix=".video-", dir=root) as scratch:
        draft = Path(scratch) / film
        draft.mkdir()
        for path in files:
            offset = shots[-1][1] + 1 if shots else 0
            for shot in cut_shots(path, ListedShots(listed) if listed else make_cutter(detector), progress):
                first, last = ticks(shot.start, shot.end)
                if last < first:
                    continue
                for i, image in enumerate(shot.keyframes):
                    name = draft / keyframe_name(len(shots), i)
                    fit_width(image, width).save(name, "JPEG", quality=QUALITY)
                shots.append((offset + first, offset + last))
                boundary.append(0)
                starts.append(shot.first)
            boundary[-1] = 1
        draft.rename(target)
    boundary[-1] = 0
    labels = np.array(boundary, np.int8) if len(files) > 1 else np.full(len(shots), -1, np.int8)
    if scenes:
        labels = scenes.boundaries(np.array(starts))
    start, end = np.array(shots, np.int32).T
    return ShotLabels(np.arange(len(shots)), labels, scenes_from_boundaries(labels), start, end, split)


def extract_folder(
    folder: Path,
    root: Path,
    join: str | None = None,
    split: str = "test",
    detector: Detector = "transitions",
    progress: Progress | None = None,
    scenes: dict[str, SceneList] | None = None,
) -> tuple[dict[str, ShotLabels], list[SourceError]]:
    """Extract every video in `folder` as a film named after its file, or all as one film `join`; with annotations.

    `root` must be new or empty, and stays empty until all is done: key-frames are moved in last.

    Args:
        progress: counts seconds of film.
        scenes: of films, see `extract_film`.

    Returns:
        Labels by film, and the errors of videos that could not be read and are left out.

    Raises:
        SourceError: no video, none that can be read or, with `join`, one that cannot; or `root` is not empty.
        ConfigError: an unknown split or detector.
    """
    if split not in ("", *SPLITS):
        raise ConfigError(f"split {split!r}: unknown; use one of {', '.join(SPLITS)}")
    files = list_videos(folder)
    films = {film_name(join): files} if join else {name: [Path(path)] for name, path in name_films(files).items()}
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SourceError(f"{root}: not an empty folder; empty it or choose another")
    root.mkdir(parents=True, exist_ok=True)
    labels: dict[str, ShotLabels] = {}
    broken: list[SourceError] = []
    with tempfile.TemporaryDirectory(prefix=".video-", dir=root) as scratch:
        draft = Path(scratch)
        for film, parts in films.items():
            try:
                labels[film] = extract_film(parts, draft, film, split, detector, progress, (scenes or {}).get(film))
            except SourceError as error:
                if join or len(films) == 1:
                    raise
                broken.append(error)
        if not labels:
            raise broken[0]
        write_annotations(draft, labels)
        for child in sorted(draft.iterdir(), key=lambda path: path.name == FRAMES_DIR):
            child.rename(root / child.name)
    return labels, broken
