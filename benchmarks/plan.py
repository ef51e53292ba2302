"""The plan of a run too large to try: 10^8 shots of 100,000 films, 256 GPUs on 32 machines.

Every step is assigned to every process by the code that training uses, see `pipelines/simulate.py`. Is every sample
used exactly once, do processes get equal shares, and how much must a machine fetch if its cache holds two pools? Time
and memory are of one core.

    python -m benchmarks.plan --out benchmarks/results/plan.json          a minute
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bassl_fast.cli.plan import film_lengths
from pipelines.plan import Plan, Pools
from pipelines.simulate import simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--shots", type=int, default=1000, help="a film on average (%(default)s)")
    parser.add_argument("--gpus", type=int, default=256, help="(%(default)s)")
    parser.add_argument("--gpus-per-node", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--global-batch", type=int, default=8192, help="samples a step (%(default)s)")
    parser.add_argument("--keyframe-bytes", type=int, default=15_000, help="(%(default)s)")
    parser.add_argument("--pools", type=int, nargs="+", default=[256], help="films a pool (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    shots = film_lengths(args.films, args.shots, seed=0)
    sizes, machines = 3 * args.keyframe_bytes * shots, args.gpus // args.gpus_per_node
    results = []
    for pool in args.pools:
        plan = Plan(int(shots.sum()), args.global_batch, 0, Pools(shots, pool))
        cache = 2.0 * pool * sizes.mean()
        started = time.process_time()
        with tqdm(total=plan.steps, desc=f"pools of {pool} films", unit="step", disable=None) as bar:
            found = simulate(plan, shots, sizes, args.gpus, machines, cache, progress=bar.update)
        results.append({
            "pool": pool,
            "cache_gb_a_machine": cache / 1e9,
            **{name: value for name, value in found._asdict().items() if name != "fetched"},
            "every_sample_once": found.distinct == found.samples == plan.samples,
            "fetched_a_machine_of_the_set": [float(f(found.fetched) / sizes.sum()) for f in (np.min, np.mean, np.max)],
            "cpu_s": time.process_time() - started,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        })  # fmt: skip
        print(json.dumps(results[-1]), flush=True)
    if args.out:
        from benchmarks.machine import machine

        settings = {name: value for name, value in vars(args).items() if name != "out"}
        report = {"benchmark": "plan", "settings": settings, "machine": machine(), "set_tb": float(sizes.sum() / 1e12)}
        args.out.write_text(json.dumps({**report, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
