"""Precise batch normalisation: exact statistics over many training batches, before validation and saving."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from bassl_fast.encoders.encoder import for_encoder
from bassl_fast.runtime.distributed import total, world_size

from .accumulate import MicroBatches
from .module import Pretraining


class PreciseNorm(Callback):
    """Replaces the encoder's running statistics with means over training batches, every so many steps and at the end.

    The recipes of X3D and VoV3D do this before they validate and save (Wu and Johnson, arXiv:2105.07576, section 3).
    The batches are the first of the epoch that ends, loaded again, so a resumed run computes the same.

    Args:
        batches: number of batches.
        steps: interval; put this callback before those that validate and save.
    """

    def __init__(self, batches: int, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if module.ends_step(batch_idx) and (step % self.steps == 0 or step == trainer.max_steps):
            module.read_losses()
            loader = module.open_loader()
            loader.load_state_dict({"epoch": (step - 1) // len(loader), "step": 0})
            parts = MicroBatches(loader, trainer.accumulate_grad_batches)
            clips = (for_encoder(some["images"][:, 0]) for some in islice(parts, self.batches))
            with trainer.precision_plugin.forward_context():
                update_bn(clips, module.encoder)
            if world_size() > 1:
                for norm in (m for m in module.encoder.modules() if isinstance(m, _BatchNorm)):
                    for statistic in (norm.running_mean, norm.running_var):
                        if statistic is not None:
                            statistic.copy_(total(statistic) / world_size())
            module.encoder.train()
