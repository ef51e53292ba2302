"""`bassl-fast plan`: the disk, cache, network, memory, time and money a run needs, before it is started.

Every figure is a count times a measured unit cost (`benchmarks/costs.py`), which is printed with its source. An
unmeasured cost is not guessed: its line says how to measure it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from pipelines.plan import Plan, Pools, process_slice
from pipelines.rng import check_seed
from pipelines.simulate import simulate as replay
from pipelines.store import MAPPED
from shard_tools.errors import ConfigError
from shard_tools.shards.format import FRAME, SHOT

from .unit_costs import COSTS, Costs, in_bytes, in_time, unknown

_SIZE = 224  # side of a view in pixels, in bfloat16
_GIB = 2**30
GPUS = ("v100", "t4", "a10", "a40", "a100", "l4", "l40s", "h100", "h200", "b200", "4090")  # besides those measured


def plan(
    films: int = 1100,
    shots: int = 1500,
    keyframes: int = 3,
    keyframe_kb: float | None = None,
    gpus: int = 8,
    gpu: str = "h200",
    gpus_per_node: int = 8,
    cores: int = 16,
    views_on: Literal["cpu", "gpu", "triton"] = "gpu",
    encoder: str = "resnet50",
    global_batch: int = 256,
    views: int = 19,
    epochs: int = 10,
    pool: int | None = None,
    source: Literal["disk", "s3"] = "disk",
    cache_gib: float = 256.0,
    memory_gib: float = 0.0,
    price: float | None = None,
    costs: str | None = None,
    simulate: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Print what a run needs, which resource limits it, and what it costs.

    Args:
        films: number of films.
        shots: shots per film, on average.
        keyframes: key-frames per shot.
        keyframe_kb: size of a key-frame's JPEG in kB, on average; MovieNet's are about 33. If left out, that of the
            costs file.
        gpus: processes of the run, one GPU each.
        gpu: name of the GPU, such as "h200" or "a100", or "cpu"; its rates are those of the costs file.
        gpus_per_node: GPUs per machine.
        cores: cores per process, which train if `gpu` is "cpu", and make views if `views_on` is.
        views_on: where views are made for a GPU, as `pretrain --data.views`.
        encoder: name of the encoder in the costs file.
        global_batch: windows per step, over all processes.
        views: views per window; 19 for BaSSL with radius 8.
        epochs: passes over all shots.
        pool: number of films shuffled together, see `pretrain --data.pool`; all if left out.
        source: where the shards are: on the disk of each machine, or on S3 behind a cache.
        cache_gib: cache per machine, as in $BASSL_FAST_CACHE_GIB.
        memory_gib: memory per machine that can hold shards, which are then read from disk only once.
        price: per GPU hour, in any currency.
        costs: JSON file of unit costs from `python -m benchmarks.costs`; if left out, those that come with bassl-fast.
        simulate: also replay one epoch film by film and count what each machine fetches.
        seed: of film lengths and order in the simulation.

    Raises:
        ConfigError: a number out of range, an unknown GPU, GPUs that do not divide among machines, or a wrong file of
            costs.
    """
    counts = {"films": films, "shots": shots, "keyframes": keyframes, "gpus": gpus, "gpus_per_node": gpus_per_node}
    counts |= {"cores": cores, "views": views, "epochs": epochs, "pool": 1 if pool is None else pool}
    _check(counts, gpus, gpus_per_node, cache_gib, memory_gib, price)
    if keyframe_kb is not None and not keyframe_kb > 0:
        raise ConfigError(f"keyframe_kb {keyframe_kb:g}: must be positive")
    check_seed(seed)
    known, samples = Costs(COSTS if costs is None else Path(costs)), films * shots
    if gpu not in (names := (*GPUS, *sorted(known.gpus() - set(GPUS)), "cpu")):
        raise ConfigError(f"gpu '{gpu}': unknown; choose one of {', '.join(names)}, or measure it and give --costs")
    if global_batch > samples:
        raise ConfigError(f"global_batch {global_batch}: there are only {samples} samples; choose at most {samples}")
    order = Plan(samples, global_batch, seed)
    share = len(range(*process_slice(global_batch, 0, gpus).indices(global_batch)))
    measured = known.get("key-frame")
    size = measured if keyframe_kb is None else 1000 * keyframe_kb
    total = None if size is None else size * samples * keyframes
    larger = size / measured if size and measured else 1.0
    cache = cache_gib * _GIB
    run = _Run(films, shots, keyframes, gpus, gpus_per_node, order, share, share * views, pool, total, larger, cache)
    for line in [*_work(run), *_storage(run, source == "s3"), *_memory(run, known)]:
        print(line)
    resources = _resources(run, known, gpu, cores, views_on, encoder, memory_gib * _GIB, source == "s3")
    limits = _print_limits(resources, epochs, gpus, price)
    print("costs     " + ("\n          ".join(map(str, known.used.values())) or "none is known"))
    if simulate:
        _simulate(run, total or float(samples))
    return {"steps": order.steps, "bytes": total, "fetched": run.fetched, **limits}


