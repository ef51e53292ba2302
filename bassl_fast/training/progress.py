"""Progress of a training run: on a terminal, in a log file, and as curves."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger


class LogLines(Callback):
    """Ten lines per run, if there is no terminal for a progress bar."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        if step == total or step % max(1, total // 10) == 0:
            rate = (step - self._first) / (time.monotonic() - self._started)
            loss = trainer.progress_bar_metrics.get("loss", float("nan"))
            print(
                f"step {step}/{total}  loss {loss:.3f}  {rate:.2f} steps/s  {(total - step) / rate:.0f} s left",
                flush=True,
            )


def progress_callbacks() -> tuple[bool, list[Callback]]:
    """Whether to show a bar, and the callbacks: a bar on a terminal, a few lines elsewhere."""
    return (True, [TQDMProgressBar()]) if sys.stderr.isatty() else (False, [LogLines()])


def loggers(folder: Path) -> list[CSVLogger | TensorBoardLogger]:
    """Curves as `metrics.csv` and for TensorBoard."""
    return [CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, name="", version="tensorboard")]
