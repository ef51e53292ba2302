"""A network over the test views of pictures or videos."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bassl_fast.encoders.inference import over_views
from bassl_fast.runtime import hardware
from pipelines.clip_sampling import Clips
from pipelines.shot_loader import ShotLoader
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError
from shard_tools.shards.index import ShardIndex


def run(
    network: nn.Module,
    index: ShardIndex,
    films: np.ndarray,
    views: TestViews,
    clips: Clips | None,
    *,
    count: int,
    precision: hardware.Precision,
    batch: int,
    threads: int,
) -> Tensor:
    """What `network` says `[N, ...]` of the pictures or videos `films` `[N]`, on the CPU; see `over_views`.

    Args:
        views, clips, count: what is looked at, see `ShotLoader`; clips is None for pictures.
        precision, batch, threads: as of `classify`.
    """
    device = hardware.device()
    kwargs = {"count": count, "batch": batch, "device": device, "threads": hardware.threads(threads)}
    loader = ShotLoader(index, films, views, clips or Clips(1), **kwargs)
    network = network.eval().to(device)
    with (
        hardware.autocast(hardware.precision(precision)),
        tqdm(total=len(films) * loader.views_a_shot, desc="look", unit="view", disable=None) as bar,
    ):
        said = over_views(network, loader, clips is not None, bar).cpu()
    if not torch.isfinite(said).all():
        raise CheckpointError("the network says what is no number; try --precision 32-true, or train it again")
    return said


def views_like(trained: TestViews, crops: int, size: int | None, short_side: int | None) -> TestViews:
    """`trained` with so many crops, and of another size where one is given."""
    size = trained.size if size is None else size
    short_side = max(size, round(size * 256 / 224)) if short_side is None else short_side
    return TestViews(short_side, size, crops, trained.mean, trained.std)
