"""The Lightning module of training: encoder, method, one optimiser, and the state of the data."""

from __future__ import annotations

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
from bassl_fast.runtime.distributed import gather_objects
from pipelines import rng
from pipelines.loader import WindowLoader
from shard_tools.errors import TrainingError

from .accumulate import MicroBatches
from .late import StepLosses
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
        shown: the last losses and times that were read.
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
        if optimiser.frozen_layers:
            encoder.freeze(optimiser.frozen_layers)
        self._optimiser, self._make_loader = optimiser, make_loader
        self._global_batch, self._seed, self._facts = global_batch, seed, facts
        self._data_state: dict[str, int] | None = None
        self._batches: MicroBatches | None = None
        self.shown: dict[str, float] = {}
        # Losses of the current step, and of the one before until they are read; when the current step began.
        self._losses: StepLosses | None = None
        self._unread: StepLosses | None = None
        self._began = self.waited = self.computed = 0.0
        self._idle_since: float | None = None
        self._warm, self._images = False, 0

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
            self._losses, self.waited, self._began = None, 0.0, now
            self._images = self._global_batch // self.method.run_length * _images(batch)
        if self._idle_since is not None:
            self.waited += now - self._idle_since
        draw = rng.generator(self._seed, rng.MODEL, self.global_step, (micro_batch << 32) + self.global_rank)
        torch.manual_seed(int(draw.integers(2**63)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        losses = self.method(self.method.embed(self.encoder, batch), batch)
        if self._losses is None:
            self._losses = StepLosses(self.global_step, tuple(losses))
        self._losses.add(losses, batch["film"])
        self.read_losses()  # of the step before: this one's forward pass is launched
        return sum(losses.values())

    def read_losses(self) -> None:
        """Read the losses of the last whole step, if they are not read yet; called by all processes at once.

        Raises:
            TrainingError: one is not finite, on whichever process.
        """
        step, self._unread = self._unread, None
        if step is None:
            return
        if (at := step.broken()) is not None:
            self._refuse(step, at)
        self.shown = step.means() | step.numbers
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # a connector of Lightning's sets it
        if (step.step + 1) % every == 0:
            for logger in self.trainer.loggers:
                logger.log_metrics(self.shown | {"epoch": self.trainer.current_epoch}, step=step.step)
                logger.save()

    def _refuse(self, step: StepLosses, micro_batch: int) -> None:
        """Raise on every process, naming the films of those whose loss is not finite."""
        names = self._batches.index.films  # type: ignore[union-attr]
        films = [] if step.mine_is_finite(micro_batch) else step.films[micro_batch].tolist()
        found = sorted(set(chain.from_iterable(gather_objects([names[film] for film in films]))))
        raise TrainingError(
            f"loss is {step.sum_of(micro_batch)} at step {step.step} (films {', '.join(found)}); "
            "lower optimiser.lr or set training.precision 32-true"
        )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        # Not in `on_train_batch_end`: callbacks have saved the checkpoint by then.
        self.method.after_step(self.encoder, self.global_step, self._facts["total_steps"])
        self.computed = time.perf_counter() - self._began
        assert self._losses is not None, "a step has losses"
        if self._warm:  # the first step also opens the data
            whole = self.waited + self.computed
            self._losses.numbers = {
                "time/data": self.waited,
                "time/step": whole,
                "views_per_second": self._images / whole,
            }
        self._unread, self._warm = self._losses, True  # callbacks of this step may want to read them

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        # Callbacks ran before this: their time (saving, validation) is not part of a step.
        self._idle_since = time.perf_counter()

    def on_train_end(self) -> None:
        self.read_losses()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.read_losses()  # weights of a loss that is not finite are not saved
        checkpoint |= self._facts
        checkpoint["data"] = self._data_state if self._batches is None else self._batches.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._data_state = checkpoint.get("data")


def _images(batch: dict[str, Tensor]) -> int:
    """Images per sample: views, or frames of clips, of all sizes."""
    return sum(rows.shape[1:-3].numel() for name, rows in batch.items() if name.startswith("images"))
