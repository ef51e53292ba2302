"""A training run: checks, training, and what it leaves behind however it ends.

shards, options -> [checks] -> encoder, method -> Lightning trainer -> last.ckpt, metrics.csv, summary.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import full_section, section_of
from bassl_fast.checkpoints.weights import load_weights
from bassl_fast.encoders import ClipEncoder, Encoder
from bassl_fast.methods import Method
from bassl_fast.runtime import hardware
from bassl_fast.runtime.distributed import lost_process
from bassl_fast.runtime.quiet import quieten
from bassl_fast.runtime.run_folder import RunFolder
from pipelines.clip_sampling import WholeShots
from pipelines.graph import Decoder
from pipelines.mixing import open_sets, plan_of
from pipelines.plan import Mix, Plan
from pipelines.rng import check_seed
from pipelines.samples import Sampler, ShotTable
from shard_tools.errors import (
    BasslFastError,
    CheckpointError,
    ConfigError,
    LostProcess,
    RemoteError,
    TrainingError,
    masked,
)
from shard_tools.shards.format import FILMS
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.atomic import write_atomically
from shard_tools.storage.cache import local_file

from . import launch, loggers
from .accumulate import InterleavedLoader
from .checkpointing import Saver, WholeCheckpoints
from .labels import labels_of
from .length import check_length
from .module import Pretraining
from .monitor import Watch, write_summary
from .options import Data, Optimiser, Training
from .placement import in_words, place_views, rates
from .precise_bn import PreciseNorm
from .progress import progress_callbacks
from .sync_norm import synchronised
from .validation import Accuracy, NearestNeighbours

LAST = "last.ckpt"
CURVES = "metrics.csv"
CONFIG = "config.yaml"
_SCHEDULE = ("epochs", "steps", "smaller_views", "clip", "accumulate")  # of `Training`, fixed when a run begins


def run_training(
    data: Data,
    encoder: Callable[[], Encoder],
    method: Callable[[int], Method],
    optimiser: Optimiser,
    training: Training,
    initial_encoder: str | None,
    out: str,
    seed: int,
    resume: bool,
    recipe: dict[str, Any] | None,
) -> str:
    """See `pretrain`."""
    quieten()
    check_seed(seed)
    run = RunFolder(out)
    last = run.where(LAST)
    resume = _resumes(run, resume)
    index = open_sets(data.shards)
    films = index.select(data.split)
    pl.seed_everything(seed, verbose=False)
    network = encoder()
    if initial_encoder is not None and not resume:
        _start_from(network, initial_encoder)
    task = method(network.dim)
    task.fit_views(network, [side for side, _ in training.smaller_views])
    plan = _plan(data, task, index, films, seed)
    check_data(task, index, films, training)
    facts: dict[str, Any] = {
        "model": section_of(network, task),
        "resume": _shared(data, optimiser, training, seed),
        "recipe": recipe or {},
        "total_steps": training.epochs * plan.steps if training.steps is None else training.steps,
        "manifest_sha256": index.digest(),
        "restarts": 0,
    }
    if resume and _is_finished(last, facts, index, optimiser, training, task):
        return last
    hardware.say_device()
    if not torch.cuda.is_available():
        place_views(data.views, False, 0, 0, 0)  # raises if it cannot work
    launch.say_restarts()
    if plan.padding:
        say(f"{plan.padding} of {plan.samples} samples are used twice per epoch, to fill the last batch")
    if torch.cuda.is_available():
        synchronised(network)
        synchronised(task)
    if training.compile:
        network.compile()
    precision = hardware.precision(training.precision)
    smaller = [(side, round(until * facts["total_steps"])) for side, until in training.smaller_views]
    open_loader = partial(make_loader, data, training.accumulate, smaller, seed, precision, index, films, network, task)
    module = Pretraining(network, task, optimiser, open_loader, data.global_batch, seed, facts)
    saver = Saver(run.path / LAST, training.checkpoint_steps or plan.steps, training.checkpoint_minutes)
    every = max(1, min(50, facts["total_steps"] // 50))  # steps between two points of the curves
    watch = Watch(run.out, data.global_batch, every, facts["restarts"], training.prometheus)
    precise = [PreciseNorm(training.precise_bn, plan.steps)] if training.precise_bn else []
    validation = _validation(index, task, plan.steps * training.validate_every, data.threads)
    callbacks = [*precise, watch, saver, *validation]
    found = loggers.open_loggers(run, training.loggers, resume)
    trainer = make_trainer(training, precision, facts["total_steps"], every, callbacks, run, found)
    if trainer.is_global_zero:
        _begin(run, recipe, resume)
        loggers.begin(run, found, recipe or {})
    _fit(run, trainer, module, saver, watch, facts["total_steps"], resume)
    return last


# Before the first step


def _plan(data: Data, task: Method, index: ShardIndex, films: np.ndarray, seed: int) -> Plan | Mix:
    """The plan of the batches.

    Raises:
        ConfigError: fewer samples than a batch, or a batch that is not of whole runs.
    """
    run, batch = task.run_length, data.global_batch
    if batch % run:
        raise ConfigError(
            f"data.global_batch {batch}: must be a multiple of method.run_length {run}; take {-(-batch // run) * run}"
        )
    table = ShotTable(index, films, run)
    plan = plan_of(index, films, run, batch // run, seed, None)
    if batch > run * plan.samples:
        most = run * plan.samples
        raise ConfigError(f"data.global_batch {batch}: there are {most} samples; choose at most {most}")
    if table.repeated:
        say(f"{table.repeated} shots are the centre of two windows per epoch, where runs of {run} overlap")
    return plan


def _resumes(run: RunFolder, wanted: bool) -> bool:
    """Whether there is a checkpoint to resume from.

    Raises:
        ConfigError: there is one, but resuming was not asked for.
    """
    there = run.has(LAST)
    if there and not (wanted or launch.restarts()):
        raise ConfigError(f"{run.where(LAST)}: this run exists; continue it with --resume, or choose another --out")
    if wanted and not there:
        say(f"{run.where(LAST)}: no checkpoint yet, the run starts from the beginning")
    return there


def _start_from(network: Encoder, path: str) -> None:
    """Load the encoder weights of another checkpoint into `network`."""
    start = checkpoint.load(path, checkpoint.ENCODER)
    try:
        load_weights(network, start["state_dict"], "encoder.", path)
    except CheckpointError as error:
        held = start["model"]["encoder"]
        raise CheckpointError(f"{error} (its encoder is {held['class_path']}, {held.get('init_args')})") from None


def check_data(task: Method, index: ShardIndex, films: np.ndarray, training: Training) -> None:
    """Refuse data that the method cannot train on.

    Raises:
        ConfigError, ShardError: labels or frame rates are missing, or the encoder is frozen.
    """
    for side, _ in training.smaller_views:
        if side >= task.views.size:
            raise ConfigError(
                f"training.smaller_views of {side} pixels: must be below method.views.size {task.views.size}"
            )
    if training.smaller_views and not task.resizable:
        raise ConfigError(f"training.smaller_views: {type(task).__name__} needs views of its own size; leave it out")
    if training.precise_bn and getattr(task, "frozen", False):
        raise ConfigError(f"training.precise_bn {training.precise_bn}: the encoder is frozen; leave it out")
    if task.classes is not None:
        labels_of(index, films, task.classes)
    if task.clips is not None:
        task.clips.check(index, films)


def _shared(data: Data, optimiser: Optimiser, training: Training, seed: int) -> dict[str, Any]:
    """Options that may not change when a run is resumed; threads, paths and precision may."""
    return {
        "data": {key: getattr(data, key) for key in ("split", "global_batch", "pool", "weights")},
        "training": {key: _plain(getattr(training, key)) for key in _SCHEDULE},
        "optimiser": {key: _plain(value) for key, value in asdict(optimiser).items()},
        "seed": seed,
    }


def _plain(value: Any) -> Any:
    """Lists for tuples, as checkpoints hold them."""
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _check_same(path: str, earlier: dict[str, Any], now: dict[str, Any], index: ShardIndex) -> None:
    """Raises: CheckpointError if the options or shards differ from those the run started with."""
    if "resume" not in earlier:
        raise CheckpointError(f"{path}: not written by a training run; choose another --out")
    # Options added to the program since the run started are compared by their defaults.
    held = full_section(earlier["model"]["encoder"], earlier["model"]["method"], path)
    pairs = {name: (held[name], now["model"][name]) for name in ("encoder", "method")}
    before, after = earlier["resume"], now["resume"]
    defaults = _shared(Data(""), Optimiser(), Training(), 0)
    for section in ("data", "training"):
        was = defaults[section] | before[section]
        same = after[section].keys() - {"epochs", "steps"}  # see `check_length`
        pairs |= {f"{section}.{key}": (was[key], after[section][key]) for key in sorted(same)}
    pairs["optimiser"] = defaults["optimiser"] | before["optimiser"], after["optimiser"]
    pairs["seed"] = before["seed"], after["seed"]
    for name, (was, is_now) in pairs.items():
        if was != is_now:
            values = "" if isinstance(was, dict) else f" ({was}, now {is_now})"
            raise CheckpointError(f"{path}: was trained with another {name}{values}; resume with its config.yaml")
    if earlier["manifest_sha256"] != now["manifest_sha256"]:
        raise CheckpointError(
            f"{path}: was trained on other shards than {index.address}; resume with the original ones"
        )


def _is_finished(
    path: str, facts: dict[str, Any], index: ShardIndex, optimiser: Optimiser, training: Training, task: Method
) -> bool:
    """Check that the run at `path` is this one, and count the restart; True if it is finished already."""
    earlier = checkpoint.load(path, checkpoint.ENCODER)
    _check_same(path, earlier, facts, index)
    done, was, total = earlier["global_step"], earlier["total_steps"], facts["total_steps"]
    check_length(path, done, was, total, optimiser, training, task)
    facts["restarts"] = earlier.get("restarts", 0) + 1
    if done == total:
        say(f"{path}: finished already, at step {done}")
    elif total != was:
        say(f"{path}: is at step {done} of {was}, and continues to step {total}; the steps so far are the same in both")
    return done == total


# The trainer and its data


def make_loader(
    data: Data,
    micro_batches: int,
    smaller: list[tuple[int, int]],
    seed: int,
    precision: str,
    index: ShardIndex,
    films: np.ndarray,
    network: Encoder,
    task: Method,
    rank: int,
    world_size: int,
    local: int,
    device: torch.device,
) -> InterleavedLoader:
    """The loader of process `rank` of `world_size`, `local` of them on this machine."""
    threads = hardware.threads(data.threads, local)
    decoder: Decoder = "cpu"
    if device.type == "cuda":
        frames = task.clips.frames if task.clips is not None else 1
        decoder = place_views(data.views, True, threads, *rates(network, task.views.size, frames))
        say_once(in_words(decoder, threads, data.views == "triton"))
    sampler: Sampler = task.sample
    if index.kind == FILMS and isinstance(network, ClipEncoder):
        sampler = WholeShots(sampler, int(index.sequences["frames_per_shot"][films].max()))
    return InterleavedLoader(
        index,
        films,
        sampler,
        task.views.size,
        smaller=smaller,
        global_batch=data.global_batch // task.run_length,
        run_length=task.run_length,
        micro_batches=micro_batches,
        seed=seed,
        rank=rank,
        world_size=world_size,
        device=device,
        decoder=decoder,
        triton=data.views == "triton",
        threads=threads,
        prefetch=data.prefetch,
        dtype=torch.bfloat16 if precision == "bf16-mixed" else torch.float32,
        mean=task.views.mean,
        std=task.views.std,
        pool=data.pool,
        max_broken=data.max_broken,
    )


def make_trainer(
    training: Training,
    precision: str,
    total_steps: int,
    every: int,
    callbacks: list[Callback],
    run: RunFolder,
    curves: list[Logger],
) -> pl.Trainer:
    """Lightning's trainer.

    Raises:
        ConfigError: devices or a precision that this machine lacks.
    """
    processes, machines = launch.launched() or ("auto", 1)
    devices, nodes = training.devices or processes, training.nodes or machines
    if devices != "auto":
        launch.check_gpus(int(devices), torch.cuda.device_count())
    bar, lines = progress_callbacks(late=True)
    try:
        return pl.Trainer(
            accelerator="auto",
            devices=devices,
            num_nodes=nodes,
            strategy=launch.strategy(devices, nodes, training.timeout_minutes),
            precision=precision,  # type: ignore[arg-type]  # one of `Precision`
            max_steps=total_steps,
            max_epochs=-1,
            accumulate_grad_batches=training.accumulate,
            gradient_clip_val=training.clip or None,
            logger=curves,
            callbacks=[*lines, *callbacks],
            enable_progress_bar=bar,
            enable_model_summary=False,
            enable_checkpointing=False,  # `Saver` saves
            log_every_n_steps=every,
            num_sanity_val_steps=0,
            benchmark=torch.cuda.is_available(),  # sizes are the same in every step
            plugins=[WholeCheckpoints(run), *launch.launch_plugins()],
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from None


def _validation(index: ShardIndex, task: Method, steps: int, threads: int) -> list[Callback]:
    """Validation callbacks, if there are labelled "val" samples."""
    films = np.flatnonzero(index.sequences["split"] == b"val")
    if task.classes is not None:
        labels_of(index, films, task.classes)
        return [Accuracy(index, films, steps, threads)] if steps and len(films) else []
    films = np.array([film for film in films.tolist() if (index.shots_of(film)["scene"] >= 0).any()], np.int64)
    return [NearestNeighbours(index, films, task.views.at_test(), steps, threads)] if steps and len(films) else []


# Start and end


def _begin(run: RunFolder, recipe: dict[str, Any] | None, resume: bool) -> None:
    """Create the run's folder with the resolved config; curves of an earlier start are renamed and kept."""
    run.path.mkdir(parents=True, exist_ok=True)
    if resume:
        run.bring("metrics*.csv")
    curves = run.path / CURVES
    if curves.is_file():  # Lightning starts a new file
        curves.rename(run.path / f"metrics-{len(list(run.path.glob('metrics-*.csv'))):03d}.csv")
    write_atomically(run.path / CONFIG, yaml.safe_dump(recipe, sort_keys=False).encode())
    run.publish()


