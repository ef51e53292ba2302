"""ShotCoL: a shot and the one most like it among its neighbours (Chen et al., arXiv:2104.13537).

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
    """The positive is found within the window. Negatives are the rest of the global batch, not a queue of a momentum
    encoder: the form in which BaSSL (arXiv:2201.05277) compares with it.

    Args:
        dim: size D of a shot feature.
        views: laws of the training views.
        radius: shots to either side of the centre.
        nce_hidden, nce_dim: of the NCE head.
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
        """The sparse view of the centre and the dense views `[B, 1 + T]`."""
        return Drawn(draw_window(centers, rng, self.views, self.radius, sparse=[self.radius]))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[B, 1 + T, D]`."""
        nce = self.head_nce(features)
        return {"shotcol": shotcol(nce[:, 0], nce[:, 1:], self.temperature)}
