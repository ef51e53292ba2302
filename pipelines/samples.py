"""Samples: every shot of the chosen films is the centre of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from shard_tools.format import ShardIndex


@dataclass(frozen=True)
class Centers:
    """The centre shots of a batch and what is known of their films; every array is `[B]`."""

    film: np.ndarray
    position: np.ndarray
    shots: np.ndarray
    first_frame: np.ndarray
    frames_per_shot: np.ndarray
    height: np.ndarray
    width: np.ndarray

    def frames(self, positions: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Key-frame rows `[B, V]` of key-frame number `image` `[B, V]` of the shots at `positions` `[B, V]`."""
        return self.first_frame[:, None] + positions * self.frames_per_shot[:, None] + image


@dataclass(frozen=True)
class Drawn:
    """What a sampler draws for a global batch.

    Attributes:
        views: `[B, V]` rows of `views.VIEW`, the pictures of each sample.
        extras: other drawn numbers the method needs, each `[B, ...]`; they travel with the batch.
    """

    views: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)


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
    """

    def __init__(self, index: ShardIndex, films: np.ndarray) -> None:
        self._rows, self._films = index.sequences[films], films
        self.shots = self._rows["shots"].astype(np.int64)
        self._ends = np.cumsum(self.shots)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, samples: np.ndarray) -> Centers:
        """Centres of the samples `[B]`."""
        at = np.searchsorted(self._ends, samples, side="right")
        rows = self._rows[at]
        position = samples - (self._ends[at] - rows["shots"])
        names = ("shots", "first_frame", "frames_per_shot", "height", "width")
        return Centers(self._films[at], position, *(rows[name].astype(np.int64) for name in names))