def _fit(
    run: RunFolder, trainer: pl.Trainer, module: Pretraining, saver: Saver, watch: Watch, total: int, resume: bool
) -> None:
    """Train to step `total`, or until SIGTERM; either way the checkpoint is saved."""
    last = run.where(LAST)
    with _endings(run, trainer, watch, total) as conclude:
        trainer.fit(module, ckpt_path=local_file(last) if resume else None, weights_only=True)
    if saver.ended:
        conclude("SIGTERM")
        say(f"{last}: stopped by SIGTERM at step {trainer.global_step} of {total} and saved; continue with --resume")
        return
    trainer.save_checkpoint(run.path / LAST, weights_only=False)
    conclude("finished")
    say(f"checkpoint: {last}")


@contextmanager
def _endings(run: RunFolder, trainer: pl.Trainer, watch: Watch, total: int) -> Iterator[Callable[[str], None]]:
    """Context of the training: every failure leaves a summary and becomes a one-line error.

    Yields the function that writes the summary, given how the run ended.
    """

    def conclude(how: str) -> None:
        if trainer.is_global_zero:
            write_summary(run.path, watch.summary(how))
            run.publish()

    try:
        yield conclude
    except SystemExit:  # Lightning's answer to Ctrl-C
        conclude("interrupted")
        saved = "continue with --resume" if run.has(LAST) else "no checkpoint was saved yet"
        raise TrainingError(f"{run.out}: interrupted at step {trainer.global_step} of {total}; {saved}") from None
    except TrainingError as error:
        conclude(str(error))
        if trainer.is_global_zero:
            raise
        # All processes stop at the same step for the same reason. Only process 0 reports it and fails: the launcher
        # kills all processes as soon as one fails.
        raise SystemExit(0) from None
    except RuntimeError as error:
        if not (reason := lost_process(error)):
            raise
        raise LostProcess(
            f"{run.out}: stopped at step {trainer.global_step} of {total}: another process ended or cannot be reached "
            f"({reason}); see its messages for the cause, then continue with --resume"
        ) from None
    except (BasslFastError, OSError) as error:
        if not isinstance(error, RemoteError):  # the summary's address has been retried long enough
            conclude(str(error))
        raise
    finally:
        if trainer.is_global_zero:
            loggers.end(trainer.loggers)


@cache
def say_once(line: str) -> None:
    """As `say`, for what is done more than once in a run."""
    say(line)


@rank_zero_only
def say(line: str) -> None:
    """Print a line on process 0 only, without the secrets of addresses."""
    print(masked(line), flush=True)
