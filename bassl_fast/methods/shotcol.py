"""ShotCoL: a shot and the most similar one among its neighbours (Chen et al., arXiv:2104.13537).

sparse   centre             1 view                              V = 1 + 17
dense    shots 0 .. 16     17 views, one augmentation
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipelines.samples import Centers, Drawn

from .losses import shotcol
from .nearby import NearbyShot
from .window import draw_window


class ShotCoL(NearbyShot):
    """The positive of a shot is the most similar shot of the window around it (section 3).

    This is the form BaSSL (arXiv:2201.05277) compares with: no momentum encoder, no queue of negatives. Arguments are
    those of `NearbyShot`; the window has 2 * `radius` + 1 shots.
    """

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views `[B, 1 + T]`: the sparse view of the centre, then the dense views of the window."""
        return Drawn(draw_window(centers, rng, self.views, self.radius, sparse=[self.radius]))

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """InfoNCE of features `[b, 1 + T, D]`, T shots of the window."""
        nce = self.head_nce(features)
        return {"shotcol": shotcol(nce[:, 0], nce[:, 1:], self.temperature)}
