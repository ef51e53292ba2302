"""SCE: similarity contrastive estimation (Denize et al., arXiv:2111.14585; of videos arXiv:2212.11187).

The encoder learns to reproduce, from one view of a shot, how similar a momentum encoder finds another view of it to all
other shots. In that target distribution the positive has weight lambda; other shots share the rest by similarity.

centre, centre           2 views of a shot, each with its own key-frame and augmentation   V = 2
centre, ..., centre      plus small views, which are trained but are never targets         V = 2 + 4
clip, clip               or 2 clips of a video, each with its own augmentation             V = 2 of T frames
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast.encoders import Encoder
from bassl_fast.encoders.encoder import for_encoder
from bassl_fast.runtime.distributed import gather, world_size
from pipelines.clip_sampling import Clips, show_differences
from pipelines.samples import Centers, Drawn
from pipelines.views import TrainViews, draw_clips
from shard_tools.errors import ConfigError

from .momentum import MomentumMethod, cosine_momentum, mlp, view_pair

TARGETS = 2  # the first two views also go through the momentum encoder


class SCE(MomentumMethod):
    """The method of the papers, section 3.

    Args:
        dim: size D of a shot feature.
        views: augmentation of the training views.
        second: augmentation of the second view, if different.
        small: augmentation of each additional small view.
        clips: how clips of T frames are sampled; all frames of a clip share one augmentation. None takes images.
        difference: probability that a clip is replaced by the grey difference of consecutive frames.
        hidden: width of the projector's two hidden layers and of the predictor's; 4096, or 1024 for ResNet3D-18.
        outputs: size of the projections that are compared.
        temperature: of the predicted similarities.
        target_temperature: of the target similarities; lower is sharper.
        positive: weight lambda of the positive in the target.
        queue: keys of past batches to compare with; a multiple of twice the global batch.
        batch_keys: compare with the keys of this global batch too; no published recipe does.
        momentum: of the target network in the first step.
        classes: online evaluation: also train a linear classifier with this many classes on the first view, from
            which the encoder learns nothing.

    Raises:
        ConfigError: a value outside its range; views of different normalisation; clips for an image encoder; a queue
            that is no multiple of twice the global batch (in the first step).
    """

    def __init__(
        self,
        dim: int,
        views: TrainViews = TrainViews(),
        second: TrainViews | None = None,
        small: tuple[TrainViews, ...] = (),
        clips: Clips | None = None,
        difference: float = 0.0,
        hidden: int = 4096,
        outputs: int = 256,
        temperature: float = 0.1,
        target_temperature: float = 0.07,
        positive: float = 0.5,
        queue: int = 65536,
        batch_keys: bool = False,
        momentum: float = 0.99,
        classes: int | None = None,
    ) -> None:
        projector, predictor = mlp(dim, hidden, hidden, outputs, last_norm=True), mlp(outputs, hidden, outputs)
        super().__init__(projector, predictor, momentum, classes)
        for name, value in (("positive", positive), ("momentum", momentum), ("difference", difference)):
            if not 0 <= value <= 1:
                raise ConfigError(f"method.{name} {value}: must be within [0, 1]")
        for name, value in (("temperature", temperature), ("target_temperature", target_temperature)):
            if value <= 0:
                raise ConfigError(f"method.{name} {value}: must be positive")
        self.views, self.second = view_pair(views, second)
        for view in small:
            if view.size >= views.size or (view.mean, view.std) != (views.mean, views.std):
                raise ConfigError(
                    f"method.small of size {view.size}: must be smaller than method.views, {views.size}, "
                    "with the same mean and std"
                )
        if difference and clips is None:
            raise ConfigError(f"method.difference {difference}: needs clips; give method.clips, or leave it out")
        self.difference = difference
        self.resizable = not small
        self.small, self.clips, self.positive, self.batch_keys = small, clips, positive, batch_keys
        self.temperature, self.target_temperature = temperature, target_temperature
        self.queue = KeyQueue(outputs, queue)

    @property
    def small_sizes(self) -> list[int]:
        """Sizes of the small views, each once."""
        return list(dict.fromkeys(view.size for view in self.small))

    def sample(self, centers: Centers, rng: np.random.Generator) -> Drawn:
        """Two views `[B, 2]` of the centre shot, or two clips `[B, 2, T]`, and the small views by size."""
        recipes, many = (self.views, self.second, *self.small), len(centers.position)
        if self.clips is None:
            numbers = rng.integers(0, centers.frames_per_shot[:, None], (many, len(recipes)))[..., None]
        else:
            numbers = self.clips.draw(centers, rng, len(recipes))
        frames = [centers.frames(centers.position[:, None], part) for part in numbers.swapaxes(0, 1)]
        drawn = [
            draw_clips(rng, recipe, centers.height, centers.width, part)
            for recipe, part in zip(recipes, frames, strict=True)
        ]
        if self.difference:
            chosen = rng.random((len(recipes), many)) < self.difference
            drawn = [show_differences(rows, some, centers) for rows, some in zip(drawn, chosen, strict=True)]
        by_size = {
            size: np.stack([rows for recipe, rows in zip(recipes, drawn, strict=True) if recipe.size == size], 1)
            for size in (self.views.size, *self.small_sizes)
        }
        if self.clips is None:
            by_size = {size: rows[..., 0] for size, rows in by_size.items()}
        return Drawn(by_size.pop(self.views.size), small=by_size)

    def embed(self, encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
        """Features `[b, V + 2, D]`. Each view is a separate pass, with its own batch-normalisation statistics."""
        names = ["images", *(f"images_{size}" for size in self.small_sizes)]
        views = [for_encoder(view) for name in names for view in batch[name].unbind(1)]
        with torch.no_grad():
            targets = [self.target_encoder(view) for view in views[:TARGETS]]
        features = torch.stack([*map(encoder, views), *targets], 1)
        self.watch(features[:, :1])
        return features

    def forward(self, features: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss, from the features `[b, V + 2, D]` of `embed`."""
        with torch.no_grad():
            keys = [_unit(self.target_projector(x)) for x in features[:, -TARGETS:].unbind(1)]
        queries = [_unit(self.predictor(self.projector(x))) for x in features[:, :-TARGETS].unbind(1)]
        everyone = [gather(key) for key in keys]
        queue = self.queue.keys.clone()  # the backward pass needs it after the push
        rank = dist.get_rank() if world_size() > 1 else 0
        losses = []
        for i, key in enumerate(keys):
            others, own = queue, None
            if self.batch_keys:
                others = torch.cat([everyone[i].T, queue], 1)
                own = rank * len(key) + torch.arange(len(key), device=key.device)
            for j, query in enumerate(queries):
                if i != j:
                    compared = similarities(query, key, others, own)
                    losses.append(soft_contrastive(*compared, self.temperature, self.target_temperature, self.positive))
        if self.training:
            self.queue.push(torch.cat(everyone))
        return {"sce": torch.stack(losses).mean(), **self.online(batch)}

    def momentum_at(self, step: int, total: int) -> float:
        return cosine_momentum(step, max(1, total - 1), self.momentum)  # 1 in the last step


