"""`bassl-fast pretrain`: shards -> a trained encoder and contextual relation network, without labels."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from pipelines.loader import WindowLoader
from pipelines.plan import Plan
from pipelines.samples import ShotTable
from shard_tools.errors import CheckpointError, ConfigError
from shard_tools.format import ShardIndex

from . import checkpoint, hardware
from .encoders import Encoder
from .methods import Method
from .module import Pretraining
from .optim import Optimiser

LAST = "last.ckpt"


@dataclass(frozen=True)
class Data:
    """What to train on.

    Args:
        shards: folder that `bassl-fast pack` wrote.
        split: "train", "val" or "test" films only; all films if left out (no label is used).
        global_batch: windows a step, over all processes.
        threads: CPU threads of the data pipeline; 0 takes this process's share of the cores.
        prefetch: batches made ahead.
    """

    shards: str
    split: str | None = None
    global_batch: int = 256
    threads: int = 0
    prefetch: int = 2


@dataclass(frozen=True)
class Training:
    """How long, how exactly, on what.

    Args:
        epochs: passes over all shots.
        steps: stop after so many steps instead; 0 saves the untrained model.
        precision: "auto" is bfloat16 where the hardware multiplies it, else float32.
        devices: GPUs or processes on this machine; 0 takes all there are.
        nodes: machines.
        clip: largest norm of the gradient; 0 does not clip.
        checkpoint_steps: also save every so many steps; 0 saves once an epoch.
    """

    epochs: int = 10
    steps: int | None = None
    precision: hardware.Precision = "auto"
    devices: int = 0
    nodes: int = 1
    clip: float = 0.0
    checkpoint_steps: int = 0


class LogLines(Callback):
    """Where there is no terminal for a progress bar: ten lines a run."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        if step == total or step % max(1, total // 10) == 0:
            rate = (step - self._first) / (time.monotonic() - self._started)
            loss = trainer.progress_bar_metrics.get("loss", float("nan"))
            print(
                f"step {step}/{total}  loss {loss:.3f}  {rate:.2f} steps/s  {(total - step) / rate:.0f} s left",
                flush=True,
            )


def progress() -> tuple[bool, list[Callback]]:
    """A bar on a terminal, a few lines elsewhere."""
    return (True, [TQDMProgressBar()]) if sys.stderr.isatty() else (False, [LogLines()])


def pretrain(
    data: Data,
    encoder: Callable[[], Encoder],
    method: Callable[[int], Method],
    optimiser: Optimiser = Optimiser(),  # noqa: B008 (frozen)
    training: Training = Training(),
    out: str = "runs/pretrain",
    seed: int = 0,
    resume: bool = False,
    recipe: dict[str, Any] | None = None,
) -> Path:
    """Train an encoder by a pretext task and return the path of its checkpoint.

    Args:
        data: what to train on.
        encoder: class and arguments of the shot encoder.
        method: class and arguments of the pretext task.
        optimiser: recipe of the optimiser.
        training: how long, how exactly, on what.
        out: folder for checkpoint, resolved config and curves.
        seed: of weights, order, views and dropout.
        resume: go on from the checkpoint in `out`.

    Raises:
        ShardError, ConfigError, CheckpointError: before the first step, for anything that cannot work.
        PictureError, TrainingError: during training.
    """
    out_dir = Path(out)
    last = out_dir / LAST
    if last.exists() and not resume:
        raise ConfigError(f"{last}: this run exists; go on with it by --resume true, or choose another --out")
    if resume:
        earlier = checkpoint.load(last, "pretrain")["recipe"]
        _check_same_recipe(last, earlier, recipe or {})
    hardware.say_device()
    index = ShardIndex.open(data.shards)
    films = index.select(data.split)
    steps_per_epoch = Plan(len(ShotTable(index, films)), data.global_batch, seed).steps
    total_steps = training.epochs * steps_per_epoch if training.steps is None else training.steps

    pl.seed_everything(seed, verbose=False)
    shot_encoder = encoder()
    task = method(shot_encoder.dim)

    def make_loader(rank: int, world_size: int, device: torch.device) -> WindowLoader:
        return WindowLoader(
            index,
            films,
            task.sample,
            task.views.size,
            global_batch=data.global_batch,
            seed=seed,
            rank=rank,
            world_size=world_size,
            device=device,
            threads=hardware.threads(data.threads),
            prefetch=data.prefetch,
        )

    module = Pretraining(shot_encoder, task, optimiser, make_loader, data.global_batch, total_steps, seed, recipe or {})
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    bar, callbacks = progress()
    saver = ModelCheckpoint(
        out_dir,
        filename="last",
        save_top_k=1,
        every_n_train_steps=training.checkpoint_steps or steps_per_epoch,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        accelerator="auto",
        devices=training.devices or "auto",
        num_nodes=training.nodes,
        precision=hardware.precision(training.precision),
        max_steps=total_steps,
        max_epochs=-1,
        gradient_clip_val=training.clip or None,
        logger=[CSVLogger(out_dir, name="", version=""), TensorBoardLogger(out_dir, name="", version="tensorboard")],
        callbacks=[*callbacks, saver],
        enable_progress_bar=bar,
        enable_model_summary=False,
        log_every_n_steps=max(1, min(50, total_steps // 50)),
        num_sanity_val_steps=0,
        sync_batchnorm=torch.cuda.device_count() > 1,
    )
    trainer.fit(module, ckpt_path=last if resume else None, weights_only=True)
    trainer.save_checkpoint(last, weights_only=False)
    return last


def _check_same_recipe(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    for key in ("encoder", "method", "optimiser", "seed"):
        if earlier.get(key) != now.get(key):
            raise CheckpointError(f"{path}: was trained with another {key}; resume with its config.yaml")
