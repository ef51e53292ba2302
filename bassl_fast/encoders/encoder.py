"""What an encoder is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bassl_fast.config.described import Described
from pipelines.views import IMAGENET_MEAN, IMAGENET_STD


class Encoder(Described, nn.Module):
    """Turns pictures `[N, 3, H, W]`, normalised, into features `[N, dim]`.

    A new encoder is a file with a subclass that sets `dim`, and is named in a config by its class path.
    """

    dim: int
    mean, std = IMAGENET_MEAN, IMAGENET_STD  # what published weights are normalised by
    memory_format = torch.channels_last  # of its weights while it trains; fast on GPUs

    def of_shots(self, images: Tensor) -> Tensor:
        """Features `[N, dim]` float32 of shots, from their key-frames `[N, K, 3, H, W]`: the mean over these.

        It calls `forward` itself: where an encoder was compiled, that was for batches of training.
        """
        return self.forward(images.flatten(0, 1)).float().unflatten(0, images.shape[:2]).mean(1)

    def in_windows(self, images: Tensor, size: int) -> Tensor:
        """Features `[N, P, dim]` of larger images in P windows of `size` pixels; here of the whole, P = 1."""
        return self(images)[:, None]


def for_encoder(views: Tensor) -> Tensor:
    """What an encoder takes: pictures `[N, 3, H, W]` as they are, clips `[N, T, 3, H, W]` as `[N, 3, T, H, W]`.

    Both lie channels last in memory, as the loader makes them, so nothing is moved.
    """
    return views.transpose(1, 2) if views.ndim == 5 else views
