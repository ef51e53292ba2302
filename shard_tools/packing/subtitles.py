"""Times of speech of films, from a folder of subtitles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shard_tools.annotations.labels import FPS
from shard_tools.annotations.speech import inside, on_clock, speech_of_shots
from shard_tools.errors import SourceError
from shard_tools.shards import format as fmt
from shard_tools.video.subtitles import find_subtitles, read_subtitles

Lines = dict[str, tuple[str, np.ndarray]]  # film -> its file, and seconds `[L, 2]` of each line


def read_lines(folder: Path, films: Sequence[str]) -> Lines:
    """The subtitles of films; prints how many have none.

    Raises:
        SourceError: no such folder, subtitles of none of the films, or a file that cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give one with a file for each film")
    found = find_subtitles(folder, films)
    if not found:
        raise SourceError(f"{folder}: no subtitles of these films; name them like the films, such as {films[0]}.srt")
    if len(found) < len(films):
        print(f"note: {len(films) - len(found)} of {len(films)} films have no subtitles in {folder}", flush=True)
    return {film: (path, read_subtitles(path).times) for film, path in found.items()}


def speech_of_films(lines: Lines, films: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Film -> rows `[S]` of `fmt.SPEECH`, of the films with lines. Prints which have no times of shots.

    Args:
        films: film -> its rows `[S]` of `fmt.SHOT`.
    """
    found: dict[str, np.ndarray] = {}
    for film, (path, told) in lines.items():
        start, end = films[film]["start"].astype(np.int64), films[film]["end"].astype(np.int64)
        if min(start.min(), end.min()) < 0:
            print(f"note: {path}: left out, as the times of the shots of {film} are unknown", flush=True)
            continue
        end_seconds = (end + 1) / FPS
        spoken = inside(on_clock(told, end_seconds, path), end_seconds, path)
        columns = speech_of_shots(start / FPS, end_seconds, spoken).T
        found[film] = np.rec.fromarrays(columns, fmt.SPEECH)
    return found


def with_speech(films: Mapping[str, np.ndarray], speech: Mapping[str, np.ndarray]) -> np.ndarray:
    """All shots of films, film by film; with columns of `fmt.SPEECH` if any film has them.

    Args:
        films: film -> its rows `[S]`, of `fmt.SHOT` or `fmt.SHOT_WITH_SPEECH`.
        speech: film -> rows `[S]` with the columns of `fmt.SPEECH`, in place of those that it has.
    """
    if not speech:
        return np.concatenate(list(films.values()))
    parts = []
    for film, rows in films.items():
        part = np.empty(len(rows), fmt.SHOT_WITH_SPEECH)
        for column in fmt.SHOT.names or ():
            part[column] = rows[column]
        known = speech.get(film, rows)
        for column in fmt.SPEECH.names or ():
            part[column] = known[column] if column in (known.dtype.names or ()) else np.nan
        parts.append(part)
    return np.concatenate(parts)
