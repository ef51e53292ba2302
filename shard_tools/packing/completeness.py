"""What annotations promise, held against what was packed: films and shots that are missing on either side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shard_tools.annotations.labels import SPLITS, Annotated

NO_SPLIT = "none"


@dataclass(frozen=True)
class Completeness:
    """What annotations and key-frames of a set of films have, and what only one of them has.

    Attributes:
        splits: split or "none" -> films annotated, those of them packed, shots labelled, those of them packed.
        films_without_keyframes: annotated films that were not packed.
        films_without_annotations: packed films that no annotation names.
        gaps: film -> ranges of shots without key-frames: gaps in the numbers, and annotated shots after the last.
        unannotated: film -> ranges of shots with key-frames that the film's annotations leave out.
        counts: film -> (shots annotated, shots that the annotations say it has), where they differ.
    """

    splits: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    films_without_keyframes: list[str] = field(default_factory=list)
    films_without_annotations: list[str] = field(default_factory=list)
    gaps: dict[str, list[range]] = field(default_factory=dict)
    unannotated: dict[str, list[range]] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def labelled(self) -> int:
        """Packed shots with a label."""
        return sum(shots for *_, shots in self.splits.values())

    def faults(self) -> list[str]:
        """One line for everything that annotations promise and that is not there."""
        lines = []
        if films := self.films_without_keyframes:
            lines.append(f"annotated films without key-frames: {len(films)} ({_few(films)})")
        short = [split for split, (*_, shots, packed) in self.splits.items() if packed < shots]
        lost = sum(self.splits[split][2] - self.splits[split][3] for split in short)
        if lost and not films:
            lines.append(f"annotated shots without key-frames: {lost}")
        if self.unannotated:
            shots = sum(len(part) for parts in self.unannotated.values() for part in parts)
            named = _few([f"{film}: {in_words(parts)}" for film, parts in self.unannotated.items()])
            lines.append(f"shots with key-frames that the annotations of their film leave out: {shots} ({named})")
        for film, (shots, count) in self.counts.items():
            lines.append(f"{film}: {shots} shots are annotated, and the annotations say that it has {count}")
        if NO_SPLIT in self.splits:
            lines.append(f"annotated films in no split, so their labels are not used: {self.splits[NO_SPLIT][0]}")
        return lines

    def lines(self, most: int = 10) -> list[str]:
        """The report in words."""
        lines = [f"{film}: no key-frames of shots {in_words(missing)}" for film, missing in self.gaps.items()][:most]
        if len(self.gaps) > most:
            lines.append(f"... and gaps in {len(self.gaps) - most} more films")
        if self.splits:
            counts = (
                f"{split} {there} of {films} films, {packed} of {shots} shots"
                for split, (films, there, shots, packed) in self.splits.items()
            )
            lines.append(f"annotated: {'; '.join(counts)}")
            if films := self.films_without_annotations:
                lines.append(f"films without annotations: {len(films)} ({_few(films)})")
        return lines + self.faults()

    def as_json(self) -> dict[str, Any]:
        """For the manifest and `info --json`; what is complete is left out."""
        names = ("annotated films", "annotated films packed", "annotated shots", "annotated shots packed")
        found = {
            "by split": {split: dict(zip(names, row, strict=True)) for split, row in self.splits.items()},
            "films without key-frames": self.films_without_keyframes,
            "films without annotations": self.films_without_annotations if self.splits else [],
            "shots without key-frames": {film: in_words(parts) for film, parts in self.gaps.items()},
            "key-frames without annotation": {film: in_words(parts) for film, parts in self.unannotated.items()},
            "other number of shots": {film: list(pair) for film, pair in self.counts.items()},
        }
        return {name: facts for name, facts in found.items() if facts}


def carried_over(earlier: dict[str, Any], now: dict[str, Any], films: Iterable[str]) -> dict[str, Any]:
    """Report `now` of all `films` of a set, as JSON, with what still holds of the one before films were added."""
    of_films = ("shots without key-frames", "key-frames without annotation", "other number of shots")
    found = now | {name: now.get(name, {}) | earlier.get(name, {}) for name in of_films}
    missing = "films without key-frames"
    found[missing] = sorted({*now.get(missing, ()), *earlier.get(missing, ())}.difference(films))
    return {name: facts for name, facts in found.items() if facts}


def compare(annotated: Mapping[str, Annotated], packed: Iterable[tuple[str, np.ndarray, Annotated]]) -> Completeness:
    """Hold annotations against packed films.

    Args:
        annotated: film -> annotations; a film without a label counts as one without annotations.
        packed: name, shot numbers `[S]` and annotations with times of every packed film.
    """
    annotated = {film: known for film, known in annotated.items() if any(b >= 0 for b, _ in known.labels.values())}
    report, rows = Completeness(), {split: [0, 0, 0, 0] for split in (*SPLITS, NO_SPLIT)}
    shots_of = {}
    for film, shots, known in packed:
        shots_of[film] = shots
        if missing := known.missing(shots):
            report.gaps[film] = missing
        if film not in annotated:
            report.films_without_annotations.append(film)
        elif extra := [int(shot) for shot in shots if int(shot) not in known.labels]:
            report.unannotated[film] = ranges(extra)
    for film, known in sorted(annotated.items()):
        row, labelled = rows[known.split or NO_SPLIT], {shot for shot, (label, _) in known.labels.items() if label >= 0}
        row[0] += 1
        row[2] += len(labelled)
        if film in shots_of:
            row[1] += 1
            row[3] += len(labelled.intersection(shots_of[film].tolist()))
        else:
            report.films_without_keyframes.append(film)
        if known.count and known.count != len(known.labels):
            report.counts[film] = (len(known.labels), known.count)
    report.splits.update({split: (row[0], row[1], row[2], row[3]) for split, row in rows.items() if row[0]})
    return report


def ranges(numbers: Iterable[int]) -> list[range]:
    """Ascending numbers as ranges."""
    found: list[range] = []
    for number in numbers:
        if found and number == found[-1].stop:
            found[-1] = range(found[-1].start, number + 1)
        else:
            found.append(range(number, number + 1))
    return found


def in_words(parts: Iterable[range]) -> str:
    return ", ".join(f"{part.start}" if len(part) == 1 else f"{part.start}-{part.stop - 1}" for part in parts)


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
