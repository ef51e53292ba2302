"""Encoders of one layer."""

from __future__ import annotations

import os

from torch import Tensor, nn

from bassl_fast.encoders import ClipEncoder, Encoder
from bassl_fast.encoders.clip import conv


class Plain(Encoder):
    """One convolution, ReLU, and the mean over the picture.

    Without batch normalisation: its output for an image does not depend on the rest of the batch.
    """

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.conv = dim, nn.Conv2d(3, dim, 8, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.conv(pictures).relu().mean((2, 3))


class BreaksOnOneProcess(Plain):
    """NaN on the second process alone, from its second batch on."""

    batches = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.batches += 1
        broken = os.environ.get("LOCAL_RANK") == "1" and self.batches > 1
        return super().forward(pictures) * (float("nan") if broken else 1)


class PlainClip(ClipEncoder):
    """One convolution over space and time, batch normalisation and ReLU."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.dim, self.conv, self.bn = dim, conv(3, dim, (3, 33, 33), 32), nn.BatchNorm3d(dim)

    def maps(self, clips: Tensor) -> Tensor:
        return self.bn(self.conv(clips)).relu()