def _print_limits(resources: dict[str, _Resource], epochs: int, gpus: int, price: float | None) -> dict[str, Any]:
    """Print the time each resource takes, which one limits the run, and what the run costs; return the same."""
    print(f"time of one epoch (of all {epochs} epochs) if this resource alone limited it:")
    for name, resource in resources.items():
        print(f"  {name:10s}{resource.line(epochs)}")
    times = {name: resource.seconds for name, resource in resources.items() if resource.seconds is not None}
    missing = sorted(resources.keys() - times.keys())
    limit = max(times, key=times.__getitem__, default=None)
    but = f"; unknown: {', '.join(missing)}" if missing else ""
    print(f"limit     {limit or 'unknown'}{but}")
    hours = None if limit is None else times[limit] * epochs / 3600
    cost = None if price is None or hours is None else hours * gpus * price
    if price is not None:
        amount = "unknown" if cost is None else f"{'at least ' if missing else ''}{cost:,.2f}"
        length = "unknown" if hours is None else f"{hours:,.1f} h"
        print(f"cost      {amount}, {gpus} GPUs for {length} at {price:g} per hour")
    return {"seconds": times, "unknown": missing, "limit": limit, "hours": hours, "cost": cost}


def _check(
    counts: dict[str, int], gpus: int, per_node: int, cache_gib: float, memory_gib: float, price: float | None
) -> None:
    """Raises: ConfigError for a number out of range."""
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    if gpus > per_node and gpus % per_node:
        raise ConfigError(f"gpus {gpus}: do not divide among machines of {per_node}; change --gpus_per_node")
    if cache_gib <= 0 or memory_gib < 0 or (price or 0) < 0:
        raise ConfigError("cache_gib must be positive; memory_gib and price must not be negative")