class KeyQueue(nn.Module):
    """The most recent keys in a ring buffer (He et al., arXiv:1911.05722): `keys` `[D, K]`, `at` is the next column.

    Every process holds the same queue, so push the rows of all processes (`distributed.gather`).

    Args:
        dim: size D of a key.
        size: number K of keys.
    """

    keys: Tensor
    at: Tensor

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"method.queue {size}: must be at least 1")
        self.register_buffer("keys", F.normalize(torch.randn(dim, size), dim=0))
        self.register_buffer("at", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest keys with `rows` `[N, D]`.

        Raises:
            ConfigError: N does not divide K.
        """
        size = self.keys.shape[1]
        if size % len(rows):
            raise ConfigError(
                f"method.queue {size}: must be a multiple of the {len(rows)} keys per step; "
                f"take {len(rows) * max(1, round(size / len(rows)))}"
            )
        self.keys.index_copy_(
            1, (self.at + torch.arange(len(rows), device=rows.device)) % size, rows.T.to(self.keys.dtype)
        )
        self.at.copy_((self.at + len(rows)) % size)


def similarities(
    query: Tensor, key: Tensor, others: Tensor, own: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines `[b, M]` of queries and of keys with the same M keys, and the column `[b]` of the positive.

    Args:
        query, key: `[b, D]` float32, L2-normalised; key i is the positive of query i.
        others: `[D, K]` L2-normalised columns to compare with. Without `own` the positive is put in front (M = K + 1),
            and the key's cosine with itself counts as 0 (docs/explanation/fidelity.md).
        own: `[b]` int64, column of `others` that holds the key itself; the key is not compared with it.
    """
    if own is not None:
        return query @ others, (key @ others).scatter(1, own[:, None], float("-inf")), own
    positive = (query * key).sum(1, keepdim=True)
    logits = torch.cat([positive, query @ others], 1), torch.cat([torch.zeros_like(positive), key @ others], 1)
    return *logits, torch.zeros(len(query), dtype=torch.long, device=query.device)


def soft_contrastive(
    query: Tensor, key: Tensor, own: Tensor, temperature: float, target_temperature: float, positive: float
) -> Tensor:
    """Cross-entropy of the queries' distribution with the keys' mixed with the positive (arXiv:2111.14585, equation 6).

    Args:
        query, key, own: see `similarities`.
        temperature, target_temperature: of the two distributions.
        positive: weight lambda of the positive.
    """
    target = (1 - positive) * torch.softmax(key / target_temperature, 1)
    target[torch.arange(len(own), device=own.device), own] += positive
    return -(target * torch.log_softmax(query / temperature, 1)).sum(1).mean()


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)
