"""Classification of labelled images or clips: training from scratch, fine-tuning, linear evaluation.

centre      1 view of an image, or 1 clip of a video, with its label      V = 1
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast.encoders import Encoder
from bassl_fast.encoders.encoder import for_encoder
from pipelines.clip_sampling import Clips
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews, draw_clips
from shard_tools.errors import ConfigError

from .method import Method


class Supervised(Method):
    """Cross-entropy of a linear classifier on features.

    Args:
        dim: size D of a feature.
        classes: number of classes.
        views: augmentation of the training views.
        clips: how clips of T frames are sampled; None takes images.
        dropout: on the features, in training.
        frozen: linear evaluation: train only the classifier, with the encoder in evaluation mode.

    Raises:
        ConfigError: a value outside its range; clips for an image encoder.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        views: TrainViews = TrainViews(),
        clips: Clips | None = None,
        dropout: float = 0.0,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ConfigError(f"method.classes {classes}: must be at least 2")
        if not 0 <= dropout < 1:
            raise ConfigError(f"method.dropout {dropout}: must be within [0, 1)")
        self.classes, self.views, self.clips, self.frozen = classes, views, clips, frozen
        self.dropout, self.classifier = nn.Dropout(dropout), nn.Linear(dim, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def attach(self, encoder: Encoder) -> None:
        super().attach(encoder)
        encoder.requires_grad_(not self.frozen)

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """A view `[B, 1]` of each image, or a clip `[B, 1, T]` of each video."""
        clips = self.clips or Clips(1, segments=True)
        frames = centers.frames(centers.position[:, None], clips.draw(centers, rng, 1)[:, 0])
        rows = draw_clips(rng, self.views, centers.height, centers.width, frames)
        return Drawn(rows if self.clips is None else rows[:, None])

    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features `[b, D]`."""
        images = for_encoder(batch["images"][:, 0])
        if not self.frozen:
            return encoder(images)
        encoder.eval()  # Lightning puts every module in training mode
        with torch.no_grad():
            return encoder(images)

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, from features `[b, D]` and `label` `[b]` int64."""
        return {"cross_entropy": F.cross_entropy(self.classifier(self.dropout(features)).float(), batch["label"])}


class Classifier(nn.Module):
    """An encoder and a method's classifier, for inference: images -> probabilities `[N, classes]` float32.

    An image larger than the training size is classified in every window of that size (`Encoder.in_windows`): softmax in
    each, then the mean, as in SlowFast's recipes.
    """

    def __init__(self, encoder: Encoder, method: Method) -> None:
        super().__init__()
        self.encoder, self.method = encoder, method

    def logits(self, images: Tensor) -> Tensor:
        """Logits `[N, P, classes]` of P windows."""
        return self.method.classifier(self.encoder.in_windows(images, self.method.views.size))

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.logits(images).float(), -1).mean(1)
