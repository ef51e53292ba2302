"""Scenes corrected by hand as labels: results folders of `bassl-fast scenes` -> labelled films.

A results folder has key-frames and `scenes.json`. Corrections are that file after the edits, or the one that the film's
page saves, put beside the key-frames. A film whose boundaries somebody edited, or that was written again with
`--corrections`, is labelled as a whole: its scenes are the truth, also where nothing was changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT, keyframe_name
from shard_tools.errors import PictureError, SourceError
from shard_tools.storage.untrusted import parse_json

from .colours import colour_kinds, colours_of_shot
from .films import LabelledFilm

KEYFRAMES = "keyframes"  # folder of a results folder
_FIX = "save corrections again from the film's page"


def corrected_films(root: str | Path) -> list[LabelledFilm]:
    """The corrected films in a folder of results folders, by name, with the kinds of `colour_kinds`.

    Results that nobody corrected are left out.

    Args:
        root: the folder of results folders, or a single results folder.

    Raises:
        SourceError: no corrected film, damaged corrections, or key-frames that are not those of the shots.
    """
    root = Path(root)
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder on this machine; give the one that `bassl-fast scenes --out` wrote")
    folders = sorted(path.parent for path in [root / KEYFRAMES, *root.glob(f"*/{KEYFRAMES}")] if path.is_dir())
    if not folders:
        raise SourceError(f"{root}: has no results of `bassl-fast scenes` (folders with keyframes/); give its --out")
    films = [(folder, corrections) for folder in folders if (corrections := _corrections(folder))]
    if not films:
        raise SourceError(
            f'{root}: none of {len(folders)} films is corrected (no scenes.json has "by_hand": true); edit '
            "boundaries in the page of a film and put what it saves beside its key-frames"
        )
    return [_labelled(folder, *corrections) for folder, corrections in films]


def _corrections(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """File and content of the corrections in a results folder; None if it has none.

    Raises:
        SourceError: two that differ, or one that is damaged.
    """
    found: dict[tuple[int, ...], tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            document = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read as JSON ({error}); {_FIX}") from None
        if not isinstance(document, dict) or not (document.get("by_hand") or document.get("corrected")):
            continue
        try:
            ends = tuple(int(row["last_shot"]) for row in document["scenes"])
            whole = [int(row["shot"]) for row in document["shots"]] == list(range(ends[-1] + 1))
            [float(row["end"]) - float(row["start"]) for row in document["shots"]]
        except (LookupError, TypeError, ValueError):
            raise SourceError(f"{path}: not the corrected scenes of a film; {_FIX}") from None
        if not whole or ends[0] < 0 or (np.diff(ends) <= 0).any():
            raise SourceError(f"{path}: its scenes are not those of its {len(document['shots'])} shots; {_FIX}")
        found[ends] = path, document
    if len(found) > 1:
        names = " and ".join(path.name for path, _ in found.values())
        raise SourceError(f"{folder}: {names} are different corrections of one film; keep one of them")
    return next(iter(found.values()), None)


def _labelled(folder: Path, path: Path, document: dict[str, Any]) -> LabelledFilm:
    shots = document["shots"]
    boundary = np.zeros(len(shots), np.int8)
    boundary[[row["last_shot"] for row in document["scenes"][:-1]]] = 1
    seconds = np.array([float(row["end"]) - float(row["start"]) for row in shots])
    features = np.stack([_features(folder, path, shot) for shot in range(len(shots))])
    if (extra := folder / KEYFRAMES / keyframe_name(len(shots), 0)).exists():
        raise SourceError(f"{path}: has {len(shots)} shots, but there is {extra}; use corrections of these results")
    return LabelledFilm(folder.name, colour_kinds(features), seconds, boundary)


def _features(folder: Path, corrections: Path, shot: int) -> np.ndarray:
    names = [folder / KEYFRAMES / keyframe_name(shot, i) for i in range(KEYFRAMES_PER_SHOT)]
    try:
        return colours_of_shot([name.read_bytes() for name in names])
    except OSError as error:
        raise SourceError(
            f"{error.filename}: {error.strerror}, but {corrections.name} has its shot; use corrections of these results"
        ) from None
    except PictureError as error:
        raise SourceError(f"{folder / KEYFRAMES}: a key-frame of shot {shot} {error}; find the scenes again") from None
