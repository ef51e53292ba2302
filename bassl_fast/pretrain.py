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
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from pipelines.loader import WindowLoader
from pipelines.plan import Plan
from pipelines.samples import ShotTable
from shard_tools.errors import CheckpointError, ConfigError, TrainingError
from shard_tools.format import MANIFEST, ShardIndex

from . import checkpoint, hardware
from .encoders import Encoder
from .methods import Method
from .module import Pretraining
from .optim import Optimiser

LAST = "last.ckpt"
CURVES = "metrics.csv"


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
        steps: so many steps instead; 0 saves the untrained model.
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
        for name, least in (
            ("epochs", 1),
            ("steps", 0),
            ("devices", 0),
            ("nodes", 1),
            ("clip", 0),
            ("checkpoint_steps", 0),
        ):
            if (value := getattr(self, name)) is not None and value < least:
                raise ConfigError(f"training.{name} {value}: must be at least {least}")


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
        raise ConfigError(f"{last}: this run exists; go on with it by --resume, or choose another --out")
    index = ShardIndex.open(data.shards)
    films = index.select(data.split)
    manifest = checkpoint.sha256(index.root / MANIFEST)
    if resume:
        earlier = checkpoint.load(last, "pretrain")
        _check_same_recipe(last, earlier["recipe"], recipe or {})
        if earlier["manifest_sha256"] != manifest:
            raise CheckpointError(f"{last}: was trained on other shards than {index.address}; resume with those")
        if earlier["global_step"] == earlier["total_steps"]:
            print(f"{last}: finished already, at step {earlier['global_step']}", flush=True)
            return last
    plan = Plan(len(ShotTable(index, films)), data.global_batch, seed)
    total_steps = training.epochs * plan.steps if training.steps is None else training.steps
    if data.global_batch > plan.samples:
        raise ConfigError(f"data.global_batch {data.global_batch}: there are {plan.samples} shots; choose fewer")
    hardware.say_device()
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

    facts = {"recipe": recipe or {}, "total_steps": total_steps, "manifest_sha256": manifest}
    module = Pretraining(shot_encoder, task, optimiser, make_loader, data.global_batch, seed, facts)
    out_dir.mkdir(parents=True, exist_ok=True)
    _keep_curves(out_dir)
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
    trainer = _trainer(
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
            + ("go on with --resume" if last.exists() else "no checkpoint was saved yet")
        ) from None
    trainer.save_checkpoint(last, weights_only=False)
    if trainer.is_global_zero:
        print(f"checkpoint: {last}", flush=True)
    return last


def _trainer(**arguments: Any) -> pl.Trainer:
    """Raises: ConfigError for devices or a precision that this machine has not."""
    try:
        return pl.Trainer(**arguments)
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from None


@rank_zero_only
def _keep_curves(out_dir: Path) -> None:
    """Put the curves of a stopped run aside: Lightning begins `metrics.csv` anew."""
    curves = out_dir / CURVES
    if curves.is_file():
        curves.rename(out_dir / f"metrics-{len(list(out_dir.glob('metrics-*.csv'))):03d}.csv")


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
