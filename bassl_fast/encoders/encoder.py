"""The base class of encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bassl_fast.config.described import Described
from pipelines.views import IMAGENET_MEAN, IMAGENET_STD, TestViews, TrainViews
from shard_tools.errors import ConfigError


class Encoder(Described, nn.Module, ABC):
    """Turns normalised images `[N, 3, H, W]` into features `[N, dim]`.

    A new encoder is a file with a subclass that sets `dim`; a config names it by its class path. Features are in the
    precision of the surrounding autocast.
    """

    dim: int
    mean, std = IMAGENET_MEAN, IMAGENET_STD  # the normalisation of published weights
    memory_format = torch.channels_last  # of the weights in training; fast on GPUs

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features `[N, dim]` of normalised images `[N, 3, H, W]`."""

    def of_shots(self, images: Tensor) -> Tensor:
        """Features `[N, dim]` float32 of shots: the mean over their key-frames `[N, K, 3, H, W]`.

        Calls `forward`, not the compiled encoder, which is compiled for training batches.
        """
        return self.forward(images.flatten(0, 1)).float().unflatten(0, images.shape[:2]).mean(1)

    def in_windows(self, images: Tensor, size: int) -> Tensor:
        """Features `[N, P, dim]` of larger images in P windows of `size` pixels; by default the whole image, P = 1."""
        return self(images)[:, None]

    def frozen(self, precision: str) -> Encoder:
        """This encoder, from now on for evaluation alone, in a precision by Lightning's name of it."""
        return self.eval()

    def test_views(self) -> TestViews:
        """The test views of the published weights."""
        return TrainViews(mean=self.mean, std=self.std).at_test()

    def layers_above(self) -> dict[nn.Parameter, int]:
        """How many layers, its own included, are between each parameter and the output; 0 behind the last layer.

        Raises:
            ConfigError: the encoder has no sequence of layers; only networks of other libraries have one so far.
        """
        raise ConfigError(
            f"optimiser.layer_decay: {type(self).__name__} has no list of layers; choose another encoder, such as "
            "HuggingFace, or leave it out"
        )

    def freeze(self, layers: int) -> None:
        """Train all but the first layers, as many as this.

        Raises:
            ConfigError: the encoder cannot; only networks of other libraries can so far.
        """
        raise ConfigError(
            f"optimiser.frozen_layers {layers}: {type(self).__name__} has none to freeze; choose another encoder, such "
            "as HuggingFace, or leave it out"
        )


def for_encoder(views: Tensor) -> Tensor:
    """Views as encoders take them: images `[N, 3, H, W]` unchanged, clips `[N, T, 3, H, W]` as `[N, 3, T, H, W]`.

    The loader returns both in channels-last memory, so nothing is copied.
    """
    return views.transpose(1, 2) if views.ndim == 5 else views
