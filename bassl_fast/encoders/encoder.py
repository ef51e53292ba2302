"""What an encoder is."""

from __future__ import annotations

import torch
from torch import nn


class Encoder(nn.Module):
    """Turns pictures `[N, 3, H, W]`, normalised by ImageNet's mean and deviation, into features `[N, dim]`.

    A new encoder is a file with a subclass that sets `dim`, and is named in a config by its class path.
    """

    dim: int
    memory_format = torch.channels_last  # of its weights while it trains; fast on GPUs
