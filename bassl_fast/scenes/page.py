"""The page of a film: its scenes, editable, and all texts that the page saves files from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from bassl_fast.metrics.scenes import FilmScores
from bassl_fast.report.films import Editing, FilmPage
from shard_tools.storage.remote import is_remote

from .exports.edl import header, reel
from .exports.spans import file_name
from .exports.tables import COLUMNS
from .film import FilmScenes
from .text import clock, clock_ms


class _Keyframes(Sequence[bytes]):
    """Key-frames of all shots in order, read when asked for."""

    def __init__(self, film: FilmScenes) -> None:
        self._shots, self._per_shot = film.shots, len(film.shots[0].keyframes)

    def __len__(self) -> int:
        return len(self._shots) * self._per_shot

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._shots[index // self._per_shot].keyframes[index % self._per_shot]


def film_page(film: FilmScenes, document: str, folder: Path | None) -> FilmPage:
    """What the report shows of a film.

    Args:
        document: `exports.scenes_json` of it.
        folder: where the page will be, to find the film from there; None if that is not on this machine.
    """
    seconds = np.array([(shot.start, shot.end) for shot in film.shots])
    unknown = np.full(len(film.shots), -1)
    probability = np.array([shot.probability for shot in film.shots])
    scores = FilmScores(film.name, probability, unknown, unknown, unknown)
    return FilmPage(
        film.name,
        _Keyframes(film),
        scores,
        seconds=seconds,
        ends=film.ends,
        shortest=film.shortest,
        timing=film.timing,
        editing=Editing(_state(film, folder), _texts(film, document)),
    )


def _state(film: FilmScenes, folder: Path | None) -> dict[str, Any]:
    """What the editor begins with. A browser keeps edits by `key`, and drops them if `written` is not the same."""
    shots = [(shot.first, shot.last, shot.probability) for shot in film.shots]
    corrected = sorted(film.corrected)
    by_hand = [[(shot, shot in film.ends) for shot in corrected], dict(film.names), dict(film.notes)]
    return {
        "key": _digest([film.name, shots]),
        "written": _digest(by_hand),
        "corrected": corrected,
        "names": dict(film.names),
        "notes": dict(film.notes),
        "file": file_name(film),
        "video": _addresses(film.source, folder),
        "begin": film.timing.begin,
    }


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _addresses(source: str, folder: Path | None) -> list[str]:
    """Where a page in `folder` looks for the film: at its relative place, then at its absolute one."""
    if is_remote(source):
        return []
    path, found = Path(source).resolve(), []
    if folder is not None:
        with suppress(ValueError):  # another drive
            found.append(quote(os.fsencode(os.path.relpath(path, folder.resolve()).replace(os.sep, "/"))))
    return [*found, path.as_uri()]


def _texts(film: FilmScenes, document: str) -> dict[str, Any]:
    """What `saving.js` puts files together from: texts at the bounds of shots `[S + 1]`, and of shots `[S]`."""
    timing, shots = film.timing, film.shots
    bounds = [*(shot.start for shot in shots), film.duration]
    frames = list(map(timing.frame, bounds))
    of_file = [timing.begin + at for at in bounds]
    lines = document.split("\n")
    place = {key: lines.index(next(line for line in lines if line.startswith(f' "{key}": '))) for key in _CUT_AT}
    threshold, threshold_from = (
        lines[place[key]].partition(": ")[2].removesuffix(",") for key in ("threshold", "threshold_from")
    )
    parts = (
        lines[: place["threshold"]],
        [*lines[place["threshold_from"] + 1 : place["by_hand"]], ' "by_hand": true,'],  # as all that a page saves
        lines[place["shots"] :],
    )
    return {
        "threshold": [threshold, threshold_from],
        "json": list(map("\n".join, parts)),
        "seconds": list(map(json.dumps, bounds)),
        "csv_seconds": [f"{at:.3f}" for at in bounds],
        "timecode": list(map(timing.at, frames)),
        "timecode_after": [timing.at(frame + 1) for frame in frames],
        "frame": frames,
        "milliseconds": [round(1000 * at) for at in of_file],
        "clock": list(map(clock, of_file)),
        "long_clock": list(map(clock_ms, of_file)),
        "first_frame": [shot.first for shot in shots],
        "last_frame": [shot.last for shot in shots],
        "probability": [json.dumps(shot.probability) for shot in shots],
        "csv_probability": [f"{shot.probability:.3f}" for shot in shots],
        "csv_columns": COLUMNS,
        "edl_header": "\n".join(header(film)) + "\n",
        "reel": reel(film),
        "file": file_name(film),
    }


_CUT_AT = ("threshold", "threshold_from", "by_hand", "shots")  # keys of `scenes.json` that begin its parts
