"""ShotCoL: a shot and the most similar one among its neighbours (Chen et al., arXiv:2104.13537).

sparse   centre             1 view                              V = 1 + 17
dense    shots 0 .. 16     17 views, one augmentation
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews

from .losses import near, shotcol
from .nearby import NearbyShot
from .window import Runs


class ShotCoL(NearbyShot):
    """The positive of a shot is the most similar shot of the window around it (section 3).

    This is the form BaSSL (arXiv:2201.05277) compares with: no momentum encoder, no queue of negatives. The window
    has 2 * `radius` + 1 shots.

    Args:
        dim, views, radius, nce_hidden, nce_dim, temperature, negatives_apart: as of `NearbyShot`.
        run_length: number W of consecutive windows that share the views of their shots; 1, as published: none do.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        radius: int = 8,
        nce_hidden: int = 2048,
        nce_dim: int = 128,
        temperature: float = 0.1,
        negatives_apart: int = 0,
        run_length: int = 1,
    ) -> None:
        super().__init__(dim, views, radius, nce_hidden, nce_dim, temperature, negatives_apart)
        self.runs, self.run_length = Runs(run_length, self.radius, [self.radius]), run_length

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views `[B, 1 + T]`: the sparse view of the centre, then the dense views of the window.

        Of runs, views `[B, V]`, see `Runs`.
        """
        return Drawn(*self.runs.draw(centers, rng, self.views))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[b, V, D]`."""
        sparse, dense = self.runs.gather(self.head_nce(features), batch)
        return {"shotcol": shotcol(sparse[:, 0], dense, self.temperature, near(batch, self.negatives_apart))}
