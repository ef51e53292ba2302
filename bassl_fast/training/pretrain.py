"""`bassl-fast pretrain`: shards -> a trained encoder and contextual relation network, without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from bassl_fast.checkpoints import checkpoint
from bassl_fast.encoders import ClipEncoder, Encoder
from bassl_fast.methods import Method
from bassl_fast.recognition.classify import clips_of
from bassl_fast.runtime import hardware
from bassl_fast.runtime.distributed import lost_process
from bassl_fast.runtime.run_folder import RunFolder
from pipelines.clip_sampling import WholeShots
from pipelines.plan import Plan
from pipelines.rng import check_seed
from pipelines.samples import ShotTable
from shard_tools.errors import (
    BasslFastError,
    CheckpointError,
    ConfigError,
    LostProcess,
    RemoteError,
    TrainingError,
    masked,
)
from shard_tools.shards.format import FILMS, MANIFEST
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.cache import local_file

from .accumulate import InterleavedLoader
from .checkpointing import Saver, WholeCheckpoints
from .labels import labels_of
from .module import Pretraining
from .monitor import Watch, write_summary
from .optim import Optimiser
from .precise_bn import PreciseNorm
from .progress import progress
from .validation import Accuracy, NearestNeighbours

LAST = "last.ckpt"
CURVES = "metrics.csv"


@dataclass(frozen=True)
class Data:
    """What to train on.

    Args:
        shards: folder that `bassl-fast pack` wrote.
        split: "train", "val" or "test" films, pictures or clips only; all if left out.
        global_batch: samples a step, over all processes: windows of shots, pictures or clips.
        threads: CPU threads of the data pipeline; 0 takes this process's share of the cores.
        prefetch: batches made ahead.
        pool: films that are shuffled with each other; all if left out. For remote shards that the cache cannot hold.
        max_broken: part of the views that may show another key-frame because theirs is broken; 0 stops at the first.
    """

    shards: str
    split: str | None = None
    global_batch: int = 256
    threads: int = 0
    prefetch: int = 2
    pool: int | None = None
    max_broken: float = 0.0


@dataclass(frozen=True)
class Training:
    """How long, how exactly, on what.

    Args:
        epochs: passes over all shots.
        steps: so many steps instead; 0 saves the untrained model.
        precision: "auto" is bfloat16 where the hardware multiplies it, else float32.
        accumulate: micro-batches a step. Their gradients add up to one step; each loss sees its micro-batch alone.
        compile: compile the encoder (torch.compile).
        clip: largest norm of the gradient; 0 does not clip.
        devices: GPUs or processes on this machine; 0 takes what torchrun or srun started, or else all GPUs.
        nodes: machines; 0 takes what torchrun or srun started, or else this one.
        timeout_minutes: how long processes wait for each other before they stop; longer than one may keep the others
            waiting, by a save or by its part of a validation.
        checkpoint_steps: save every so many steps; 0 saves once an epoch.
        checkpoint_minutes: save at least so often as well; 0 goes by steps alone.
        validate_every: epochs between measures on what is labelled "val": nearest neighbours in films, or, of a method
            with a classifier, how often it is right; 0 never does.
        precise_bn: batches whose means replace the running statistics of batch normalisation at the end of every epoch;
            0 leaves these as they are.
        prometheus: file, named .prom, to write what is watched to as well, for node_exporter's textfile collector.
    """

    epochs: int = 10
    steps: int | None = None
    precision: hardware.Precision = "auto"
    accumulate: int = 1
    compile: bool = False
    clip: float = 0.0
    devices: int = 0
    nodes: int = 0
    timeout_minutes: float = 10.0
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 0.0
    validate_every: int = 1
    precise_bn: int = 0
    prometheus: str | None = None

    def __post_init__(self) -> None:
        least = {"epochs": 1, "accumulate": 1, "timeout_minutes": 0.05}
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value < least.get(name, 0):
                raise ConfigError(f"training.{name} {value}: must be at least {least.get(name, 0)}")


def pretrain(
    data: Data,
    encoder: Callable[[], Encoder],
    method: Callable[[int], Method],
    optimiser: Optimiser = Optimiser(),  # noqa: B008 (frozen)
    training: Training = Training(),
    initial_encoder: str | None = None,
    out: str = "runs/pretrain",
    seed: int = 0,
    resume: bool = False,
    recipe: dict[str, Any] | None = None,
) -> str:
    """Train an encoder by a pretext task and return the path, or address, of its checkpoint.

    Args:
        data: what to train on.
        encoder: class and arguments of the shot encoder.
        method: class and arguments of the pretext task.
        optimiser: recipe of the optimiser.
        training: how long, how exactly, on what.
        initial_encoder: checkpoint whose encoder to start from, such as ImageNet weights that `import-checkpoint` read;
            new weights if left out.
        out: folder or address (s3://, gs://) for checkpoint, resolved config and curves.
        seed: of weights, order, views and dropout.
        resume: go on from the checkpoint in `out`, and begin where there is none yet. torchrun with --max-restarts
            implies it.

    Raises:
        ShardError, ConfigError, CheckpointError: before the first step, for anything that cannot work.
        PictureError, TrainingError: during training.
        RemoteError: an address cannot be read or written in time.
    """
    check_seed(seed)
    run = RunFolder(out)
    last = run.where(LAST)
    there = run.has(LAST)
    if there and not (resume or hardware.restarts()):
        raise ConfigError(f"{last}: this run exists; go on with it by --resume, or choose another --out")
    if resume and not there:
        _say(f"{last}: no such checkpoint yet, so this run begins")
    resume = there
    index = ShardIndex.open(data.shards)
    films, restarts = index.select(data.split), 0
    manifest = checkpoint.sha256(index.root / MANIFEST)
    if resume:
        earlier = checkpoint.load(last, "pretrain")
        _check_same_recipe(last, earlier["recipe"], recipe or {})
        if earlier["manifest_sha256"] != manifest:
            raise CheckpointError(f"{last}: was trained on other shards than {index.address}; resume with those")
        if earlier["global_step"] == earlier["total_steps"]:
            _say(f"{last}: finished already, at step {earlier['global_step']}")
            return last
        restarts = earlier.get("restarts", 0) + 1
    plan = Plan(len(ShotTable(index, films)), data.global_batch, seed)
    total_steps = training.epochs * plan.steps if training.steps is None else training.steps
    if data.global_batch > plan.samples:
        raise ConfigError(f"data.global_batch {data.global_batch}: there are {plan.samples} samples; choose fewer")
    hardware.say_device()
    hardware.say_restarts()
    if plan.padding:
        _say(f"{plan.padding} of {plan.samples} samples come twice an epoch, to fill its last batch")

    precision = hardware.precision(training.precision)
    pl.seed_everything(seed, verbose=False)
    shot_encoder = encoder()
    if initial_encoder is not None and not resume:
        start = checkpoint.load(initial_encoder, "pretrain")
        try:
            checkpoint.load_weights(shot_encoder, start["state_dict"], "encoder.", initial_encoder)
        except CheckpointError as error:
            held = start["recipe"]["encoder"]
            raise CheckpointError(f"{error} (it holds a {held['class_path']} of {held.get('init_args')})") from None
    task = method(shot_encoder.dim)
    if training.precise_bn and getattr(task, "frozen", False):
        raise ConfigError(f"training.precise_bn {training.precise_bn}: the encoder is frozen; leave it out")
    if task.classes is not None:
        labels_of(index, films, task.classes)
    if (clips := clips_of(task)) is not None:
        clips.check(index, films)
    sample = task.sample
    if index.kind == FILMS and isinstance(shot_encoder, ClipEncoder):
        sample = WholeShots(sample, int(index.sequences["frames_per_shot"][films].max()))
    if training.compile:
        shot_encoder.compile()

    def make_loader(rank: int, world_size: int, local: int, device: torch.device) -> InterleavedLoader:
        return InterleavedLoader(
            index,
            films,
            sample,
            task.views.size,
            global_batch=data.global_batch,
            micro_batches=training.accumulate,
            seed=seed,
            rank=rank,
            world_size=world_size,
            device=device,
            threads=hardware.threads(data.threads, local),
            prefetch=data.prefetch,
            dtype=torch.bfloat16 if precision == "bf16-mixed" else torch.float32,
            mean=task.views.mean,
            std=task.views.std,
            pool=data.pool,
            max_broken=data.max_broken,
        )

    facts = {"recipe": recipe or {}, "total_steps": total_steps, "manifest_sha256": manifest, "restarts": restarts}
    module = Pretraining(shot_encoder, task, optimiser, make_loader, data.global_batch, seed, facts)
    processes, nodes = hardware.launched() or ("auto", 1)
    bar, callbacks = progress()
    saver = Saver(run.path / LAST, training.checkpoint_steps or plan.steps, training.checkpoint_minutes)
    looks = max(1, min(50, total_steps // 50))
    watch = Watch(run.out, data.global_batch, looks, restarts, training.prometheus)
    if training.precise_bn:
        callbacks.append(PreciseNorm(training.precise_bn, plan.steps))
    callbacks += [watch, saver, *_validation(index, task, plan.steps * training.validate_every, data.threads)]
    devices, nodes = training.devices or processes, training.nodes or nodes
    trainer = _trainer(
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        strategy=hardware.strategy(devices, nodes, training.timeout_minutes),
        precision=precision,
        max_steps=total_steps,
        max_epochs=-1,
        accumulate_grad_batches=training.accumulate,
        gradient_clip_val=training.clip or None,
        logger=[CSVLogger(run.path, name="", version=""), TensorBoardLogger(run.path, name="", version="tensorboard")],
        callbacks=callbacks,
        enable_progress_bar=bar,
        enable_model_summary=False,
        enable_checkpointing=False,  # `Saver` does it
        log_every_n_steps=looks,
        num_sanity_val_steps=0,
        sync_batchnorm=torch.cuda.is_available(),
        plugins=[WholeCheckpoints(run), *hardware.cluster()],
    )
    if trainer.is_global_zero:
        run.path.mkdir(parents=True, exist_ok=True)
        if resume:
            run.bring("metrics*.csv")
        _keep_curves(run.path)
        (run.path / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        run.publish()

    def conclude(how: str) -> None:
        """Leave the summary and all curves; they are whole now."""
        if trainer.is_global_zero:
            write_summary(run.path, watch.summary(how))
            run.publish()

    try:
        trainer.fit(module, ckpt_path=local_file(last) if resume else None, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        conclude("interrupted")
        raise TrainingError(
            f"{run.out}: interrupted at step {trainer.global_step} of {total_steps}; "
            + ("go on with --resume" if run.has(LAST) else "no checkpoint was saved yet")
        ) from None
    except TrainingError as error:
        conclude(str(error))
        if trainer.is_global_zero:
            raise
        # All processes stop at the same step for the same reason. One says so and carries the exit code: whoever
        # started them kills the others, it among them, when the first fails.
        raise SystemExit(0) from None
    except RuntimeError as error:
        if not (reason := lost_process(error)):
            raise
        raise LostProcess(
            f"{run.out}: stopped at step {trainer.global_step} of {total_steps}: another process ended or cannot be "
            f"reached ({reason}); what it said tells why, and --resume goes on"
        ) from None
    except (BasslFastError, OSError) as error:
        if not isinstance(error, RemoteError):  # which has waited for the place already
            conclude(str(error))
        raise
    if saver.ended:
        conclude("SIGTERM")
        _say(f"{last}: ended by SIGTERM at step {trainer.global_step} of {total_steps} and saved; go on with --resume")
        return last
    trainer.save_checkpoint(run.path / LAST, weights_only=False)
    conclude("finished")
    _say(f"checkpoint: {last}")
    return last


@rank_zero_only
def _say(line: str) -> None:
    print(masked(line), flush=True)


def _validation(index: ShardIndex, task: Method, steps: int, threads: int) -> list[Callback]:
    """What is measured every so many steps, where something "val" is labelled."""
    films = np.flatnonzero(index.sequences["split"] == b"val")
    if task.classes is not None:
        labels_of(index, films, task.classes)
        return [Accuracy(index, films, steps, threads)] if steps and len(films) else []
    films = np.array([film for film in films.tolist() if (index.shots_of(film)["scene"] >= 0).any()], np.int64)
    return [NearestNeighbours(index, films, task.views.at_test(), steps, threads)] if steps and len(films) else []


def _trainer(**arguments: Any) -> pl.Trainer:
    """Raises: ConfigError for devices or a precision that this machine has not."""
    try:
        return pl.Trainer(**arguments)
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from None


def _keep_curves(out_dir: Path) -> None:
    """Put the curves of a stopped run aside: Lightning begins `metrics.csv` anew."""
    curves = out_dir / CURVES
    if curves.is_file():
        curves.rename(out_dir / f"metrics-{len(list(out_dir.glob('metrics-*.csv'))):03d}.csv")


def _check_same_recipe(path: str, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """What makes a batch or a step must be as it was; threads, places and precision may change."""
    for section, keys in (
        ("data", ("split", "global_batch", "pool")),
        ("training", ("epochs", "steps", "clip", "accumulate")),
        *((name, None) for name in ("encoder", "method", "optimiser", "seed")),
    ):
        for key in keys or (None,):
            was, is_now = (recipe[section] if key is None else recipe[section].get(key) for recipe in (earlier, now))
            if was != is_now:
                name = section if key is None else f"{section}.{key}"
                raise CheckpointError(f"{path}: was trained with another {name}; resume with its config.yaml")
