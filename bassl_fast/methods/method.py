"""What a pretraining method is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn

from bassl_fast.config.described import Described
from bassl_fast.encoders import Encoder
from bassl_fast.encoders.encoder import for_encoder
from pipelines.clip_sampling import Clips
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews


class Method(Described, nn.Module, ABC):
    """A pretext task: which views of which shots it looks at, its heads, and its losses.

    A new method is a file with a subclass, named in a config by its class path (see
    docs/tutorials/adding-a-method.md). It draws all its random numbers about the data in `sample`, for the global
    batch; `forward` draws none. Every parameter that requires a gradient must get one in every step. A method with a
    contextual relation network calls it `crn`: fine-tuning starts from it.
    """

    views: TrainViews
    classes: int | None = None  # of its `classifier`, where it has one
    clips: Clips | None = None  # what it samples from a video, where it looks at clips

    def attach(self, encoder: Encoder) -> None:
        """Called once, before weights are loaded: make what goes with this encoder, such as one that follows it."""

    @abstractmethod
    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """View rows `[B, V]` and other draws for the centre shots of a global batch."""

    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features for `forward`, of `batch["images"]`, see `for_encoder`: here `[b, V, D]`, all views in one pass."""
        images = batch["images"]
        return encoder(for_encoder(images.flatten(0, 1))).unflatten(0, images.shape[:2])

    def after_step(self, encoder: Encoder, step: int, total: int) -> None:
        """Called after step number `step` (from 0) of `total` of the optimiser."""

    @abstractmethod
    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses by name from shot features `[b, V, D]` and the batch they came from; training minimises their sum."""


class Projection(nn.Sequential):
    """NCE head: Linear, ReLU, Linear (Chen et al., arXiv:2002.05709, section 3)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, features: Tensor) -> Tensor:
        """`[..., inputs]` -> L2-normalised `[..., outputs]`."""
        return nn.functional.normalize(super().forward(features).float(), dim=-1)
