"""Times of speech of the films of a set, from a folder of subtitles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from shard_tools.annotations.labels import FPS, ShotLabels
from shard_tools.annotations.speech import on_clock, speech_of_shots
from shard_tools.errors import SourceError
from shard_tools.shards import format as fmt
from shard_tools.sources.source import Source
from shard_tools.video.subtitles import find_subtitles, read_subtitles

Lines = dict[str, tuple[str, np.ndarray]]  # film -> its file, and seconds `[L, 2]` of each line


def read_lines(folder: Path, source: Source) -> Lines:
    """The subtitles of the films of a source.

    Raises:
        SourceError: no such folder, subtitles of none of the films, or a file that cannot be read.
    """
    if source.kind != fmt.FILMS:
        raise SourceError(f"{folder}: subtitles are of films, and the source has {source.kind}; leave them out")
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder; give one with a file for each film")
    films = [shard.name for shard in source.shards]
    found = find_subtitles(folder, films)
    if not found:
        raise SourceError(f"{folder}: no subtitles of these films; name them like the films, such as {films[0]}.srt")
    if len(found) < len(films):
        print(f"note: {len(films) - len(found)} of {len(films)} films have no subtitles in {folder}", flush=True)
    return {film: (path, read_subtitles(path)) for film, path in found.items()}


def speech_of_films(lines: Lines, labels: Mapping[str, ShotLabels]) -> dict[str, np.ndarray]:
    """Film -> rows `[S]` of `fmt.SPEECH`, of the films with lines. Prints which have no times of shots."""
    found: dict[str, np.ndarray] = {}
    for film, (path, spoken) in lines.items():
        shots = labels[film]
        if min(shots.start.min(), shots.end.min()) < 0:
            print(f"note: {path}: left out, as the times of the shots of {film} are unknown", flush=True)
            continue
        start, end = shots.start / FPS, (shots.end + 1) / FPS
        columns = speech_of_shots(start, end, on_clock(spoken, end, path)).T
        found[film] = np.rec.fromarrays(columns, fmt.SPEECH)
    return found
