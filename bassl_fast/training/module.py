"""The Lightning module of training: encoder, method, one optimiser, and the state of the data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from bassl_fast.encoders import Encoder
from bassl_fast.methods import Method
from bassl_fast.runtime.cores import bind_to_gpu
from bassl_fast.runtime.distributed import gather_objects, total
from pipelines import rng
from pipelines.loader import WindowLoader
from shard_tools.errors import TrainingError

from .accumulate import MicroBatches
from .optim import build_optimiser
from .options import Optimiser


class Pretraining(pl.LightningModule):
    """Images -> encoder -> method -> sum of losses.

    Args:
        encoder, method: the networks to train.
        optimiser: recipe of the optimiser.
        make_loader: (rank, world size, processes on this machine, device) -> the loader of this process.
        global_batch: scales the learning rate.
        seed: of the run; torch is seeded from it at every step, so that dropout does not depend on earlier steps.
        facts: kept in checkpoints: `model`, `resume`, `recipe` (resolved configuration), `total_steps` (length of
            the schedule), `manifest_sha256` (of the shards), `restarts` (so far).

    Attributes:
        waited, computed: seconds that the last step waited for data, and computed.
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
        self.encoder = encoder.to(memory_format=encoder.memory_format)  # type: ignore[call-overload]  # torch's stubs
        self.method = method
        method.attach(self.encoder)
        self._optimiser, self._make_loader = optimiser, make_loader
        self._global_batch, self._seed, self._facts = global_batch, seed, facts
        self._data_state: dict[str, int] | None = None
        self._batches: MicroBatches | None = None
        # Of the current step: losses of its micro-batches, and when it began.
        self._losses: list[dict[str, float]] = []
        self._began = self.waited = self.computed = 0.0
        self._idle_since: float | None = None
        self._warm = False

    def configure_optimizers(self) -> dict:
        return build_optimiser(self._optimiser, self, self._global_batch, self._facts["total_steps"])

    def open_loader(self) -> WindowLoader:
        """The data of this process, from the beginning."""
        return self._make_loader(self.global_rank, self.trainer.world_size, self.trainer.num_devices, self.device)

    def train_dataloader(self) -> MicroBatches:
        loader = self.open_loader()
        if self._data_state is not None:
            loader.load_state_dict(self._data_state)
        self._batches = MicroBatches(loader, self.trainer.accumulate_grad_batches)
        return self._batches

    def on_fit_start(self) -> None:
        # One process may use all cores; several have their GPUs on different nodes.
        if self.device.type == "cuda" and self.trainer.num_devices > 1:
            bind_to_gpu(self.device)

    def on_train_start(self) -> None:
        begun = gather_objects(self.global_step)
        if len(set(begun)) > 1:
            raise TrainingError(
                f"the processes begin at different steps ({', '.join(map(str, begun))}): they do not see the same "
                "checkpoint; choose an --out that all machines share"
            )

    def ends_step(self, batch_idx: int) -> bool:
        """Whether the micro-batch is the last of its step."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        micro_batch, now = batch_idx % self.trainer.accumulate_grad_batches, time.perf_counter()
        if micro_batch == 0:
            self._losses, self.waited, self._began = [], 0.0, now
        if self._idle_since is not None:
            self.waited += now - self._idle_since
        draw = rng.generator(self._seed, rng.MODEL, self.global_step, (micro_batch << 32) + self.global_rank)
        torch.manual_seed(int(draw.integers(2**63)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.method(self.method.embed(self.encoder, batch), batch)
        loss = sum(losses.values())
        means = total(torch.stack([value.double() for value in losses.values()])) / self.trainer.world_size
        self._losses.append(dict(zip(losses, means.tolist(), strict=True)))
        if not all(map(math.isfinite, self._losses[-1].values())):
            self._refuse(bool(torch.isfinite(loss)), batch["film"])
        if self.ends_step(batch_idx):
            step = {name: sum(part[name] for part in self._losses) / len(self._losses) for name in losses}
            self.log_dict({f"loss/{name}": value for name, value in step.items()})
            self.log("loss", sum(step.values()), prog_bar=True)
        return loss

    def _refuse(self, mine_is_finite: bool, films: Tensor) -> None:
        """Raise on every process, naming the films of those whose loss is not finite."""
        names = self._batches.index.films  # type: ignore[union-attr]
        mine = [] if mine_is_finite else [names[film] for film in films.tolist()]
        found = sorted(set(chain.from_iterable(gather_objects(mine))))
        raise TrainingError(
            f"loss is {sum(self._losses[-1].values())} at step {self.global_step} (films {', '.join(found)}); "
            "lower optimiser.lr or set training.precision 32-true"
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Not in `on_train_batch_end`: callbacks have saved the checkpoint by then.
        self.method.after_step(self.encoder, self.global_step, self._facts["total_steps"])
        self.computed = time.perf_counter() - self._began

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        if self.ends_step(batch_idx):
            if self._warm:  # the first step also opens the data
                whole = self.waited + self.computed
                self.log("time/data", self.waited, prog_bar=True)
                self.log("time/step", whole, prog_bar=True)
                self.log("views_per_second", self._global_batch * _images(batch) / whole, prog_bar=True)
            self._warm = True
        # Callbacks ran before this: their time (saving, validation) is not part of a step.
        self._idle_since = time.perf_counter()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= self._facts
        checkpoint["data"] = self._data_state if self._batches is None else self._batches.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._data_state = checkpoint.get("data")


def _images(batch: dict[str, Tensor]) -> int:
    """Images per sample: views, or frames of clips, of all sizes."""
    return sum(rows.shape[1:-3].numel() for name, rows in batch.items() if name.startswith("images"))
