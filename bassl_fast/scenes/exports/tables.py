"""Scenes and shots as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from shard_tools.video.timing import Timing

from ..film import FilmScenes, Scene
from ..text import clock_ms, plain, single_line

COLUMNS = (
    *("scene", "start", "end", "start_timecode", "end_timecode"),
    *("first_frame", "last_frame", "first_shot", "last_shot", "probability", "name", "note"),
)
_SHOT_COLUMNS = (
    *("shot", "start", "end", "start_timecode", "end_timecode"),
    *("first_frame", "last_frame", "scene", "transition", "probability"),
)
_PYSCENEDETECT_COLUMNS = (
    *("Scene Number", "Start Frame", "Start Timecode", "Start Time (seconds)"),
    *("End Frame", "End Timecode", "End Time (seconds)"),
    *("Length (frames)", "Length (timecode)", "Length (seconds)"),
)


def scenes_csv(film: FilmScenes) -> str:
    """A row a scene; `probability` is that of the boundary at its end, empty for the last."""
    return _csv(COLUMNS, (scene_row(scene, film) for scene in film.scenes))


def shots_csv(film: FilmScenes) -> str:
    """A row a shot; `probability` is that of a scene boundary at its end, `transition` how it begins."""
    rows = (
        [
            *(shot.number, shot.start, shot.end, *_timecodes(film.timing, shot.start, shot.end)),
            *(shot.first, shot.last, scene.number, shot.transition, shot.probability),
        ]
        for scene in film.scenes
        for shot in scene.shots
    )
    return _csv(_SHOT_COLUMNS, rows)


def pyscenedetect_csv(film: FilmScenes) -> str:
    """The shots as PySceneDetect's `list-scenes` writes them: it says scene for shot, and counts frames from 1."""
    starts = [clock_ms(shot.start) for shot in film.shots[1:]]
    rows = (
        [
            *(shot.number + 1, shot.first + 1, clock_ms(shot.start), shot.start),
            *(shot.last + 1, clock_ms(shot.end), shot.end),
            *(shot.last + 1 - shot.first, clock_ms(shot.end - shot.start), shot.end - shot.start),
        ]
        for shot in film.shots
    )
    return _csv(("Timecode List:", *starts), [_PYSCENEDETECT_COLUMNS, *rows])


def scene_row(scene: Scene, film: FilmScenes) -> list[Any]:
    """What `COLUMNS` says of a scene."""
    first, last = scene.shots[0], scene.shots[-1]
    return [
        *(scene.number, scene.start, scene.end, *_timecodes(film.timing, scene.start, scene.end)),
        *(first.first, last.last, first.number, last.number),
        None if last is film.shots[-1] else last.probability,
        *(single_line(scene.name), plain(scene.note)),
    ]


def _timecodes(timing: Timing, start: float, end: float) -> tuple[str, str]:
    return timing.timecode(start), timing.timecode(end)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Fractions have three digits; what is unknown is empty."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        table.writerow(
            ["" if value is None else f"{value:.3f}" if isinstance(value, float) else value for value in row]
        )
    return out.getvalue()
