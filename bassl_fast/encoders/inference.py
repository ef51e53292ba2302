"""Encoders at work, outside training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bassl_fast.encoders import Encoder
from pipelines.loader import FilmLoader
from pipelines.shot_loader import ShotLoader
from shard_tools.shards.index import ShardIndex

from .encoder import for_encoder


def shot_features(encoder: Encoder, loader: FilmLoader, index: ShardIndex) -> Iterator[tuple[int, Tensor]]:
    """(film, features `[S, D]` float32) of every film of the loader."""
    parts: list[Tensor] = []
    for film, first, images in loader:
        parts.append(encoder.of_shots(images))
        if first + len(images) == index.sequences["shots"][film]:
            yield film, torch.cat(parts)
            parts = []


def over_views(network: nn.Module, loader: ShotLoader, clips: bool, bar: tqdm | None = None) -> Tensor:
    """What `network` says `[N, ...]` of the N pictures or videos of `loader`: the mean over the views of each, float32.

    Args:
        network: an encoder, or a `Classifier`.
        clips: hand it clips `[n, 3, T, H, W]`, and not pictures.
    """
    found: list[Tensor] = []
    part, each = torch.empty(0), loader.views_a_shot
    for _, images in loader:
        said = network(for_encoder(images if clips else images[:, 0])).float()
        # A batch may end among the views of one video.
        part = torch.cat([part, said]) if len(part) else said
        whole = len(part) // each * each
        found.append(part[:whole].unflatten(0, (-1, each)).mean(1))
        part = part[whole:]
        if bar is not None:
            bar.update(len(images))
    return torch.cat(found)
