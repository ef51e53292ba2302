"""Samples: every shot of the chosen films is the centre of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from shard_tools.shards.index import ShardIndex


@dataclass(frozen=True)
class Centers:
    """The centre shots of a batch and facts about their films; every array is `[B]`.

    `fps` is the frames/s of a video, 0 if unknown; key-frames of films have none.
    """

    film: np.ndarray
    position: np.ndarray
    shots: np.ndarray
    first_frame: np.ndarray
    frames_per_shot: np.ndarray
    height: np.ndarray
    width: np.ndarray
    fps: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def frames(self, positions: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Key-frame rows `[B, V]` of key-frame number `image` `[B, V]` of the shots at `positions` `[B, V]`."""
        return self.first_frame[:, None] + positions * self.frames_per_shot[:, None] + image


@dataclass(frozen=True)
class Drawn:
    """What a sampler draws for a global batch.

    Attributes:
        views: `[B, V]` rows of `views.VIEW`, the pictures of each sample; `[B, V, T]` for clips.
        extras: other drawn numbers that the method needs, `[B, ...]` each; they come with the batch.
        small: rows of views of other sizes, by side in pixels, shaped as `views`.
    """

    views: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    small: dict[int, np.ndarray] = field(default_factory=dict)

    def __getitem__(self, samples: slice | np.ndarray) -> Drawn:
        """What was drawn for some of the samples."""
        extras = {name: rows[samples] for name, rows in self.extras.items()}
        small = {size: rows[samples] for size, rows in self.small.items()}
        return Drawn(self.views[samples], extras, small)


class Sampler(Protocol):
    """Turns centres into view rows; a pure function of centres and generator."""

    def __call__(self, centers: Centers, rng: np.random.Generator) -> Drawn: ...


class ShotTable:
    """Sample number -> centre shot, over the chosen films.

    Args:
        index: of the shards.
        films: `[F]` film numbers, see `ShardIndex.select`.

    Attributes:
        shots: `[F]` samples of every film; they are numbered film by film.
        together: `[R]` samples of every run of films in one shard; equal to `shots` for a set of films.
    """

    def __init__(self, index: ShardIndex, films: np.ndarray) -> None:
        self._rows, self._films = index.sequences[films], films
        self.shots = self._rows["shots"].astype(np.int64)
        self._ends = np.cumsum(self.shots)
        runs = np.flatnonzero(np.diff(self._rows["shard"].astype(np.int64), prepend=-1))
        self.together = np.add.reduceat(self.shots, runs) if len(runs) else self.shots

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, samples: np.ndarray) -> Centers:
        """Centres of the samples `[B]`."""
        at = np.searchsorted(self._ends, samples, side="right")
        rows = self._rows[at]
        position = samples - (self._ends[at] - rows["shots"])
        names = ("shots", "first_frame", "frames_per_shot", "height", "width")
        fps = {"fps": rows["fps"].astype(float)} if "fps" in rows.dtype.names else {}
        return Centers(self._films[at], position, *(rows[name].astype(np.int64) for name in names), **fps)
