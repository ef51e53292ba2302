"""Test a network on the views of images or videos: what `classify` and `retrieve` share."""

from __future__ import annotations

import json
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Testing:
    """How a network is tested: the views of each image or video, and how they are computed.

    Attributes:
        views: size and crops of a view.
        sampling: which frames make a clip; None for images.
        clips: clips K of each video.
        precision, batch, threads: as of `classify`.
    """

    views: TestViews
    sampling: Clips | None
    clips: int
    precision: Precision
    batch: int
    threads: int

    def outputs(self, network: nn.Module, index: ShardIndex, samples: np.ndarray) -> Tensor:
        """Outputs `[N, ...]` float32 of `network` for the images or videos `samples` `[N]`, on the CPU.

        Raises:
            CheckpointError: an output is not finite.
        """
        device = hardware.device()
        loader = ShotLoader(
            *(index, samples, self.views, self.sampling or Clips(1)),
            count=self.clips,
            batch=self.batch,
            device=device,
            threads=hardware.threads(self.threads),
        )
        network = network.eval().to(device)
        with (
            hardware.autocast(hardware.precision(self.precision)),
            tqdm(total=len(samples) * loader.views_a_shot, desc="views", unit="view", disable=None) as bar,
        ):
            outputs = mean_over_views(network, loader, self.sampling is not None, bar.update).cpu()
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
