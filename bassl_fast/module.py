"""The Lightning module of pretraining: encoder and method, one optimiser, and the state of the data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from pipelines import rng
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
        make_loader: given rank, world size, processes on this machine and device, opens the data of this process.
        global_batch: scales the learning rate.
        seed: of the run; every step seeds torch from it, so that dropout does not depend on what ran before.
        facts: kept in checkpoints: `recipe` (resolved configuration), `total_steps` (length of the schedule),
            `manifest_sha256` (of the shards).
    """

    def __init__(
        self,
        encoder: Encoder,
        method: Method,
        optimiser: Optimiser,
        make_loader: Callable[[int, int, int, torch.device], WindowLoader],
        global_batch: int,
        seed: int,
        facts: dict[str, Any],
    ) -> None:
        super().__init__()
        self.encoder, self.method = encoder.to(memory_format=torch.channels_last), method
        self._optimiser, self._make_loader = optimiser, make_loader
        self._global_batch, self._seed, self._facts = global_batch, seed, facts
        self._data_state: dict[str, int] | None = None
        self._loader: WindowLoader | None = None
        self._step_ended: float | None = None

    def configure_optimizers(self) -> dict:
        return self._optimiser.build(self, self._global_batch, self._facts["total_steps"])

    def train_dataloader(self) -> WindowLoader:
        world_size, local = self.trainer.world_size, self.trainer.num_devices
        self._loader = self._make_loader(self.global_rank, world_size, local, self.device)
        if self._data_state is not None:
            self._loader.load_state_dict(self._data_state)
        return self._loader

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self._step_ended is not None:
            self.log("time/data", time.perf_counter() - self._step_ended, prog_bar=True)
        draw = rng.generator(self._seed, rng.MODEL, self.global_step, self.global_rank)
        torch.manual_seed(int(draw.integers(2**63)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        samples, views = batch["images"].shape[:2]
        pictures = batch["images"].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        losses = self.method(self.encoder(pictures).unflatten(0, (samples, views)), batch)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            films = [self._loader.index.films[film] for film in sorted(set(batch["film"].tolist()))]
            raise TrainingError(
                f"loss is {loss.item()} at step {self.global_step} (films {', '.join(films)}); lower optimiser.lr or "
                "train in training.precision 32-true"
            )
        self.log_dict({f"loss/{name}": value.detach() for name, value in losses.items()})
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        now = time.perf_counter()
        if self._step_ended is not None:
            whole = now - self._step_ended
            views = batch["images"].shape[0] * batch["images"].shape[1] * self.trainer.world_size
            self.log("time/step", whole, prog_bar=True)
            self.log("views_per_second", views / whole, prog_bar=True)
        self._step_ended = now

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= self._facts
        checkpoint["data"] = self._data_state if self._loader is None else self._loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._data_state = checkpoint.get("data")
