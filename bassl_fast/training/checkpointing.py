"""When a run saves its checkpoint: every so many steps, every so many minutes, and on SIGTERM."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback

from bassl_fast.checkpoints import checkpoint
from bassl_fast.runtime.distributed import any_process
from bassl_fast.runtime.run_folder import RunFolder

from .module import Pretraining


class Saver(Callback):
    """Saves after whole steps, never between micro-batches, and on all processes after the same step.

    Lightning's ModelCheckpoint follows a schedule of steps or of time, not both, and saves between micro-batches. On
    SIGTERM Lightning stops at once; here the current step is finished and saved first.

    Args:
        path: the checkpoint file; every save replaces it.
        steps: save every so many steps.
        minutes: also save when the last save is this old; 0 saves by steps only.

    Attributes:
        ended: whether the run was stopped early by SIGTERM, with its checkpoint saved.
    """

    def __init__(self, path: Path, steps: int, minutes: float) -> None:
        self.path, self.steps, self.seconds = path, steps, 60 * minutes
        self.ended = self._terminated = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        # Lightning has installed its own handler by now, and restores the earlier one at the end.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._end)
        # It would tell all processes, by way of their GPUs, in every step, of a signal that only we receive.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

    def _end(self, *_: Any) -> None:
        self._terminated = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.ends_step(batch_idx):
            return
        late = 0 < self.seconds <= time.monotonic() - self._saved_at
        late, self.ended = any_process([late, self._terminated])
        if late or self.ended or trainer.global_step % self.steps == 0:
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_at = time.monotonic()
        if self.ended:
            trainer.should_stop = True


def _nothing() -> None:
    pass


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints to a temporary file and renames it: a kill leaves the previous one.

    When the call returns, the checkpoint is in the run's folder or at its address. Lightning calls it on process 0
    while the others wait.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run

    def save_checkpoint(self, state: dict[str, Any], path: str, storage_options: Any = None) -> None:
        checkpoint.save(Path(path), state)
        self._run.publish()
