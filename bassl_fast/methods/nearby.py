"""The base class of methods whose positive is a nearby shot."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError

from .method import Method, Projection, check_apart


class NearbyShot(Method):
    """A shot and another one nearby are the positive pair; all other shots of the global batch are negatives.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        radius: largest distance of the other shot from the centre, in shots.
        nce_hidden: hidden size of the InfoNCE head.
        nce_dim: output size of the InfoNCE head.
        temperature: of InfoNCE.
        negatives_apart: pairs of one film less than this many shots apart are no negatives of each other; 0, as
            published: all are.

    Raises:
        ConfigError: a radius below 1, or a negative distance.
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        radius: int = 8,
        nce_hidden: int = 2048,
        nce_dim: int = 128,
        temperature: float = 0.1,
        negatives_apart: int = 0,
    ) -> None:
        super().__init__()
        if radius < 1:
            raise ConfigError(f"method.radius {radius}: must be at least 1")
        self.negatives_apart = check_apart(negatives_apart)
        self.views, self.radius, self.temperature = views, radius, temperature
        self.head_nce = Projection(dim, nce_hidden, nce_dim)

    @abstractmethod
    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Views of the centre shot, then of the shots that can be its positive."""
