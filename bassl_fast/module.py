"""The Lightning module of pretraining: encoder and method, one optimiser, and the state of the data."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from pipelines.loader import WindowLoader
from shard_tools.errors import TrainingError

from .encoders import Encoder
from .methods import Method
from .optim import Optimiser


class Pretraining(pl.LightningModule):
    """Pictures -> encoder -> method -> sum of losses.

    Args:
        encoder, method: what is trained.
        optimiser: recipe of the optimiser.
        loader: where batches come from; its position is kept in checkpoints.
        total_steps: length of the learning-rate schedule.
        seed: of the run; every step seeds torch from it, so that dropout does not depend on what ran before.
        recipe: resolved configuration, kept in checkpoints.
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        optimiser: Optimiser,
        loader: WindowLoader,
        total_steps: int,
        seed: int,
        recipe: dict[str, Any],
    ) -> None:
        super().__init__()
        self.encoder, self.method = encoder.to(memory_format=torch.channels_last), method
        self._optimiser, self._loader, self._total_steps = optimiser, loader, total_steps
        self._seed, self._recipe = seed, recipe
        self._step_ended = 0.0

    def configure_optimizers(self) -> dict:
        return self._optimiser.build(self, self._loader.plan.global_batch, self._total_steps)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        waited = time.perf_counter() - self._step_ended if self._step_ended else 0.0
        self.log("time/data", waited, prog_bar=True)
        # 2^40 steps of 2^20 processes before a seed comes twice.
        torch.manual_seed(self._seed * 2**60 + self.global_step * 2**20 + self.global_rank)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        pictures = batch["images"].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.encoder(pictures).unflatten(0, batch["images"].shape[:2])
        losses = self.method(features, batch)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            films = sorted(set(batch["film"].tolist()))
            names = ", ".join(self._loader.index.films[film] for film in films[:8])
            raise TrainingError(f"loss is {loss.item()} at step {self.global_step} (films {names}); lower optimiser.lr")
        self.log_dict({f"loss/{name}": value.detach() for name, value in losses.items()})
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.perf_counter()
        if self._step_ended:
            self.log("time/step", now - self._step_ended, prog_bar=True)
        self._step_ended = now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe"], checkpoint["data"] = self._recipe, self._loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._loader.load_state_dict(checkpoint["data"])
