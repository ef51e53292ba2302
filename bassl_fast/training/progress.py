"""Progress of a training run: on a terminal, or in a log file."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

from .module import Pretraining


class LogLines(Callback):
    """Ten lines per run, if there is no terminal for a progress bar."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        if step == total or step % max(1, total // 10) == 0:
            loss = self.loss(trainer, module)
            if not trainer.is_global_zero:
                return
            rate = (step - self._first) / (time.monotonic() - self._started)
            print(
                f"step {step}/{total}  loss {loss:.3f}  {rate:.2f} steps/s  {(total - step) / rate:.0f} s left",
                flush=True,
            )

    def loss(self, trainer: pl.Trainer, module: pl.LightningModule) -> float:
        """Of the step that has just ended; called by all processes."""
        return float(trainer.progress_bar_metrics.get("loss", float("nan")))


class LateLogLines(LogLines):
    """As `LogLines`, of a module that reads its losses late."""

    def loss(self, trainer: pl.Trainer, module: Pretraining) -> float:
        module.read_losses()
        return module.shown.get("loss", float("nan"))


class LateBar(TQDMProgressBar):
    """Lightning's progress bar, with the losses and times that were read last."""

    def get_metrics(self, trainer: pl.Trainer, module: Pretraining) -> dict[str, Any]:
        found = {name: number for name, number in module.shown.items() if not name.startswith("loss/")}
        return super().get_metrics(trainer, module) | found


def progress_callbacks(late: bool = False) -> tuple[bool, list[Callback]]:
    """Whether to show a bar, and the callbacks: a bar on a terminal, a few lines elsewhere.

    Args:
        late: of a `Pretraining`, which reads its losses late.
    """
    if sys.stderr.isatty():
        return True, [LateBar() if late else TQDMProgressBar()]
    return False, [LateLogLines() if late else LogLines()]
