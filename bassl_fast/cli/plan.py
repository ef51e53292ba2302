"""`bassl-fast plan`: what a run will need of disk, cache, network, memory, time and money, before it is started.

Every figure is a count times a unit cost that somebody measured (`benchmarks/costs.py`), which is named beside it. What
nobody measured is not guessed: its line says how to measure it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from pipelines.plan import Plan, Pools, process_slice
from pipelines.rng import check_seed
from pipelines.simulate import simulate as replay
from pipelines.store import MAPPED
from shard_tools.errors import ConfigError
from shard_tools.shards.format import FRAME, SHOT
from shard_tools.storage.untrusted import one_line, parse_json

COSTS = Path(__file__).with_name("costs.json")
_SIZE = 224  # side of a view in pixels, in bfloat16


@dataclass(frozen=True)
class Cost:
    """What a unit of work takes, where and when that was measured, and by which command."""

    value: float
    unit: str
    machine: str
    date: str
    command: str


class Costs:
    """Unit costs by name, of a file that `benchmarks/costs.py` wrote.

    Raises:
        ConfigError: it cannot be read, or is of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.used: dict[str, Cost] = {}
        try:
            found = parse_json(path.read_text(encoding="utf-8"))
            self._known = {name: Cost(**cost) for name, cost in found.items()}
            for name, cost in self._known.items():
                if not 0 < float(cost.value) < float("inf"):
                    raise ValueError(f"{name}: {cost.value} is no cost")
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; make it by `python -m benchmarks.costs`") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: no costs ({one_line(error)}); make it by `python -m benchmarks.costs`"
            ) from None

    def get(self, name: str) -> float | None:
        """A cost, noted as used; None if nobody measured it."""
        if name not in self._known:
            return None
        self.used[name] = self._known[name]
        return float(self._known[name].value)


