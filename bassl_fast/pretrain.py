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
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from pipelines.loader import WindowLoader
from pipelines.plan import Plan
from pipelines.samples import ShotTable
from shard_tools.errors import CheckpointError, ConfigError, TrainingError
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

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "devices", "clip", "checkpoint_steps"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"training.{name} {getattr(self, name)}: must not be negative")
        if self.nodes < 1:
            raise ConfigError(f"training.nodes {self.nodes}: must be at least 1")


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed: a kill leaves the one before."""

    def save_checkpoint(self, state: dict[str, Any], path: str, storage_options: Any = None) -> None:
        checkpoint.save(Path(path), state)


class LogLines(Callback):
    """Where there is no terminal for a progress bar: ten lines a run."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started, self._first = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not trainer.is_global_zero:
            return
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
    check_seed(seed)
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
    plan = Plan(len(ShotTable(index, films)), data.global_batch, seed)
    total_steps = training.epochs * plan.steps if training.steps is None else training.steps
    if plan.padding:
        print(f"{plan.padding} of {plan.samples} shots come twice an epoch, to fill its last batch", flush=True)

    pl.seed_everything(seed, verbose=False)
    shot_encoder = encoder()
    task = method(shot_encoder.dim)

    def make_loader(rank: int, world_size: int, local: int, device: torch.device) -> WindowLoader:
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
            threads=hardware.threads(data.threads, local),
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
        every_n_train_steps=training.checkpoint_steps or plan.steps,
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
        sync_batchnorm=torch.cuda.is_available(),
        plugins=[WholeCheckpoints()],
    )
    try:
        trainer.fit(module, ckpt_path=last if resume else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        raise TrainingError(
            f"{out_dir}: interrupted at step {trainer.global_step} of {total_steps}; "
            + ("go on with --resume true" if last.exists() else "no checkpoint was saved yet")
        ) from None
    trainer.save_checkpoint(last, weights_only=False)
    return last


def check_seed(seed: int) -> None:
    """Raises: ConfigError for a seed that some generator cannot take."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed}: must be within [0, 2^32)")


def _check_same_recipe(path: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """What makes a batch or a step must be as it was; threads, places and precision may change."""
    for section, keys in (
        ("data", ("split", "global_batch")),
        ("training", ("epochs", "steps", "clip")),
        *((name, None) for name in ("encoder", "method", "optimiser", "seed")),
    ):
        for key in keys or (None,):
            was, is_now = (recipe[section] if key is None else recipe[section].get(key) for recipe in (earlier, now))
            if was != is_now:
                name = section if key is None else f"{section}.{key}"
                raise CheckpointError(f"{path}: was trained with another {name}; resume with its config.yaml")
