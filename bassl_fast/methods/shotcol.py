"""ShotCoL: a shot and the most similar one among its neighbours (Chen et al., arXiv:2104.13537).

sparse   centre             1 view                              V = 1 + 17
dense    shots 0 .. 16     17 views, one augmentation
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError

from .losses import shotcol
from .method import Method, Projection
from .window import draw_window


class ShotCoL(Method):
    """The most similar shot of the window is the positive; all other shots of the global batch are negatives.

    This is the form BaSSL (arXiv:2201.05277) compares with: no momentum encoder, no queue of negatives.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        radius: shots on either side of the centre.
        nce_hidden, nce_dim: hidden and output size of the NCE head.
        temperature: of InfoNCE.

    Raises:
        ConfigError: a radius below 1.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        radius: int = 8,
        nce_hidden: int = 2048,
        nce_dim: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if radius < 1:
            raise ConfigError(f"method.radius {radius}: must be at least 1")
        self.views, self.radius, self.temperature = views, radius, temperature
        self.head_nce = Projection(dim, nce_hidden, nce_dim)

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views `[B, 1 + T]`: the sparse view of the centre, then the dense views of the window."""
        return Drawn(draw_window(centers, rng, self.views, self.radius, sparse=[self.radius]))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[B, 1 + T, D]`."""
        nce = self.head_nce(features)
        return {"shotcol": shotcol(nce[:, 0], nce[:, 1:], self.temperature)}
