"""Samples: every shot of the chosen films is the centre of one, or of a run of consecutive ones.

film of 10 shots      0 1 2 3 4 5 6 7 8 9
runs of 4 centres     0 1 2 3
                            3 4 5 6
                                  6 7 8 9
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
        on_host: names of the extras that the host reads in a step: they stay numpy arrays in the batch, since reading
            them from a GPU would wait for it.
    """

    views: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    small: dict[int, np.ndarray] = field(default_factory=dict)
    on_host: tuple[str, ...] = ()

    def __getitem__(self, samples: slice | np.ndarray) -> Drawn:
        """What was drawn for some of the samples."""
        extras = {name: rows[samples] for name, rows in self.extras.items()}
        small = {size: rows[samples] for size, rows in self.small.items()}
        return replace(self, views=self.views[samples], extras=extras, small=small)


class Sampler(Protocol):
    """Turns centres into view rows; a pure function of centres and generator."""

    def __call__(self, centers: Centers, rng: np.random.Generator) -> Drawn: ...


class ShotTable:
    """Sample number -> centre shot, or first centre of a run, over the chosen films.

    Args:
        index: of the shards.
        films: `[F]` film numbers, see `ShardIndex.select`.
        run_length: number W of consecutive centres in a sample. Runs are spread evenly over a film, so every shot is a
            centre, and those where runs overlap are twice.

    Attributes:
        samples: `[F]` of every film; they are numbered film by film.
        together: `[R]` samples of all films that follow each other in one shard; equal to `samples` for a set of films.
        repeated: number of centres that are in two samples.
    """

    def __init__(self, index: ShardIndex, films: np.ndarray, run_length: int = 1) -> None:
        self._rows, self._films, self._run_length = index.sequences[films], films, run_length
        shots = self._rows["shots"].astype(np.int64)
        self.samples = -(-shots // run_length)
        self.repeated = int((self.samples * run_length - shots)[shots >= run_length].sum())
        self._ends = np.cumsum(self.samples)
        first = np.flatnonzero(np.diff(self._rows["shard"].astype(np.int64), prepend=-1))
        self.together = np.add.reduceat(self.samples, first) if len(first) else self.samples

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, samples: np.ndarray) -> Centers:
        """Centres of the samples `[B]`; of a run the first one."""
        at = np.searchsorted(self._ends, samples, side="right")
        rows = self._rows[at]
        position = samples - (self._ends[at] - self.samples[at])
        if self._run_length > 1:
            last = np.maximum(rows["shots"].astype(np.int64) - self._run_length, 0)
            position = position * last // np.maximum(self.samples[at] - 1, 1)
        names = ("shots", "first_frame", "frames_per_shot", "height", "width")
        fps = {"fps": rows["fps"].astype(float)} if "fps" in rows.dtype.names else {}
        return Centers(self._films[at], position, *(rows[name].astype(np.int64) for name in names), **fps)
