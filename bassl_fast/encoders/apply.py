"""Apply an encoder to all batches of a loader, outside training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pipelines.loader import FilmLoader
from pipelines.shot_loader import ShotLoader
from shard_tools.shards.index import ShardIndex

from .encoder import Encoder, for_encoder


def shot_features(encoder: Encoder, loader: FilmLoader, index: ShardIndex) -> Iterator[tuple[int, Tensor]]:
    """Yield the number and the features `[S, D]` float32 of every film of the loader."""
    parts: list[Tensor] = []
    for film, first, images in loader:
        parts.append(encoder.of_shots(images))
        if first + len(images) == index.sequences["shots"][film]:
            yield film, torch.cat(parts)
            parts = []


def mean_over_views(
    network: nn.Module, loader: ShotLoader, clips: bool, progress: Callable[[float], object] = lambda done: None
) -> Tensor:
    """Outputs `[N, ...]` float32 for the N images or videos of `loader`: the mean over the views of each.

    Args:
        network: an encoder, or a `Classifier`.
        clips: whether `network` takes clips `[n, 3, T, H, W]` or images.
        progress: called with the number of views done since the last call.
    """
    found: list[Tensor] = []
    part, each = torch.empty(0), loader.views_a_shot
    for _, images in loader:
        outputs = network(for_encoder(images if clips else images[:, 0])).float()
        # A batch may end between two views of the same video.
        part = torch.cat([part, outputs]) if len(part) else outputs
        whole = len(part) // each * each
        found.append(part[:whole].unflatten(0, (-1, each)).mean(1))
        part = part[whole:]
        progress(len(images))
    return torch.cat(found)