@dataclass(frozen=True)
class _Run:
    """The counts of a run. `share` and `views` are per step of one process; sizes are in bytes.

    A key-frame is `larger` times the size of those by which reading was measured.
    """

    films: int
    shots: int
    keyframes: int
    gpus: int
    gpus_per_node: int
    order: Plan
    share: int
    views: int
    pool: int | None
    total: float | None
    larger: float
    cache: float

    @property
    def machines(self) -> int:
        return -(-self.gpus // self.gpus_per_node)

    @property
    def local(self) -> int:
        """Processes per machine."""
        return min(self.gpus, self.gpus_per_node)

    @property
    def fetched(self) -> float | None:
        """Bytes a machine fetches per epoch, after the first."""
        if self.total is None:
            return None
        if self.total <= self.cache:
            return 0.0
        if self.pool is not None and 2 * self.pool * self.total / self.films <= self.cache:
            return self.total
        # Any film may be next: the chance that it is cached is the fraction of the set that the cache holds.
        per_film = self.total / self.films
        return self.order.samples / self.machines * (1 - self.cache / self.total) * per_film


class _Resource(NamedTuple):
    """Seconds per epoch (None: unknown), the benchmark that measures them, and a remark."""

    seconds: float | None
    benchmark: str
    remark: str

    def line(self, epochs: int) -> str:
        whole = "" if self.seconds is None else f" ({in_time(self.seconds * epochs)})"
        return f"{in_time(self.seconds)}{whole}" + (unknown(self.seconds, self.benchmark) or f", {self.remark}")


def _work(run: _Run) -> list[str]:
    order, frames = run.order, run.order.samples * run.keyframes
    return [
        f"films     {run.films:,} of {run.shots:,} shots: {order.samples:,} shots, {frames:,} key-frames",
        f"steps     {order.steps:,} per epoch of {order.global_batch:,} windows, {run.share:,} per GPU; "
        f"{order.padding:,} windows are used twice to fill the last step",
    ]


def _storage(run: _Run, remote: bool) -> list[str]:
    index = run.order.samples * (run.keyframes * FRAME.itemsize + SHOT.itemsize)
    lines = [f"disk      {in_bytes(run.total)} of shards{unknown(run.total, 'loader')}, {in_bytes(index)} of index"]
    if remote:
        total = run.total
        need = total if run.pool is None or total is None else min(total, 2 * run.pool * total / run.films)
        fits = "" if need is None else "fits" if need <= run.cache else "does not fit: shards are fetched again"
        films = run.pool or "all"
        lines.append(
            f"cache     {in_bytes(need)} per machine for {films} films at a time; {run.cache / _GIB:g} GiB: {fits}"
        )
        overall = run.fetched and run.fetched * run.machines
        lines.append(f"network   {in_bytes(run.fetched)} per machine and epoch, {in_bytes(overall)} in all")
    return lines


def _memory(run: _Run, known: Costs) -> list[str]:
    batch = run.views * 3 * _SIZE**2 * 2
    process, pack = known.get("process"), known.get("pack")
    need = None if process is None else run.local * (process + 3 * batch)
    packing = None if pack is None or run.total is None else run.total / pack
    return [
        f"memory    {in_bytes(need)} per machine{unknown(need, 'scale')}; a batch of views {in_bytes(batch)} per GPU",
        f"files     {min(run.pool or run.films, run.films, MAPPED):,} shards open per process",
        f"pack      {in_time(packing)}{unknown(packing, 'pack')}",
    ]


def _resources(
    run: _Run, known: Costs, gpu: str, cores: int, views_on: str, encoder: str, memory: float, remote: bool
) -> dict[str, _Resource]:
    """What an epoch takes of each resource."""
    per_gpu = run.order.steps * run.views  # views per epoch
    if gpu == "cpu" or views_on == "cpu":  # costs are per core
        core = known.get("views cpu-core")
        rate, makers, loader = core and core * cores, f"{cores} cores", "loader"
    else:
        by = "triton-views" if views_on == "triton" else "views"
        rate, makers, loader = known.get(f"{by} {gpu}"), "the GPU", "gpu"
    if gpu == "cpu":
        work = known.get(f"train {encoder} cpu-core")
        train, step = work and work / cores, "step"
    else:
        train, step = known.get(f"train {encoder} {gpu}"), "gpu"
    disk, s3 = known.get("read disk"), known.get("fetch s3")
    kept = min(1.0, memory / run.total) if run.total else 0.0
    reading = disk and run.larger * per_gpu * run.local * (1 - kept) / disk
    resources = {
        "views": _Resource(rate and per_gpu / rate, loader, f"made by {makers} of each process"),
        "training": _Resource(train and per_gpu * train, step, f"{encoder} on {run.gpus} x {gpu}"),
        "reading": _Resource(reading, "scale", f"{100 * kept:.0f} % of the shards in memory"),
    }
    if remote:
        seconds = s3 and run.fetched and run.fetched / s3
        resources["network"] = _Resource(seconds, "pack", "at the speed of the measured S3 server")
    return resources


def film_lengths(films: int, shots: int, seed: int) -> np.ndarray:
    """Shots `[F]` int64 of every film, `shots` on average, log-normal as in MovieNet."""
    lengths = np.random.default_rng(seed).lognormal(0, 0.4, films)
    ends = np.round(np.cumsum(lengths) / lengths.sum() * (films * shots - films)).astype(np.int64)
    return 1 + np.diff(ends, prepend=0)


def _simulate(run: _Run, total: float) -> None:
    """Replay an epoch and print what is handed out and fetched."""
    order, counts = run.order, film_lengths(run.films, run.shots, run.order.seed)
    sizes = np.ceil(total / order.samples * counts).astype(np.int64)
    pools = None if run.pool is None else Pools(counts, run.pool)
    with tqdm(total=order.steps, desc="simulate", unit="step", disable=None) as bar:
        replayed = Plan(order.samples, order.global_batch, order.seed, pools)
        found = replay(replayed, counts, sizes, run.gpus, run.machines, run.cache, progress=bar.update)
    if not found.distinct == found.samples == order.samples:
        raise AssertionError(f"{found.samples} samples handed out, {found.distinct} different, of {order.samples}")
    least, most = found.fetched.min() / sizes.sum(), found.fetched.max() / sizes.sum()
    print(
        f"simulated {found.samples:,} windows for {run.gpus} processes, {found.share:,} per step each, every one once, "
        f"{found.padding:,} again to fill the last step\n"
        f"          {run.machines} machines with {in_bytes(run.cache)} of cache: {found.films:,.0f} films per step, "
        f"{100 * found.hits / found.asked:.1f} % of them in the cache, {least:.2f} to {most:.2f} of the set fetched"
    )
