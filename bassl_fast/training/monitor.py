"""Progress of a run, summed over all processes: its curves, a Prometheus file and `summary.json`."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from nvidia import dali
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pytorch_lightning.callbacks import Callback

from bassl_fast.runtime.distributed import gather_objects
from shard_tools.counters import counted
from shard_tools.errors import ConfigError, masked
from shard_tools.storage.atomic import write_atomically

from .module import Pretraining

_log = logging.getLogger(__name__)

SUMMARY = "summary.json"
# Reported while the run goes: name -> kind and help text in Prometheus.
_SHOWN = {
    "step": (CounterMetricFamily, "Optimiser steps in the weights."),
    "samples": (CounterMetricFamily, "Samples since this start."),
    "samples_per_second": (GaugeMetricFamily, "Samples a second since the last report, with saving and validation."),
    "data_wait": (GaugeMetricFamily, "Share of step time since this start spent waiting for data, 0 to 1."),
    "gpu_bytes": (GaugeMetricFamily, "Peak memory reserved by torch on one GPU."),
    "host_bytes": (GaugeMetricFamily, "Peak memory of one process."),
    "cache_hits": (CounterMetricFamily, "Remote shards found in the cache."),
    "cache_misses": (CounterMetricFamily, "Remote shards that were fetched."),
    "cache_bytes": (CounterMetricFamily, "Bytes fetched from remote storage."),
    "replaced_pictures": (CounterMetricFamily, "Views that show another key-frame because theirs is broken."),
    "retries": (CounterMetricFamily, "Requests to remote storage that were tried again."),
    "restarts": (CounterMetricFamily, "Times the run resumed from a checkpoint."),
}


class Watch(Callback):
    """Reports every so many steps, on all processes at once, and at the end.

    Args:
        run: path or address of the run, a label in Prometheus.
        global_batch: samples a step.
        steps: steps between two reports.
        restarts: of the run so far.
        prometheus: file for node_exporter's textfile collector, replaced atomically at every report.

    Raises:
        ConfigError: the collector would not read the file, or its folder is missing.
    """

    def __init__(self, run: str, global_batch: int, steps: int, restarts: int, prometheus: str | None) -> None:
        if prometheus is not None:
            _check_collected(Path(prometheus))
        self._run, self._batch, self._steps, self._prometheus = run, global_batch, steps, prometheus
        self._facts: dict[str, Any] = {"restarts": restarts}
        self._before = counted()
        self._waited = self._worked = 0.0

    def on_train_start(self, trainer: pl.Trainer, module: Pretraining) -> None:
        self._began = self._reported = time.monotonic()
        self._first = self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Pretraining, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not module.ends_step(batch_idx):
            return
        if trainer.global_step > self._first + 1:  # the first step opens the data
            self._waited, self._worked = self._waited + module.waited, self._worked + module.computed
        if trainer.global_step % self._steps == 0:
            self._report(trainer)
            for logger in trainer.loggers:
                shown = {f"watch/{name}": self._facts[name] for name in _SHOWN}
                logger.log_metrics(shown, step=trainer.global_step - 1)

    def on_train_end(self, trainer: pl.Trainer, module: Pretraining) -> None:
        self._report(trainer)

    def _report(self, trainer: pl.Trainer) -> None:
        """Sum the counters of all processes."""
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
            "samples_per_second": (step - self._seen) * self._batch / max(now - self._reported, 1e-9),
            "data_wait": sum(waited) / busy if busy else 0.0,
            "gpu_bytes": max(gpu),
            "host_bytes": max(host),
            **{name: sum(one[name] for one in counts) for name in mine},
            "world_size": trainer.world_size,
        }
        self._reported, self._seen = now, step
        if self._prometheus is not None and trainer.is_global_zero:
            try:
                write_atomically(Path(self._prometheus), exposition(self._facts, self._run))
            except OSError as error:  # no reason to stop training
                _log.warning("%s: %s; Prometheus keeps the old values", self._prometheus, error.strerror)

    def summary(self, how: str) -> dict[str, Any]:
        """The contents of `summary.json`; of a run that failed, as of its last report.

        Args:
            how: the way it ended.
        """
        facts = dict(self._facts)
        if "seconds" in facts:
            facts["samples_per_second"] = facts["samples"] / max(facts["seconds"], 1e-9)
        return {"ended": how, **facts, "versions": versions()}


class _Facts(Collector):
    """The facts of a run as Prometheus metrics."""

    def __init__(self, facts: dict[str, Any], run: str) -> None:
        self._facts, self._run = facts, run

    def collect(self) -> Iterator[Metric]:
        for name, (family, words) in _SHOWN.items():
            metric = family(f"bassl_fast_{name}", words, labels=["run"])
            metric.add_metric([self._run], self._facts[name])
            yield metric


def exposition(facts: dict[str, Any], run: str) -> bytes:
    """Facts of a run in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Facts(facts, masked(run)))
    return generate_latest(registry)


def write_summary(folder: Path, facts: dict[str, Any]) -> None:
    """Write `summary.json`."""
    write_atomically(folder / SUMMARY, (json.dumps(facts, indent=1) + "\n").encode())


def versions() -> dict[str, str | None]:
    """Versions of what computed it."""
    found = {"python": platform.python_version(), "dali": dali.__version__, "cuda": torch.version.cuda}
    for package in ("bassl-fast", "torch", "pytorch-lightning", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _gpu_bytes() -> int:
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


def _host_bytes() -> int:
    """Peak of this process; `getrusage` would start from its parent's."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10


@rank_zero_only  # other machines do not need the folder
def _check_collected(path: Path) -> None:
    if path.suffix != ".prom" or not path.parent.is_dir():
        raise ConfigError(f"training.prometheus {path}: give a .prom file in an existing folder")
