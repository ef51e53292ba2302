"""BYOL: bootstrap your own latent (Grill et al., arXiv:2006.07733).

The encoder predicts the momentum encoder's output for another view; there are no negatives.

centre, centre      2 views of one key-frame, each with its own augmentation      V = 2
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bassl_fast.encoders import Encoder
from bassl_fast.encoders.encoder import for_encoder
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews, draw_clips
from shard_tools.errors import ConfigError

from .momentum import MomentumMethod, mlp, view_pair


class BYOL(MomentumMethod):
    """The method of the paper, section 3.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        second: augmentation of the second view, if different.
        hidden: width of the hidden layers of projector and predictor.
        outputs: size of the projections that are compared.
        momentum: of the target network in the first step.
        classes: online evaluation: also train a linear classifier with this many classes, from which the
            encoder learns nothing.

    Raises:
        ConfigError: a momentum outside [0, 1]; a second view of another size or normalisation.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        second: TrainViews | None = None,
        hidden: int = 4096,
        outputs: int = 256,
        momentum: float = 0.97,
        classes: int | None = None,
    ) -> None:
        projector, predictor = (mlp(size, hidden, outputs, hidden_bias=True) for size in (dim, outputs))
        super().__init__(projector, predictor, momentum, classes)
        if not 0 <= momentum <= 1:
            raise ConfigError(f"method.momentum {momentum}: must be within [0, 1]")
        self.views, self.second = view_pair(views, second)

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Two views `[B, 2]` of one key-frame of the centre shot."""
        image = rng.integers(0, centers.frames_per_shot[:, None], (len(centers.position), 1))
        frame = centers.frames(centers.position[:, None], image)
        pair = [draw_clips(rng, views, centers.height, centers.width, frame) for views in (self.views, self.second)]
        return Drawn(np.concatenate(pair, axis=1))

    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features `[b, 2 + 2, D]`: of both views by the encoder, in one pass, then by the target encoder."""
        images = for_encoder(batch["images"].flatten(0, 1))
        with torch.no_grad():
            target = self.target_encoder(images)
        features = encoder(images).unflatten(0, (-1, 2))
        self.watch(features)
        return torch.cat([features, target.unflatten(0, (-1, 2))], 1)

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, from the features `[b, 4, D]` of `embed`."""
        return {"byol": self.distances(features).mean(), **self.online(batch)}

    def distances(self, features: Tensor) -> Tensor:
        """Distance `[R]` of prediction and target, summed over both directions (0 to 8), from features `[R, 4, D]`."""
        prediction = self.predictor(self.projector(features[:, :2].flatten(0, 1)))
        with torch.no_grad():
            target = self.target_projector(features[:, 2:].flatten(0, 1))
        return cosine_distance(prediction.unflatten(0, (-1, 2)), target.unflatten(0, (-1, 2)).flip(1)).sum(1)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared distance `[...]` float32 of L2-normalised `a` and `b` `[..., D]`: 2 - 2 cos (equation 2)."""
    return 2 - 2 * F.cosine_similarity(a.float(), b.float(), dim=-1)
