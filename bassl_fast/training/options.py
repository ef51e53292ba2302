"""Options of training as they are in a config. Nothing here needs torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bassl_fast.config.choices import Precision
from shard_tools.errors import ConfigError

Views = Literal["auto", "cpu", "gpu", "triton"]
LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow"]
Exempt = Literal["names_with_bn_or_bias", "names_with_bn", "norms", "vectors"]


@dataclass(frozen=True)
class Data:
    """Training data.

    Args:
        shards: folder or address that `bassl-fast pack` wrote to; or several with the weights by which every batch
            mixes them, `{A: 0.7, B: 0.3}`.
        split: "train", "val" or "test" samples only; all if left out.
        global_batch: samples per step, over all processes: windows of shots, images or clips.
        threads: CPU threads of the data pipeline; 0 uses this process's share of the cores.
        prefetch: batches prepared ahead.
        views: where views are made for training on GPUs: "cpu", "gpu", or "auto", the CPU if it has cores enough.
            "triton" makes them on the GPU by kernels of Triton, which have not been run on a GPU yet.
        pool: number of films of a set shuffled together; all if left out. For remote shards that do not fit the cache.
        max_broken: fraction of views that may replace a broken key-frame with another; 0 stops at the first.
    """

    shards: dict[str, float] | str
    split: str | None = None
    global_batch: int = 256
    threads: int = 0
    prefetch: int = 2
    views: Views = "auto"
    pool: int | None = None
    max_broken: float = 0.0

    @property
    def weights(self) -> list[float] | None:
        """Of the sets of shards; None for one set."""
        return None if isinstance(self.shards, str) else list(self.shards.values())


@dataclass(frozen=True)
class Training:
    """Length, precision and hardware of a run.

    Args:
        epochs: passes over all samples.
        steps: number of steps, instead of epochs; 0 saves the untrained model.
        smaller_views: begin with smaller views, as pairs of a side in pixels and the fraction of all steps until which
            it holds: `[[112, 0.4], [160, 0.7]]`; then the method's own size.
        precision: "auto" is bfloat16 if the hardware supports it, else float32.
        accumulate: micro-batches per step (gradient accumulation); each loss is taken over one micro-batch.
        compile: compile the encoder (torch.compile).
        clip: largest norm of the gradient; 0 does not clip.
        devices: GPUs or processes on this machine; 0 uses those that torchrun or srun started, else all GPUs.
        nodes: machines; 0 uses those of torchrun or srun, else this one.
        timeout_minutes: how long processes wait for each other before they stop; must exceed the longest save and the
            longest share of a validation.
        checkpoint_steps: save every so many steps; 0 saves once per epoch.
        checkpoint_minutes: also save at least this often; 0 saves by steps only.
        validate_every: epochs between validations on "val" samples: nearest neighbours in films, or the accuracy of the
            method's classifier; 0 never validates.
        precise_bn: number of batches from which the statistics of batch normalisation are recomputed at the end of
            every epoch; 0 keeps the running statistics.
        loggers: where curves go: "csv", "tensorboard", "wandb", "mlflow"; the last two need an extra of that name and
            are set by their environment variables.
        prometheus: also write the run's metrics to this .prom file, for node_exporter's textfile collector.
    """

    epochs: int = 10
    steps: int | None = None
    smaller_views: tuple[tuple[int, float], ...] = ()
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
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    prometheus: str | None = None

    def __post_init__(self) -> None:
        least = {"epochs": 1, "accumulate": 1, "timeout_minutes": 0.05}
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value < least.get(name, 0):
                raise ConfigError(f"training.{name} {value}: must be at least {least.get(name, 0)}")
        if len(set(self.loggers)) < len(self.loggers):
            raise ConfigError(f"training.loggers {list(self.loggers)}: one appears twice; name each once")
        ends = [0.0, *(until for _, until in self.smaller_views), 1.0]
        if any(side < 8 for side, _ in self.smaller_views) or any(a >= b for a, b in pairwise(ends)):
            raise ConfigError(
                f"training.smaller_views {[list(pair) for pair in self.smaller_views]}: sides of at least 8 pixels, "
                "with rising fractions of all steps within (0, 1)"
            )


@dataclass(frozen=True)
class Optimiser:
    """Recipe of the optimiser.

    Args:
        name: lars, sgd, adam or adamw.
        lr: base learning rate, for a batch of `lr_batch`; scaled linearly to the global batch of the run.
        lr_batch: batch size that `lr` is for; 0 uses `lr` unscaled.
        momentum: of LARS and SGD.
        weight_decay: L2 decay, except of `exempt` parameters.
        warmup: fraction of all steps over which the rate rises, within [0, 1).
        exempt: which parameters have no weight decay and are not adapted by LARS: those whose names hold "bn" or
            "bias" (BaSSL, SCRL), those whose names hold "bn" (VoV3D), those of normalisation layers ("norms"), or all
            norms and biases ("vectors").
        schedule: warm-up and cosine as in the code of BaSSL, SCRL, SCE or SlowFast. The first three differ by one step;
            "slowfast" rises from `warmup_start` to the value of the cosine, or of `drops`, at the end of the warm-up.
            "constant" needs a `warmup` of 0, and a run can be resumed with more steps.
        warmup_start: factor of the rate at which "slowfast" begins.
        drops: fractions of all steps after which "slowfast" divides the rate by ten, instead of the cosine.
        nesterov: use Nesterov momentum, with SGD.
        lr_twice: apply the learning rate twice to parameters that LARS does not adapt, as the published SCRL code does.
        layer_decay: factor of the rate from each layer of the encoder to the one below it, within (0, 1]; 1 trains all
            layers at the same rate. For the encoders HuggingFace and Timm.
        frozen_layers: layers of the encoder that are not trained, counted from the input, and with them the embeddings
            below; 0 trains all. A layer is a block of a transformer or a stage of a convolutional network.

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
    schedule: Literal["bassl", "scrl", "sce", "slowfast", "constant"] = "bassl"
    warmup_start: float = 0.0
    drops: tuple[float, ...] = ()
    nesterov: bool = False
    lr_twice: bool = False
    layer_decay: float = 1.0
    frozen_layers: int = 0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optimiser.lr {self.lr}: must be positive")
        for name in ("lr_batch", "momentum", "weight_decay", "frozen_layers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimiser.{name} {getattr(self, name)}: must not be negative")
        if self.nesterov and (self.name != "sgd" or not self.momentum):
            raise ConfigError("optimiser.nesterov: only for sgd with momentum; leave it out")
        if self.lr_twice and self.name != "lars":
            raise ConfigError("optimiser.lr_twice: only for lars; leave it out")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"optimiser.layer_decay {self.layer_decay}: must be within (0, 1]")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optimiser.warmup {self.warmup}: must be a fraction of all steps, within [0, 1)")
        if self.schedule == "constant" and self.warmup:
            raise ConfigError(f"optimiser.warmup {self.warmup}: schedule constant has no warm-up; set it to 0")
        if self.schedule != "slowfast" and (self.warmup_start or self.drops):
            raise ConfigError("optimiser.warmup_start and drops: only for schedule slowfast; leave them out")
        if not 0 <= self.warmup_start <= 1 or not all(0 < drop < 1 for drop in self.drops):
            raise ConfigError("optimiser.warmup_start and drops: fractions, must be within 0..1")
