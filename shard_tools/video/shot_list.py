"""Your own shot list, instead of a detector."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import NamedTuple

from shard_tools.annotations.label318 import read_shot_times
from shard_tools.errors import SourceError
from shard_tools.storage.untrusted import read_lines

from .cutter import Begin
from .frames import EPSILON, Shown


class ListedShots:
    """A cutter that follows a list of where shots begin, in seconds or in frames as decoded."""

    lag = 0

    def __init__(self, starts: ShotList) -> None:
        self._list, self._due, self._seen = starts, 0, 0

    def push(self, shown: Shown) -> list[Begin]:
        number = self._seen
        now = number if self._list.unit == "frame" else shown.end - EPSILON  # all that begins before the next frame
        self._seen += 1
        begins = False
        while self._due < len(self._list.starts) and self._list.starts[self._due] <= now:
            begins, self._due = True, self._due + 1
        return [Begin(number, None)] if begins else []

    def finish(self) -> list[Begin]:
        if self._due < len(self._list.starts):
            raise SourceError(
                f"{self._list.source}: shot {self._due} begins at {self._list.unit} {self._list.starts[self._due]:g}, "
                "after the end of the film; give the list of this film"
            )
        return []


class ShotList(NamedTuple):
    """Where shots begin: ascending, `unit` "second" or "frame" (as decoded, from 0)."""

    source: str
    unit: str
    starts: list[float]


_COLUMNS = {"start": "second", "start time (seconds)": "second", "start_frame": "frame"}


_FRAMES = re.compile(r"\s*[+-]?\d+\s+[+-]?\d+(?!\S)")  # first and last, then anything
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)")


def read_shot_list(path: Path) -> ShotList:
    """Read a shot list. Shots are contiguous: only their starts are read, and the first starts at 0.

    Two formats: CSV with a column `start` (seconds, or hh:mm:ss.mmm) or `start_frame` (as decoded, from 0), which
    includes the lists that PySceneDetect's command writes; and MovieNet's text, one line per shot: first frame, last
    frame, anything.

    Raises:
        SourceError: no such file, another format, no shots, or starts that are not ascending.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such shot list; give a CSV file or MovieNet's text")
    found = _read_csv(path)
    if found is None:
        for number, line in read_lines(path):
            if not _FRAMES.match(line):
                raise SourceError(
                    f"{path}:{number}: expected CSV with a column start or start_frame, or lines 'first last ...'"
                )
        frames = read_shot_times(path)
        found = ShotList(str(path), "frame", frames[frames[:, 0] >= 0, 0].astype(float).tolist())
    if not found.starts:
        raise SourceError(f"{path}: no shots in it; give a CSV with a column start or start_frame, or MovieNet's text")
    for shot, (start, after) in enumerate(zip(found.starts, found.starts[1:], strict=False)):
        if after <= start:
            raise SourceError(
                f"{path}: shot {shot + 1} begins at {after:g}, not after shot {shot} ({start:g}); sort it"
            )
    return found


def _read_csv(path: Path) -> ShotList | None:
    """The first known column of a CSV file; None if it has none."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            rows = list(csv.reader(file))
        except csv.Error as error:
            raise SourceError(f"{path}: not a shot list ({error}); give a CSV file or MovieNet's text") from None
    for number, row in enumerate(rows):
        names = [cell.strip().lower() for cell in row]
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            continue
        starts = []
        for line, cells in enumerate(rows[number + 1 :], number + 2):
            if not any(cells):
                continue
            text = cells[names.index(column)].strip() if len(cells) > names.index(column) else ""
            match = _CLOCK.fullmatch(text)
            if not match:
                raise SourceError(f"{path}:{line}: {column} {text!r}; expected seconds, hh:mm:ss.mmm or a frame number")
            hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
            starts.append(3600 * hours + 60 * minutes + seconds)
        return ShotList(str(path), _COLUMNS[column], starts)
    return None
