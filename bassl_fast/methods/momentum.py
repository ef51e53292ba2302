"""Parts shared by methods whose targets come from a momentum encoder.

views -> encoder ----------------> projector -> predictor -> q
            |  moving average          |
views -> target encoder ---------> target projector ------> z, no gradient
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast.encoders import Encoder
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError

from .method import Method

Network = TypeVar("Network", bound=nn.Module)


class MomentumMethod(Method):
    """A method whose targets come from a momentum encoder (He et al., arXiv:1911.05722; Grill et al., 2006.07733).

    Args:
        projector: on the encoder's features; the target network has a copy.
        predictor: on the projector, of the trained encoder only.
        momentum: of the target network in the first step; rises to 1 along a cosine.
        classes: online evaluation: also train a linear classifier with this many classes, on detached features of
            labelled images or videos. None trains no classifier.
    """

    def __init__(self, projector: nn.Module, predictor: nn.Module, momentum: float, classes: int | None) -> None:
        super().__init__()
        self.projector, self.predictor, self.momentum, self.classes = projector, predictor, momentum, classes
        self._watched: Tensor | None = None

    def attach(self, encoder: Encoder) -> None:
        """Create the target network, a copy of the current encoder and projector, and the classifier."""
        super().attach(encoder)
        self.target_encoder, self.target_projector = follower(encoder), follower(self.projector)
        if self.classes is not None:
            self.classifier = nn.Linear(encoder.dim, self.classes)

    @abstractmethod
    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features `[b, V + G, ...]`: of all V views by `encoder`, then of the first G views by the target encoder."""

    def watch(self, features: Tensor) -> None:
        """Keep features `[b, V, D]` for `online`; called in `embed`."""
        self._watched = features.detach()

    def online(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of the classifier, if there is one, on the features kept by `watch`; called in `forward`."""
        if self.classes is None:
            return {}
        logits = self.classifier(self._watched)
        labels = batch["label"][:, None].expand(logits.shape[:2])
        return {"online": F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())}

    def after_step(self, encoder: Encoder, step: int, total: int) -> None:
        """Update the target network after step number `step` (from 0) of `total`."""
        momentum = self.momentum_at(step, total)
        follow(self.target_encoder, encoder, momentum)
        follow(self.target_projector, self.projector, momentum)

    def momentum_at(self, step: int, total: int) -> float:
        return cosine_momentum(step, total, self.momentum)


def view_pair(views: TrainViews, second: TrainViews | None) -> tuple[TrainViews, TrainViews]:
    """Augmentation of the first and of the second view; the same for both unless `second` is given.

    Raises:
        ConfigError: the second has another size or normalisation.
    """
    second = second or views
    for name in ("size", "mean", "std"):
        if getattr(second, name) != getattr(views, name):
            raise ConfigError(
                f"method.second.{name} {getattr(second, name)}: must equal that of method.views, {getattr(views, name)}"
            )
    return views, second


def mlp(*sizes: int, hidden_bias: bool = False, last_norm: bool = False) -> nn.Sequential:
    """Linear, batch normalisation, ReLU, ..., Linear, from `sizes[0]` to `sizes[-1]`.

    Args:
        hidden_bias: give linear layers a bias, except the last, which never has one.
        last_norm: end in batch normalisation without gain and bias.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs, bias=hidden_bias), nn.BatchNorm1d(outputs), nn.ReLU()]
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=False))
    if last_norm:
        layers.append(nn.BatchNorm1d(sizes[-1], affine=False))
    return nn.Sequential(*layers)


def follower(network: Network) -> Network:
    """A copy of `network` that takes no gradient."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, momentum: float) -> None:
    """Exponential moving average of parameters: target = momentum * target + (1 - momentum) * network, in place.

    Buffers are not averaged: the target's batch normalisation keeps its own statistics.
    """
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), 1 - momentum)


def cosine_momentum(step: int, total: int, start: float) -> float:
    """Momentum that rises from `start` at step 0 to 1 at step `total` (BYOL, arXiv:2006.07733, section 3.3)."""
    return 1 - (1 - start) * (math.cos(math.pi * step / total) + 1) / 2
