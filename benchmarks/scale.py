"""What grows with the number of films, and what a loader needs from disk and network.

    films     a loader over 10, 100, 1,000 and 10,000 films: seconds to open and to the first batch, windows/s, memory
              of the process, open files and threads. The films are links to one real shard.
    order     the samples of a batch out of 1.6 M, 15 M and 100 M: milliseconds, and bytes of memory
    pools     films in a batch, GB on disk and GB fetched, for pools of 8 films up to all: 1,100 films, 160 GB and 1.6 M
              shots as in MovieNet, log-normal film lengths
    cold      2,000 key-frames that are not in the page cache: seconds, and bytes read from the disk for each byte asked
              for, by a store and by plain memory maps
    python    milliseconds of a step for plan, sampler, bytes and inputs, for 256 windows and for 32 of them, which the
              loader's thread takes; and those that the trainer's own thread takes for `next` (bar: 2 ms)

Each loader runs in its own process; the sizes take turns, round by round.

    python -m benchmarks.scale                   about five minutes on 2 cores
    python -m benchmarks.scale --out benchmarks/results/scale.json --plot docs/scale.svg
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import plots
from pipelines import graph
from pipelines.loader import WindowLoader
from pipelines.plan import Plan, Pools
from pipelines.store import Store
from shard_tools.packing.pack import pack
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.synthetic import draw_films

SIZE, BATCH = 224, 16


def multiply(index: ShardIndex, root: Path, films: int) -> Path:
    """A set of `films` films that are all links to the one film of `index`."""
    root.mkdir()
    names = [f"tt{n:07d}".encode() for n in range(films)]
    one, (shard,) = index.sequences[0], index.shards
    sequences = np.zeros(films, fmt.sequence_dtype(names))
    for name in ("split", "shots", "frames_per_shot", "height", "width"):
        sequences[name] = one[name]
    sequences["name"], sequences["shard"] = names, np.arange(films)
    sequences["first_frame"], sequences["first_shot"] = (
        np.arange(films) * len(rows) for rows in (index.frames, index.shots)
    )
    arrays = {
        fmt.FRAMES: np.tile(index.frames[:], films),
        fmt.SEQUENCES: sequences,
        fmt.SHOTS: np.tile(index.shots, films),
    }
    facts = {}
    for name, array in arrays.items():
        data = fmt.npy_bytes(array)
        (root / name).write_bytes(data)
        facts[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    shards = [{**shard, "name": f"{name.decode()}.tar"} for name in names]
    for each in shards:
        os.link(index.root / shard["name"], root / each["name"])
    manifest = {"version": fmt.VERSION, "kind": fmt.FILMS, "index": facts, "shards": shards}
    (root / fmt.MANIFEST).write_text(json.dumps(manifest))
    return root


# --- films ---


def memory() -> int:
    """Bytes of memory of this process, without mapped files, which the kernel can reclaim."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def use(root: str, steps: int, threads: int) -> dict[str, float]:
    """Open the set at `root` and run some steps of a loader; call it in its own process."""
    from bassl_fast.methods import BaSSL  # here, so that its import is not timed

    method = BaSSL(8, hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8)
    before, started = memory(), time.perf_counter()
    index = ShardIndex.open(root)
    opened = time.perf_counter()
    loader = WindowLoader(index, index.select(None), method.sample, SIZE, global_batch=BATCH, threads=threads)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter()
    for _ in range(steps):
        next(batches)["images"][-1, -1, -1, -1, -1].item()
    seconds = time.perf_counter() - first
    return {
        "open_s": opened - started,
        "first_batch_s": first - opened,
        "windows_per_s": steps * BATCH / seconds,
        "memory_mb": (memory() - before) / 1e6,
        "open_files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def growth(roots: dict[int, Path], rounds: int, steps: int, threads: int) -> dict[int, dict[str, float]]:
    """Medians of `use` by number of films."""
    found: dict[int, list[dict]] = {films: [] for films in roots}
    for _ in range(rounds):
        for films, root in roots.items():
            command = [
                sys.executable,
                "-m",
                "benchmarks.scale",
                "--use",
                root,
                f"--steps={steps}",
                f"--threads={threads}",
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[films].append(json.loads(done.stdout.splitlines()[-1]))
    return {films: {name: median(run[name] for run in runs) for name in runs[0]} for films, runs in found.items()}


# --- order ---


def ordering(samples: int) -> dict[str, float]:
    """Milliseconds and memory of a batch of 256 out of `samples`."""
    plan = Plan(samples, 256)
    tracemalloc.start()
    plan.batch(0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"ms": milliseconds(lambda: plan.batch(1, plan.steps // 2)), "peak_kb": peak / 1e3}


def milliseconds(action: Callable[[], object], times: int = 15) -> float:
    """Median CPU time."""
    action()
    spent = []
    for _ in range(times):
        started = time.process_time()
        action()
        spent.append(time.process_time() - started)
    return 1e3 * median(spent)


# --- pools ---


def mixing(plan: Plan, shots: np.ndarray, steps: int = 100) -> float:
    """Films in a batch, on average."""
    ends = np.cumsum(shots)
    chosen = np.linspace(0, plan.steps - 2, steps).astype(int).tolist()
    return float(np.mean([len(np.unique(np.searchsorted(ends, plan.batch(0, step), "right"))) for step in chosen]))


def pooling(films: int = 1100, samples: int = 1_600_000, gb: float = 160, batch: int = 256) -> dict[str, dict]:
    """By pool size: films in a batch; GB of two pools; GB fetched an epoch if only those are kept."""
    lengths = np.random.default_rng(0).lognormal(0, 0.4, films)
    shots = np.maximum(1, (lengths / lengths.sum() * samples).astype(np.int64))
    found = {}
    for size in (8, 16, 32, 64, 128, 256, None):
        pools = Pools(shots, size or films * 2)
        plan = Plan(int(shots.sum()), batch, pools=pools)
        kept = 1.0 if size is None else min(1.0, 2 / pools.count)
        fetched = gb * (len(pools._parts[0]) / films if pools.count > 1 else 1)
        found[str(size or "all")] = {
            "films_a_batch": mixing(plan, shots),
            "gb_on_disk": gb * kept,
            "gb_fetched_an_epoch": fetched,
            "mb_per_1000_windows": 1e6 * fetched / plan.samples,
        }
    return found


# --- cold ---


def disk_bytes() -> int:
    return int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "read_bytes" in line).split()[1])


def cold(index: ShardIndex, root: Path, rounds: int, copies: int = 60, frames: int = 2000) -> dict[str, dict]:
    """Seconds and bytes read, for frames spread over copies of the shard that are dropped from the page cache."""
    root = multiply(index, root, copies)
    for path in root.glob("*.tar"):  # real copies, as links share their pages
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    os.sync()
    many = ShardIndex.open(root)
    rng, found = np.random.default_rng(0), {"store": [], "plain maps": []}
    for _ in range(rounds):
        for name, runs in found.items():
            rows = np.sort(rng.choice(len(many.frames), frames, replace=False))
            wanted = many.frames[rows]
            for path in root.glob("*.tar"):
                with open(path) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            store = Store(many)
            maps = {path.name: np.memmap(path, np.uint8, mode="r") for path in root.glob("*.tar")}
            shards = many.sequences["shard"][store.films_of(rows)].tolist()
            disk, started = disk_bytes(), time.perf_counter()
            if name == "store":
                store.read(rows)
            else:
                where = zip(shards, wanted["offset"].tolist(), wanted["size"].tolist(), strict=True)
                for shard, start, size in where:
                    maps[many.shards[shard]["name"]][start : start + size].sum()
            seconds = time.perf_counter() - started
            runs.append((seconds, (disk_bytes() - disk) / int(wanted["size"].sum())))
    return {
        name: {"s": median(s for s, _ in runs), "read_for_asked": median(ratio for _, ratio in runs)}
        for name, runs in found.items()
    }


# --- python ---


def python_side(index: ShardIndex, batch: int = 256, processes: int = 8) -> dict[str, dict[str, float]]:
    """Milliseconds a step by part, for one process alone and for one of several."""
    from bassl_fast.methods import BaSSL

    method = BaSSL(8, hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8)
    found = {}
    for world_size in (1, processes):
        loader = WindowLoader(index, index.select(None), method.sample, SIZE, global_batch=batch, world_size=world_size)
        rows = loader.draw(0, 0)[1].views[: batch // world_size].ravel()
        store, (_, inputs) = Store(index), graph.train_path(SIZE)
        jpegs = store.read(rows["frame"])
        parts = {
            "draw": milliseconds(lambda: loader.draw(0, 1)),  # noqa: B023
            "read": milliseconds(lambda: store.read(rows["frame"])),  # noqa: B023
            "inputs": milliseconds(lambda: inputs(rows, jpegs)),  # noqa: B023
        }
        of_trainer = next_milliseconds(index, method, batch, world_size)
        found[f"{batch // world_size} of {batch} windows"] = {
            **parts,
            "all": sum(parts.values()),
            "next, trainer's thread": of_trainer,
        }
    return found


def next_milliseconds(index: ShardIndex, method: Any, batch: int, world_size: int, steps: int = 3) -> float:
    """Median CPU time of the calling thread for the next batch; of small views, as their pixels are not its work."""
    loader = WindowLoader(index, index.select(None), method.sample, 32, global_batch=batch, world_size=world_size)
    batches, spent = itertools.chain.from_iterable(itertools.repeat(loader)), []
    for _ in range(steps + 1):
        started = time.thread_time()
        next(batches)
        spent.append(time.thread_time() - started)
    return 1e3 * median(spent[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, nargs="+", default=[10, 100, 1000, 10_000], help="(%(default)s)")
    parser.add_argument("--shots", type=int, default=150, help="shots a film (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help=f"steps of {BATCH} windows a round (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of DALI (%(default)s)")
    parser.add_argument("--windows", type=int, default=256, help="windows a step of the table python (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--plot", type=Path, help="draw the figures by number of films, as SVG")
    parser.add_argument("--use", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.use:
        print(json.dumps(use(args.use, args.steps, args.threads)))
        return
    result: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_films(root / "film", films=1, shots=args.shots, test=0)
        pack(root / "film", root / "one", quiet=True)
        index = ShardIndex.open(root / "one")
        roots = {films: multiply(index, root / str(films), films) for films in args.films}
        result["films"] = growth(roots, args.rounds, args.steps, args.threads)
        result["order"] = {str(samples): ordering(samples) for samples in (1_600_000, 15_000_000, 100_000_000)}
        result["pools"] = pooling()
        result["cold"] = cold(index, root / "cold", args.rounds)
        result["python"] = python_side(ShardIndex.open(roots[min(1000, max(args.films))]), args.windows)
    for table, rows in result.items():
        print(f"{table:28s}" + "".join(f"{name:>21s}" for name in next(iter(rows.values()))))
        for row, figures in rows.items():
            print(f"{row!s:>28s}" + "".join(f"{figure:21.4g}" for figure in figures.values()))
    if args.plot:
        plots.draw({"benchmark": "scale", "films": result["films"]}, args.plot)
    if args.out:
        from benchmarks.machine import machine

        settings = {name: value for name, value in vars(args).items() if name not in ("out", "plot", "use")}
        report = {"benchmark": "scale", "settings": settings, "machine": machine(), **result}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
