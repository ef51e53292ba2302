"""What a run did so far, added up over all processes: for its curves, for Prometheus, and for `summary.json`."""

from __future__ import annotations

import json
import logging
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from nvidia import dali
from pytorch_lightning.callbacks import Callback

from bassl_fast.runtime.distributed import gather_objects
from shard_tools.counters import counted
from shard_tools.errors import ConfigError, masked
from shard_tools.storage.atomic import write_atomically

from .module import Pretraining

_log = logging.getLogger(__name__)

SUMMARY = "summary.json"
# What is shown while it runs, and what it says in Prometheus.
_SHOWN = {
    "step": ("counter", "Steps that the weights have gone through."),
    "samples": ("counter", "Samples since this start."),
    "samples_per_second": ("gauge", "Samples a second since the last look, saving and validation counted in."),
    "data_wait": ("gauge", "Share of the time of steps since this start that was spent waiting for data, 0 to 1."),
    "gpu_bytes": ("gauge", "Most memory that torch has taken on one GPU."),
    "host_bytes": ("gauge", "Most memory that one process has taken."),
    "cache_hits": ("counter", "Remote shards that were here when opened."),
    "cache_misses": ("counter", "Remote shards that were fetched."),
    "cache_bytes": ("counter", "Bytes fetched from remote places."),
    "replaced_pictures": ("counter", "Views that showed another key-frame because theirs is broken."),
    "retries": ("counter", "Requests to remote places that were tried again."),
    "restarts": ("counter", "Times that the run went on from a checkpoint."),
}


class Watch(Callback):
    """Looks every so many steps, on all processes at once, and at the end.

    Args:
        run: path or address of the run, a label in Prometheus.
        global_batch: samples a step.
        steps: steps between two looks.
        restarts: of the run so far.
        prometheus: file for node_exporter's textfile collector, written whole at every look.

    Raises:
        ConfigError: a file that the collector would not read, or no folder for it.
    """

    def __init__(self, run: str, global_batch: int, steps: int, restarts: int, prometheus: str | None) -> None:
        if prometheus is not None:
            _check_collected(Path(prometheus))
        self._run, self._batch, self._steps, self._prometheus = run, global_batch, steps, prometheus
        self._facts: dict[str, Any] = {"restarts": restarts}
        self._before = counted()
        self._waited = self._worked = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: Pretraining) -> None:
        self._began = self._looked = time.monotonic()
        self._first = self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.ends_step(batch_idx):
            return
        if trainer.global_step > self._first + 1:  # the first step opens the data
            self._waited, self._worked = self._waited + module.waited, self._worked + module.computed
        if trainer.global_step % self._steps == 0:
            self._look(trainer)
            for logger in trainer.loggers:
                shown = {f"watch/{name}": self._facts[name] for name in _SHOWN}
                logger.log_metrics(shown, step=trainer.global_step - 1)

    def on_train_end(self, trainer: pl.Trainer, module: Pretraining) -> None:
        self._look(trainer)

    def _look(self, trainer: pl.Trainer) -> None:
        """Add up what the processes have counted."""
        mine = {name: number - self._before[name] for name, number in counted().items()}
        every = gather_objects((mine, self._waited, self._worked, _gpu_bytes(), _host_bytes()))
        counts, waited, worked, gpu, host = zip(*every, strict=True)
        now, step = time.monotonic(), trainer.global_step
        busy = sum(waited) + sum(worked)
        self._facts |= {
            "step": step,
            "steps": step - self._first,
            "samples": (step - self._first) * self._batch,
            "seconds": now - self._began,
            "samples_per_second": (step - self._seen) * self._batch / max(now - self._looked, 1e-9),
            "data_wait": sum(waited) / busy if busy else 0.0,
            "gpu_bytes": max(gpu),
            "host_bytes": max(host),
            **{name: sum(one[name] for one in counts) for name in mine},
            "world_size": trainer.world_size,
        }
        self._looked, self._seen = now, step
        if self._prometheus is not None and trainer.is_global_zero:
            try:
                write_atomically(Path(self._prometheus), exposition(self._facts, self._run).encode())
            except OSError as error:  # no reason to stop training
                _log.warning("%s: %s; the collector reads old figures", self._prometheus, error.strerror)

    def summary(self, how: str) -> dict[str, Any]:
        """What there is to say of this start of the run; of its last look, if it ended otherwise than by itself.

        Args:
            how: it ended.
        """
        facts = dict(self._facts)
        if "seconds" in facts:
            facts["samples_per_second"] = facts["samples"] / max(facts["seconds"], 1e-9)
        return {"ended": how, **facts, "versions": versions()}


def exposition(facts: dict[str, Any], run: str) -> str:
    """Facts of a run in Prometheus' text format."""
    label = masked(run).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    lines = []
    for name, (kind, words) in _SHOWN.items():
        metric = f"bassl_fast_{name}{'_total' * (kind == 'counter')}"
        lines += [f"# HELP {metric} {words}", f"# TYPE {metric} {kind}", f'{metric}{{run="{label}"}} {facts[name]}']
    return "\n".join(lines) + "\n"


def write_summary(folder: Path, facts: dict[str, Any]) -> None:
    """Write `summary.json`."""
    write_atomically(folder / SUMMARY, (json.dumps(facts, indent=1) + "\n").encode())


def versions() -> dict[str, str | None]:
    """What computed it."""
    found = {"python": platform.python_version(), "dali": dali.__version__, "cuda": torch.version.cuda}
    for package in ("bassl-fast", "torch", "pytorch-lightning", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _gpu_bytes() -> int:
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


def _host_bytes() -> int:
    """Peak of this process; what `getrusage` tells begins with that of its parent."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


@rank_zero_only  # other machines need no such folder
def _check_collected(path: Path) -> None:
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise ConfigError(f"training.prometheus {path}: give a file named .prom in a folder that is there")
