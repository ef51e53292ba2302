"""Temporal discrimination: a shot and one nearby (a baseline of BaSSL, arXiv:2201.05277).

centre, neighbour      1 view each, each with its own augmentation      V = 2
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipelines.samples import Centers, Drawn
from pipelines.views import draw_clips

from .losses import info_nce, near
from .nearby import NearbyShot


class Temporal(NearbyShot):
    """The positive of a shot is one that is drawn from those nearby. Arguments are those of `NearbyShot`."""

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views `[B, 2]` of the centre shot and of its neighbour."""
        shots = np.stack([centers.position, neighbour(centers.position, centers.shots, self.radius, rng)], 1)
        image = rng.integers(0, centers.frames_per_shot[:, None], shots.shape)
        frames = centers.frames(shots, image)
        pair = [
            draw_clips(rng, self.views, centers.height, centers.width, frame) for frame in np.split(frames, 2, axis=1)
        ]
        return Drawn(np.concatenate(pair, axis=1))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[b, 2, D]`."""
        nce = self.head_nce(features)
        left_out = near(batch, self.negatives_apart)
        return {"temporal": info_nce(nce[:, 0], nce[:, 1], self.temperature, left_out)}


def neighbour(position: np.ndarray, shots: np.ndarray, radius: int, rng: np.random.Generator) -> np.ndarray:
    """Positions `[B]` of other shots of the film, uniform within `radius`; the shot itself if the film has no other.

    Args:
        position: `[B]` of the centre shots in their films.
        shots: `[B]` shots per film.
    """
    first, last = np.maximum(position - radius, 0), np.minimum(position + radius, shots - 1)
    other = rng.integers(first, np.maximum(last, first + 1))  # one value fewer: the centre is left out
    return np.minimum(other + (other >= position), last)
