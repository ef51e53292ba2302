"""When a run saves its checkpoint: on a schedule of steps, of time, and when it is told to end."""

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
    """Saves between steps, never between the micro-batches of one, and on all processes at the same step.

    Lightning's ModelCheckpoint keeps to a schedule of steps or of time, not both, and saves between micro-batches. On
    SIGTERM Lightning stops where it is; here the step under way is finished and saved first.

    Args:
        path: the checkpoint; every save replaces it.
        steps: save every so many steps.
        minutes: and at least so often; 0 goes by steps alone.

    Attributes:
        ended: whether the run was ended early, with its checkpoint saved.
    """

    def __init__(self, path: Path, steps: int, minutes: float) -> None:
        self.path, self.steps, self.seconds = path, steps, 60 * minutes
        self.ended = self._told_to_end = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        # Lightning has put a handler of its own in place by now, and takes back the one before it at the end.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_: Any) -> None:
        self._told_to_end = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.ends_step(batch_idx):
            return
        late = 0 < self.seconds <= time.monotonic() - self._saved_at
        late, self.ended = any_process([late, self._told_to_end], module.device)
        if late or self.ended or trainer.global_step % self.steps == 0:
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved_at = time.monotonic()
        if self.ended:
            trainer.should_stop = True


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed: a kill leaves the one before. They are in the run's folder,
    wherever that is, when the call returns; Lightning makes it on process 0, and the others wait."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self._run = run

    def save_checkpoint(self, state: dict[str, Any], path: str, storage_options: Any = None) -> None:
        checkpoint.save(Path(path), state)
        self._run.publish()
