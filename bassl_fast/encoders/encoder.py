"""What an encoder is."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Turns pictures `[N, 3, H, W]`, normalised by ImageNet's mean and deviation, into features `[N, dim]`.

    A new encoder is a file with a subclass that sets `dim`, and is named in a config by its class path.
    """

    dim: int
    memory_format = torch.channels_last  # of its weights while it trains; fast on GPUs

    def in_windows(self, images: Tensor, size: int) -> Tensor:
        """Features `[N, P, dim]` of larger images in P windows of `size` pixels; here of the whole, P = 1."""
        return self(images)[:, None]
