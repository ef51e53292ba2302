"""A network over the test views of images or videos, and what both verbs of this room share."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bassl_fast.config.choices import Precision
from bassl_fast.encoders.apply import mean_over_views
from bassl_fast.runtime import hardware
from bassl_fast.runtime.run_folder import RunFolder
from pipelines.clip_sampling import Clips
from pipelines.shot_loader import ShotLoader
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError
from shard_tools.shards.format import npz_bytes
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically


def outputs_of(
    network: nn.Module,
    index: ShardIndex,
    samples: np.ndarray,
    views: TestViews,
    sampling: Clips | None,
    *,
    clips: int,
    precision: Precision,
    batch: int,
    threads: int,
) -> Tensor:
    """Outputs `[N, ...]` float32 of `network` for the images or videos `samples` `[N]`, on the CPU.

    Args:
        views: size and crops of a view.
        sampling: which frames make a clip; None for images.
        clips, precision, batch, threads: as of `classify`.

    Raises:
        CheckpointError: an output is not finite.
    """
    device = hardware.device()
    threads, sampled = hardware.threads(threads), sampling or Clips(1)
    loader = ShotLoader(index, samples, views, sampled, count=clips, batch=batch, device=device, threads=threads)
    network = network.eval().to(device)
    with (
        hardware.autocast(hardware.precision(precision)),
        tqdm(total=len(samples) * loader.views_a_shot, desc="views", unit="view", disable=None) as bar,
    ):
        outputs = mean_over_views(network, loader, sampling is not None, bar.update).cpu()
    if not torch.isfinite(outputs).all():
        raise CheckpointError("an output of the network is not finite; try --precision 32-true, or train it again")
    return outputs


def views_like(trained: TestViews, crops: int, size: int | None, short_side: int | None) -> TestViews:
    """`trained` with `crops` crops, and of another size where one is given."""
    size = trained.size if size is None else size
    short_side = max(size, round(size * 256 / 224)) if short_side is None else short_side
    return TestViews(short_side, size, crops, trained.mean, trained.std)


def write_arrays(folder: RunFolder, file: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an `.npz` file of a run."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.path / file, npz_bytes(**arrays))


def write_scores(folder: RunFolder, file: str, scores: dict[str, Any]) -> None:
    """Write scores as a JSON file of a run."""
    write_atomically(folder.path / file, (json.dumps(scores, indent=1) + "\n").encode())
