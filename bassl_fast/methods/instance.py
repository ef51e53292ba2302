"""Instance discrimination: two views of a shot (SimCLR; Chen et al., arXiv:2002.05709).

centre, centre      2 views of one key-frame, each with its own augmentation      V = 2
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews, draw_clips

from .losses import info_nce, near
from .method import Method, Projection, check_apart


class Instance(Method):
    """A shot is its own positive; all other shots of the global batch are negatives.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        nce_hidden: hidden size of the InfoNCE head.
        nce_dim: output size of the InfoNCE head.
        temperature: of InfoNCE.
        negatives_apart: pairs of one film less than this many shots apart are no negatives of each other; 0, as
            published: all are.

    Raises:
        ConfigError: a negative distance.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        nce_hidden: int = 2048,
        nce_dim: int = 128,
        temperature: float = 0.1,
        negatives_apart: int = 0,
    ) -> None:
        super().__init__()
        self.negatives_apart = check_apart(negatives_apart)
        self.views, self.temperature = views, temperature
        self.head_nce = Projection(dim, nce_hidden, nce_dim)

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Two views `[B, 2]` of one key-frame of the centre shot."""
        image = rng.integers(0, centers.frames_per_shot[:, None], (len(centers.position), 1))
        frame = centers.frames(centers.position[:, None], image)
        pair = [draw_clips(rng, self.views, centers.height, centers.width, frame) for _ in range(2)]
        return Drawn(np.concatenate(pair, axis=1))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[b, 2, D]`."""
        nce = self.head_nce(features)
        left_out = near(batch, self.negatives_apart)
        return {"instance": info_nce(nce[:, 0], nce[:, 1], self.temperature, left_out)}
