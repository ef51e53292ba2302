"""Options of training as they are in a config. Nothing here needs torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bassl_fast.config.choices import Precision
from shard_tools.errors import ConfigError

Exempt = Literal["names_with_bn_or_bias", "names_with_bn", "norms", "vectors"]


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
    precision: Precision = "auto"
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


@dataclass(frozen=True)
class Optimiser:
    """Recipe of the optimiser.

    Args:
        name: lars, sgd, adam or adamw.
        lr: base learning rate, for a global batch of `lr_batch`; scaled linearly to the batch in use.
        lr_batch: batch that `lr` is meant for; 0 takes `lr` as it is.
        momentum: of LARS and SGD.
        weight_decay: of parameters that are decayed.
        warmup: part of all steps over which the rate rises, 0..1.
        exempt: which parameters are not decayed, nor adapted by LARS, see `split_parameters`.
        schedule: whose warm-up and cosine. The first three differ by a step; that of SlowFast's recipes rises from
            `warmup_start` to what the cosine, or `drops`, says at the end of the warm-up.
        warmup_start: where "slowfast" begins, as a part of the rate.
        drops: parts of all steps after which "slowfast" falls to a tenth, instead of the cosine.
        nesterov: of SGD.
        lr_twice: as the published SCRL steps parameters that LARS does not adapt, see `LARS`.

    Raises:
        ConfigError: a value outside its range.
    """

    name: Literal["lars", "sgd", "adam", "adamw"] = "lars"
    lr: float = 0.3
    lr_batch: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup: float = 0.1
    exempt: Exempt = "names_with_bn_or_bias"
    schedule: Literal["bassl", "scrl", "sce", "slowfast"] = "bassl"
    warmup_start: float = 0.0
    drops: tuple[float, ...] = ()
    nesterov: bool = False
    lr_twice: bool = False

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optimiser.lr {self.lr}: must be positive")
        for name in ("lr_batch", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimiser.{name} {getattr(self, name)}: must not be negative")
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ConfigError("optimiser.nesterov is of sgd with a momentum; leave it out")
        if self.lr_twice and self.name != "lars":
            raise ConfigError("optimiser.lr_twice is of lars; leave it out")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optimiser.warmup {self.warmup}: a part of all steps, within [0, 1)")
        if self.schedule != "slowfast" and (self.warmup_start or self.drops):
            raise ConfigError("optimiser.warmup_start and drops are of the schedule slowfast; leave them out")
        if not 0 <= self.warmup_start <= 1 or not all(0 < drop < 1 for drop in self.drops):
            raise ConfigError("optimiser.warmup_start and drops: parts, within 0..1")
