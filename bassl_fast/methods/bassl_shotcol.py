"""BaSSL and ShotCoL together (Mun et al., arXiv:2201.05277): one more sparse view, one more loss.

sparse   first, last, centre      3 views, their own augmentation      V = 3 + 17
dense    shots 0 .. 16           17 views, one augmentation
"""

from __future__ import annotations

from torch import Tensor

from .bassl import BaSSL
from .losses import shotcol


class BaSSLShotCoL(BaSSL):
    """The losses of `BaSSL`, each with its switch, plus that of `ShotCoL`. For the latter alone, use `ShotCoL`."""

    @property
    def sparse(self) -> list[int]:
        """As in `BaSSL`, and the centre."""
        return [*super().sparse, self.radius]

    @property
    def trains_nce(self) -> bool:
        """Always: the loss of `ShotCoL` does."""
        return True

    def losses(  # type: ignore[override]  # its loss needs embeddings
        self, dense: Tensor, nce: tuple[Tensor, Tensor], drawn: dict[str, Tensor], left_out: Tensor | None
    ) -> dict[str, Tensor]:
        """As in `BaSSL`, and that of `ShotCoL`."""
        sparse, around = nce
        found = shotcol(sparse[:, -1], around, self.temperature, left_out)
        return super().losses(dense, nce, drawn, left_out) | {"shotcol": found}
