"""Labels of the shots of a film, whatever data set they come from.

A boundary label is 1 for the last shot of a scene, 0 for any other shot, -1 for an unlabelled shot. The last shot of a
film is labelled 0, as in MovieNet: the end of a film is not a boundary to find.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SPLITS = ("train", "val", "test")
FPS = 24.0  # frames a second in which the times of shots are counted


@dataclass(frozen=True)
class ShotLabels:
    """Annotations of the shots of one film. Arrays have one row per shot, in order.

    Attributes:
        shot: `[S]` int, shot numbers as in the file names.
        boundary: `[S]` int8, 1 = last shot of its scene, 0 = not, -1 = unlabelled.
        scene: `[S]` int32, index of the scene in its film, -1 = unlabelled.
        start, end: `[S]` int32, first and last frame of the shot at 24 frames a second, -1 = unknown.
        split: "train", "val", "test", or "" for none.
    """

    shot: np.ndarray
    boundary: np.ndarray
    scene: np.ndarray
    start: np.ndarray
    end: np.ndarray
    split: str = ""


def scenes_from_boundaries(boundary: np.ndarray) -> np.ndarray:
    """Scene index `[S]` of every shot from boundary labels `[S]`; all -1 if a label is missing."""
    if len(boundary) == 0 or (boundary < 0).any():
        return np.full(len(boundary), -1, np.int32)
    return np.concatenate([[0], np.cumsum(boundary[:-1])]).astype(np.int32)


@dataclass(frozen=True)
class Annotated:
    """What annotations say about a film, whatever key-frames it has.

    Attributes:
        split: see `ShotLabels`.
        labels: shot number -> (boundary, scene or -1).
        count: how many shots the film has, 0 = not stated.
        times: `[N, 2]` int32, first and last frame of shot n in row n; -1 = no such shot.
    """

    split: str = ""
    labels: dict[int, tuple[int, int]] = field(default_factory=dict)
    count: int = 0
    times: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int32))

    def on(self, shots: np.ndarray) -> ShotLabels:
        """Labels of the shots `[S]` that have key-frames, ascending; unknown values are -1.

        If the last shot of a scene has no key-frames, the scene ends with the last of its shots that has some; if all
        shots after that have none, it is the end of the film.
        """
        boundary = np.array([self.labels.get(int(s), (-1, -1))[0] for s in shots], np.int8)
        ends = np.array(sorted(s for s, (label, _) in self.labels.items() if label == 1 and s >= shots[0]), np.int64)
        before = np.searchsorted(shots, ends, side="right") - 1
        boundary[before[boundary[before] == 0]] = 1
        if boundary[-1] == 1 and self._after(int(shots[-1])):
            boundary[-1] = 0
        scene = np.array([self.labels.get(int(s), (-1, -1))[1] for s in shots], np.int32)
        if (scene < 0).any():
            scene = scenes_from_boundaries(boundary)
        times = np.full((len(shots), 2), -1, np.int32)
        known = shots < len(self.times)
        times[known] = self.times[shots[known]]
        return ShotLabels(shots, boundary, scene, times[:, 0], times[:, 1], self.split)

    def missing(self, shots: np.ndarray) -> list[range]:
        """Ranges of shot numbers without key-frames, of a film with key-frames of the shots `[S]`, ascending.

        These are the gaps in the numbers, and shots after the last that the annotations know.
        """
        before = np.concatenate([[-1], shots[:-1]])
        gaps = [range(int(b) + 1, int(s)) for b, s in zip(before, shots, strict=True) if s > b + 1]
        return gaps + self._after(int(shots[-1]))

    def _after(self, last: int) -> list[range]:
        """Ranges of the shots after shot `last` that the annotations know."""
        listed = np.flatnonzero(self.times[:, 0] >= 0)
        numbers = sorted({s for s in self.labels if s > last} | set(listed[listed > last].tolist()))
        ranges = [range(last + 1, self.count)] if self.count > last + 1 else []
        for number in numbers:
            if ranges and number <= ranges[-1].stop:
                ranges[-1] = range(ranges[-1].start, max(ranges[-1].stop, number + 1))
            else:
                ranges.append(range(number, number + 1))
        return ranges