def plan(
    films: int = 1100,
    shots: int = 1500,
    keyframes: int = 3,
    gpus: int = 8,
    gpu: str = "h200",
    gpus_per_node: int = 8,
    cores: int = 16,
    encoder: str = "resnet50",
    global_batch: int = 256,
    views: int = 19,
    epochs: int = 10,
    pool: int | None = None,
    source: Literal["disk", "s3"] = "disk",
    cache_gib: float = 256.0,
    memory_gib: float = 0.0,
    price: float | None = None,
    costs: str = str(COSTS),
    simulate: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Print what a run needs, by which resource it is bound, and what it costs.

    Args:
        films: how many.
        shots: of a film, on average.
        keyframes: of a shot.
        gpus: processes of the run, a GPU each.
        gpu: what the costs file calls them ("h200", "a100"; "cpu" for none).
        gpus_per_node: GPUs of a machine.
        cores: of each process, where `gpu` is "cpu".
        encoder: what the costs file calls it.
        global_batch: windows a step, over all processes.
        views: pictures a window; 19 with BaSSL of radius 8.
        epochs: passes over all shots.
        pool: films that are shuffled with each other, see `pretrain --data.pool`; all if left out.
        source: where the shards stand: on the disk of each machine, or behind s3:// and a cache.
        cache_gib: of a machine, as $BASSL_FAST_CACHE_GIB.
        memory_gib: of a machine that its kernel may keep shards in, which are then not read from the disk again.
        price: of a GPU for an hour, in any currency.
        costs: JSON file of unit costs; those of the machine that the README's figures are from if left out.
        simulate: also go through an epoch, film by film, and count what each machine fetches.
        seed: of films and order in the simulation.

    Raises:
        ConfigError: a number out of range, a batch that does not divide, or a costs file that is none.
    """
    for name, value in {
        "films": films, "shots": shots, "keyframes": keyframes, "gpus": gpus, "gpus_per_node": gpus_per_node,
        "cores": cores, "views": views, "epochs": epochs, "pool": 1 if pool is None else pool,
    }.items():  # fmt: skip
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    if gpus > gpus_per_node and gpus % gpus_per_node:
        raise ConfigError(f"gpus {gpus}: do not divide among machines of {gpus_per_node}; mend --gpus-per-node")
    if cache_gib <= 0 or memory_gib < 0 or (price or 0) < 0:
        raise ConfigError("cache_gib, memory_gib, price: a cache holds something, and none of them is negative")
    check_seed(seed)
    known, samples = Costs(Path(costs)), films * shots
    if global_batch > samples:
        raise ConfigError(f"global_batch {global_batch}: there are {samples} samples; choose fewer")
    order = Plan(samples, global_batch, seed)
    share = len(range(*process_slice(global_batch, 0, gpus).indices(global_batch)))
    machines, size = -(-gpus // gpus_per_node), known.get("key-frame")
    total = None if size is None else size * samples * keyframes
    fetched = total and _fetched(total, films, samples, machines, pool, cache_gib * 2**30)

    print(f"films     {films:,} of {shots:,} shots: {samples:,} shots, {samples * keyframes:,} key-frames")
    print(
        f"steps     {order.steps:,} an epoch of {global_batch:,} windows, {share:,} a GPU; {order.padding:,} windows "
        "come twice to fill the last"
    )
    index = samples * (keyframes * FRAME.itemsize + SHOT.itemsize)
    print(f"disk      {_bytes(total)} of shards" + _unknown(total, "loader") + f", {_bytes(index)} of index")
    if source == "s3":
        need = total if pool is None or total is None else min(total, 2 * pool * total / films)
        holds = "" if need is None else "fits" if need <= cache_gib * 2**30 else "does not fit: shards come again"
        print(f"cache     {_bytes(need)} a machine for {pool or 'all'} films at a time; {cache_gib:g} GiB: {holds}")
        print(f"network   {_bytes(fetched)} a machine and epoch, {_bytes(fetched and fetched * machines)} over all")
    batch = share * views * 3 * _SIZE**2 * 2
    process = known.get("process")
    need = None if process is None else min(gpus, gpus_per_node) * (process + 3 * batch)
    print(f"memory    {_bytes(need)} a machine" + _unknown(need, "scale") + f"; a batch of views {_bytes(batch)} a GPU")
    print(f"files     {min(pool or films, films, MAPPED):,} shards open in a process")
    pack = known.get("pack")
    packing = None if pack is None or total is None else total / pack
    print(f"pack      {_time(packing)}" + _unknown(packing, "pack"))

    per_gpu = order.steps * share * views  # views an epoch
    if gpu == "cpu":  # costs of a core
        core, work = known.get("views cpu-core"), known.get(f"train {encoder} cpu-core")
        rate, train, makers = core and core * cores, work and work / cores, f"{cores} cores"
    else:
        rate, train, makers = known.get(f"views {gpu}"), known.get(f"train {encoder} {gpu}"), "the GPU"
    disk, s3 = known.get("read disk"), known.get("fetch s3")
    kept = min(1.0, memory_gib * 2**30 / total) if total else 0.0
    resources = {
        "views": (rate and per_gpu / rate, "loader" if gpu == "cpu" else "gpu", f"made by {makers} of each process"),
        "training": (train and per_gpu * train, "step" if gpu == "cpu" else "gpu", f"{encoder} on {gpus} x {gpu}"),
        "reading": (
            disk and per_gpu * min(gpus, gpus_per_node) * (1 - kept) / disk,
            "scale",
            f"{100 * kept:.0f} % of the shards in memory",
        ),
    }
    if source == "s3":
        resources["network"] = (s3 and fetched and fetched / s3, "pack", "as fast as the S3 server that was measured")
    print(f"an epoch, if nothing else held it up ({epochs} epochs):")
    for name, (seconds, benchmark, what) in resources.items():
        whole = "" if seconds is None else f" ({_time(seconds * epochs)})"
        print(f"  {name:10s}{_time(seconds)}{whole}" + (_unknown(seconds, benchmark) or f", {what}"))
    times = {name: seconds for name, (seconds, *_) in resources.items() if seconds is not None}
    unknown = sorted(resources.keys() - times.keys())
    first = max(times, key=times.__getitem__, default=None)
    but = f", as far as is known: {', '.join(unknown)} may bind before" if unknown else ""
    print(f"binds     {first or 'unknown'}{but}")
    hours = None if first is None else times[first] * epochs / 3600
    if price is not None:
        least = "at least " if unknown else ""
        print(f"cost      {'unknown' if hours is None else f'{least}{hours * gpus * price:,.2f}'}, {gpus} GPUs "
              f"for {'unknown' if hours is None else f'{hours:,.1f} h'} at {price:g} an hour")  # fmt: skip
    print("by        " + "\n          ".join(
        f"{name}: {cost.value:.6g} {cost.unit} ({cost.machine}, {cost.date}, {cost.command})"
        for name, cost in known.used.items()
    ) if known.used else "by        no cost that is known")  # fmt: skip
    found = {"steps": order.steps, "bytes": total, "fetched": fetched, "seconds": times, "unknown": unknown}
    found |= {"binds": first, "hours": hours, "cost": None if price is None or hours is None else hours * gpus * price}
    if simulate:
        _simulate(order, films, shots, total or float(samples), pool, gpus, machines, cache_gib * 2**30)
    return found


def _fetched(total: float, films: int, samples: int, machines: int, pool: int | None, cache: float) -> float:
    """Bytes that a machine fetches in an epoch after the first."""
    if total <= cache:
        return 0.0
    if pool is not None and 2 * pool * total / films <= cache:
        return total
    # Any film may be next: it is there with the probability of the part that the cache holds.
    return samples / machines * (1 - cache / total) * total / films


def film_lengths(films: int, shots: int, seed: int) -> np.ndarray:
    """Shots of every film `[F]`, `shots` on average, log-normal as those of MovieNet are."""
    lengths = np.random.default_rng(seed).lognormal(0, 0.4, films)
    ends = np.round(np.cumsum(lengths) / lengths.sum() * (films * shots - films)).astype(np.int64)
    return 1 + np.diff(ends, prepend=0)


def _simulate(
    order: Plan, films: int, shots: int, total: float, pool: int | None, gpus: int, machines: int, cache: float
) -> None:
    counts = film_lengths(films, shots, order.seed)
    sizes = np.ceil(total / order.samples * counts).astype(np.int64)
    replayed = Plan(order.samples, order.global_batch, order.seed, None if pool is None else Pools(counts, pool))
    with tqdm(total=order.steps, desc="simulate", unit="step", disable=None) as bar:
        found = replay(replayed, counts, sizes, gpus, machines, cache, progress=bar.update)
    if not found.distinct == found.samples == order.samples:
        raise AssertionError(f"{found.samples} samples handed out, {found.distinct} different, of {order.samples}")
    least, most = found.fetched.min() / sizes.sum(), found.fetched.max() / sizes.sum()
    print(
        f"simulated {found.samples:,} windows handed out to {gpus} processes, {found.share:,} a step each, every one "
        f"once, {found.padding:,} more to fill the last step\n"
        f"          {machines} machines with {_bytes(cache)} of cache: {found.films:,.0f} films a step, "
        f"{100 * found.hits / found.asked:.1f} % of them there, {least:.2f} to {most:.2f} of the set fetched"
    )


def _unknown(value: float | None, benchmark: str) -> str:
    if value is not None:
        return ""
    return f": measure with `python -m benchmarks.{benchmark}`, gather with `python -m benchmarks.costs`, give --costs"


def _bytes(value: float | None) -> str:
    if value is None:
        return "unknown"
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value / 1000:.3g} kB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.3g} s"
