"""Views of a window of shots, which BaSSL and ShotCoL share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.samples import Centers
from pipelines.views import TrainViews, draw_groups, spread
from pipelines.windows import dense_window


def draw_window(
    centers: Centers, rng: np.random.Generator, augmentation: TrainViews, radius: int, sparse: Sequence[int]
) -> np.ndarray:
    """Rows `[B, S + T]` of `VIEW`: S sparse shots, then the T = 2 * radius + 1 shots of the dense window.

    One key-frame is drawn per shot; the sparse and the dense view of a shot show the same one. Sparse views share one
    augmentation, dense views another (BaSSL, arXiv:2201.05277).

    Args:
        centers: the centre shots `[B]`.
        rng: draws the key-frames, then the augmentations of both groups, then their blurs.
        augmentation: of the views.
        radius: shots on either side of the centre.
        sparse: positions of the S shots in the window.
    """
    window = dense_window(centers.position, centers.shots, radius)
    image = rng.integers(0, centers.frames_per_shot[:, None], window.shape)
    dense = centers.frames(window, image)
    groups = draw_groups(rng, augmentation, *(np.stack([side] * 2, 1) for side in (centers.height, centers.width)))
    views = [spread(rng, augmentation, groups[:, 0], dense[:, sparse]), spread(rng, augmentation, groups[:, 1], dense)]
    return np.concatenate(views, axis=1)
