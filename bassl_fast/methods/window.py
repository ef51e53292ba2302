"""Views of windows of shots, which BaSSL and ShotCoL share.

    run of W = 4 centres, radius 2       c c c c
    its dense shots, W + 2 radius    d d d d d d d d     one view each
    window 0                         . . . . .
    window 3                               . . . . .
    its sparse shots, first and last s s s s s s s s     one view each

A window alone is a run of one. Neighbouring windows share all shots but one, so in a run each shot is encoded once, and
windows are gathered from its features: W + 2 radius dense views instead of W (2 radius + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.samples import Centers
from pipelines.views import TrainViews, draw_groups, spread
from shard_tools.errors import ConfigError


@dataclass(frozen=True)
class Runs:
    """Which shots of a run of windows are encoded, and where each window finds its own among them.

    Args:
        length: number W of windows in a run.
        radius: shots on either side of a centre; a window has T = 2 * radius + 1 shots.
        sparse: positions in the window of its S sparse shots.

    Raises:
        ConfigError: a length below 1.
    """

    length: int
    radius: int
    sparse: Sequence[int]

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"method.run_length {self.length}: must be at least 1")

    @property
    def shots(self) -> int:
        """Shots T of a window."""
        return 2 * self.radius + 1

    @property
    def dense_shots(self) -> int:
        """Dense views of a run, W + 2 * radius."""
        return self.length + 2 * self.radius

    @property
    def sparse_shots(self) -> list[int]:
        """Positions, among the dense shots, of those that have a sparse view too; for W = 1 they are `sparse`."""
        positions = (first + window for first in self.sparse for window in range(self.length))
        return list(dict.fromkeys(positions))

    def draw(
        self, centers: Centers, rng: np.random.Generator, augmentation: TrainViews
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Rows `[B, V]` of `VIEW`, the sparse shots of every run, then its dense shots; and where its windows begin.

        One key-frame is drawn per shot; the sparse and the dense view of a shot show the same one. Sparse views share
        one augmentation, dense views another (BaSSL, arXiv:2201.05277).

        Args:
            centers: the first centre of every run `[B]`.
            rng: draws the key-frames, then the augmentations of both groups, then their blurs.
            augmentation: of the views.

        Returns:
            the rows, and for W > 1 what `gather` needs: `sparse_at` `[B, W, S]` and `dense_at` `[B, W, T]`, the views
            of every window, and `window` `[B, W]`, the position in the film of its first shot.
        """
        first, window = self.places(centers.position, centers.shots)
        span = np.minimum(first[:, None] + np.arange(self.dense_shots), centers.shots[:, None] - 1)
        image = rng.integers(0, centers.frames_per_shot[:, None], span.shape)
        dense, sparse = centers.frames(span, image), np.array(self.sparse_shots)
        groups = draw_groups(rng, augmentation, *(np.stack([side] * 2, 1) for side in (centers.height, centers.width)))
        views = [
            spread(rng, augmentation, groups[:, 0], dense[:, sparse]),
            spread(rng, augmentation, groups[:, 1], dense),
        ]
        if self.length == 1:
            return np.concatenate(views, axis=1), {}
        start = (window - first[:, None])[..., None]
        view_of = np.full(self.dense_shots, -1)
        view_of[sparse] = np.arange(len(sparse))
        at = {"sparse_at": view_of[start + np.array(self.sparse)], "dense_at": start + np.arange(self.shots)}
        return np.concatenate(views, axis=1), {**at, "window": window}

    def places(self, center: np.ndarray, shots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the film of the first dense shot `[B]`, and of the first shot of every window `[B, W]`.

        Near an end of the film windows are shifted inside it, as in `pipelines.windows.dense_window`. In a film shorter
        than the run, windows beyond its end repeat the last one.

        Args:
            center: `[B]` positions of the first centres.
            shots: `[B]` shots of their films.
        """
        first = np.clip(center - self.radius, 0, np.maximum(shots - self.dense_shots, 0))
        centers = np.minimum(center[:, None] + np.arange(self.length), shots[:, None] - 1)
        last = np.maximum(shots - self.shots, 0)[:, None]
        return first, np.clip(centers - self.radius, 0, last)

    def gather(self, features: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sparse `[N, S, D]` and dense `[N, T, D]` features of every window, N = b * W.

        Args:
            features: `[b, V, D]` of the views of `draw`.
            batch: what `draw` returned beside them.
        """
        sparse, dense = features.tensor_split([len(self.sparse_shots)], 1)
        if self.length == 1:
            return sparse, dense
        run = torch.arange(len(features), device=features.device)[:, None, None]
        return sparse[run, batch["sparse_at"]].flatten(0, 1), dense[run, batch["dense_at"]].flatten(0, 1)
