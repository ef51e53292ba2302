"""Validation during training: nearest neighbours of shots, accuracy of classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from bassl_fast.encoders.apply import mean_over_views, shot_features
from bassl_fast.methods import Classifier
from bassl_fast.metrics.accuracy import TOP, hits
from bassl_fast.metrics.neighbours import KS, knn_precision, neighbours_asked
from bassl_fast.runtime import hardware
from bassl_fast.runtime.distributed import total
from pipelines.clip_sampling import Clips
from pipelines.loader import FilmLoader
from pipelines.shot_loader import ShotLoader
from pipelines.views import TestViews
from shard_tools.shards.index import ShardIndex

from .labels import labels_of
from .module import Pretraining


class Measure(Callback, ABC):
    """Measures every so many steps, on all processes at once, without affecting the training."""

    steps: int

    def on_train_start(self, trainer: pl.Trainer, module: Pretraining) -> None:
        # Saving comes before validation, so a resumed run may have missed the validation of its checkpoint.
        if trainer.global_step and trainer.global_step % self.steps == 0:
            self.measure(trainer, module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = module.ends_step(batch_idx) and trainer.global_step % self.steps == 0
        if due and not trainer.should_stop:
            module.read_losses()
            self.measure(trainer, module)

    @abstractmethod
    def measure(self, trainer: pl.Trainer, module: Pretraining) -> None:
        """Measure and log now."""


class NearestNeighbours(Measure):
    """Logs `val/precision@k` in percent: do the shots nearest to a shot share its scene? (`metrics.knn_precision`).

    Films are divided among the processes. The encoder runs in eval mode on test views of all key-frames, as in
    `bassl-fast extract`.

    Args:
        index: of the shards.
        films: `[N]` labelled films.
        views: test views.
        steps: measure every so many steps.
        threads: CPU threads of the data pipeline; 0 uses this process's share of the cores.
    """

    def __init__(self, index: ShardIndex, films: np.ndarray, views: TestViews, steps: int, threads: int) -> None:
        self.index, self.films, self.views, self.steps, self.threads = index, films, views, steps, threads

    @torch.no_grad()
    def measure(self, trainer: pl.Trainer, module: Pretraining) -> None:
        mine = self.films[trainer.global_rank :: trainer.world_size]
        threads = hardware.threads(self.threads, trainer.num_devices)
        loader = FilmLoader(self.index, mine, self.views, device=module.device, threads=threads)
        hits, asked = torch.zeros(2, len(KS), dtype=torch.float64, device=module.device)
        module.encoder.eval()
        with trainer.precision_plugin.forward_context():
            for film, features in shot_features(module.encoder, loader, self.index):
                scenes = torch.from_numpy(self.index.shots_of(film)["scene"].astype(np.int64))
                counts = neighbours_asked(scenes)
                found = knn_precision({"film": features}, {"film": scenes}, KS)
                asked += asked.new_tensor(counts)
                hits += hits.new_tensor([found.get(k, 0.0) * n for k, n in zip(KS, counts, strict=True)])
        module.encoder.train()
        rates = (total(hits) / total(asked)).tolist()
        named = {f"val/precision@{k}": rate for k, rate in zip(KS, rates, strict=True) if rate == rate}  # NaN: no query
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step - 1)
        if trainer.is_global_zero:
            shown = "  ".join(f"@{name.partition('@')[2]} {rate:.1f}" for name, rate in named.items())
            tqdm.write(f"step {trainer.global_step}: nearest-neighbour precision in percent  {shown}")


class Accuracy(Measure):
    """Logs `val/top1` and `val/top5` in percent, on one test view of each of `films`.

    The samples are divided among the processes.

    Args:
        index, films: the shards, and the numbers `[N]` of the images or videos.
        steps: measure every so many steps.
        threads: CPU threads of the data pipeline; 0 uses this process's share of the cores.
    """

    def __init__(self, index: ShardIndex, films: np.ndarray, steps: int, threads: int) -> None:
        self.index, self.films, self.steps, self.threads = index, films, steps, threads

    @torch.no_grad()
    def measure(self, trainer: pl.Trainer, module: Pretraining) -> None:
        method, mine = module.method, self.films[trainer.global_rank :: trainer.world_size]
        counts = torch.zeros(len(TOP), device=module.device)
        if len(mine):
            loader = ShotLoader(
                self.index,
                mine,
                method.views.at_test(),
                method.clips or Clips(1),
                device=module.device,
                threads=hardware.threads(self.threads, trainer.num_devices),
            )
            labels = torch.from_numpy(labels_of(self.index, mine, method.classes)).to(module.device)
            module.eval()
            with trainer.precision_plugin.forward_context():
                outputs = mean_over_views(Classifier(module.encoder, method), loader, method.clips is not None)
            counts += hits(outputs, labels)
            module.train()
        rates = (100 * total(counts) / len(self.films)).tolist()
        found = {f"val/top{k}": rate for k, rate in zip(TOP, rates, strict=True)}
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step - 1)
        if trainer.is_global_zero:
            shown = "  ".join(f"top-{k} {rate:.1f}" for k, rate in zip(TOP, rates, strict=True))
            tqdm.write(f"step {trainer.global_step}: accuracy on {len(self.films)} samples in percent  {shown}")
