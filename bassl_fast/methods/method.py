"""The base class of training methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from bassl_fast.config.described import Described
from bassl_fast.encoders import ClipEncoder, Encoder
from bassl_fast.encoders.backbone import Backbone
from bassl_fast.encoders.encoder import for_encoder
from pipelines.clip_sampling import Clips
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError


class Method(Described, nn.Module, ABC):
    """A training task: the views it takes of each sample, its heads, and its losses.

    A new method is a file with a subclass; a config names it by its class path (see docs/tutorials/adding-a-method.md).
    `sample` draws all random numbers about the data, for the global batch; `forward` draws none. Every parameter that
    requires a gradient must get one in every step. A contextual relation network is kept as `crn`: fine-tuning starts
    from it.

    Shapes: B samples (or runs of W samples) in the global batch, b of them in this process, V views of a sample, T
    frames of a clip, D numbers in a feature. Features are in the precision of training, losses are float32.
    """

    views: TrainViews
    run_length: int = 1  # number W of consecutive centres that are one sample, see `pipelines.samples.ShotTable`
    resizable: bool = True  # whether `training.smaller_views` may change the size of its views
    classes: int | None = None  # of its `classifier`, if it has one
    clips: Clips | None = None  # how clips are sampled from a video, if it takes clips
    classifier: nn.Linear  # if it has classes

    def attach(self, encoder: Encoder) -> None:
        """Called once, before weights are loaded: create what depends on the encoder, such as a momentum copy of it.

        Raises:
            ConfigError: clips for an image encoder, or views of a size that the encoder cannot take.
        """
        self.fit_views(encoder)
        if self.clips is not None and not isinstance(encoder, ClipEncoder):
            raise ConfigError(
                f"method.clips: {type(encoder).__name__} takes images; use ResNet3D, X3D or VoV3D, or leave it out"
            )

    def fit_views(self, encoder: Encoder, smaller: Sequence[int] = ()) -> None:
        """Give views the normalisation of a network of another library.

        Args:
            smaller: other sides of its views in pixels.

        Raises:
            ConfigError: views of a size that the encoder cannot take.
        """
        if isinstance(encoder, Backbone):
            for side in (self.views.size, *getattr(self, "small_sizes", ()), *smaller):
                encoder.check_side(side)
            self.views = replace(self.views, mean=encoder.mean, std=encoder.std)

    @abstractmethod
    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Rows `[B, V]` of `VIEW` (clips: `[B, V, T]`) and other random numbers for the shots of a global batch."""

    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features for `forward` from `batch["images"]` `[b, V, 3, H, W]` (clips: `[b, V, T, 3, H, W]`).

        By default `[b, V, D]`, of all views in one pass.
        """
        images = batch["images"]
        return encoder(for_encoder(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def after_step(self, encoder: Encoder, step: int, total: int) -> None:
        """Called after optimiser step number `step` (from 0) of `total`."""

    @abstractmethod
    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name, scalars, from the features of `embed` and their batch; training minimises the sum."""


def check_apart(shots: int) -> int:
    """The number of shots, see `losses.near`.

    Raises:
        ConfigError: it is negative.
    """
    if shots < 0:
        raise ConfigError(f"method.negatives_apart {shots}: must be 0 or more shots")
    return shots


class Projection(nn.Sequential):
    """NCE head: Linear, ReLU, Linear (Chen et al., arXiv:2002.05709, section 3)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """`[..., inputs]` -> L2-normalised `[..., outputs]` float32."""
        return nn.functional.normalize(super().forward(features).float(), dim=-1)
