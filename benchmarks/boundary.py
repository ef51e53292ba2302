"""How much faster is the closed-form pseudo-boundary than dynamic time warping of one window after another?

All get the same embeddings of the same windows: two sparse shots and 17 dense ones, with cost 1 - cosine.
    tslearn     `dtw_path_from_metric` of one window after another (compiled code)
    tables      the same, but the costs of all windows are computed in one product before
    ours        `pseudo_boundary` of all windows at once
They take turns, round by round, on one thread. Before that, all three must find the same shot in every window.

    pip install tslearn
    python -m benchmarks.boundary --out benchmarks/results/boundary.json         a few seconds
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn.functional import normalize

from bassl_fast.methods.pseudo_boundary import pseudo_boundary
from benchmarks.machine import machine


def windows(batch: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings `[B, 2, 128]` and `[B, 17, 128]` of windows with two scenes and noise."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randn(batch, 2, 128, generator=generator)
    change = torch.randint(1, 17, (batch, 1), generator=generator)
    which = (torch.arange(17) >= change).long()
    dense = torch.gather(scenes, 1, which[..., None].expand(-1, -1, 128))
    dense = dense + torch.randn(batch, 17, 128, generator=generator)
    sparse = dense[:, [0, -1]] + 0.5 * torch.randn(batch, 2, 128, generator=generator)
    return normalize(sparse, dim=-1), normalize(dense, dim=-1)


def dtw_path(*args, **kwargs) -> list[tuple[int, int]]:
    try:
        from tslearn.metrics import dtw_path_from_metric
    except ImportError:
        raise SystemExit("tslearn, the peer, is not installed; pip install tslearn") from None
    return dtw_path_from_metric(*args, **kwargs)[0]


def last_of_first_row(path: list[tuple[int, int]]) -> int:
    return max(column for row, column in path if row == 0)


def tslearn(sparse: torch.Tensor, dense: torch.Tensor) -> list[int]:
    pairs = zip(sparse.numpy(), dense.numpy(), strict=True)
    return [last_of_first_row(dtw_path(s, d, metric="cosine")) for s, d in pairs]


def tables(sparse: torch.Tensor, dense: torch.Tensor) -> list[int]:
    costs = (1 - sparse @ dense.mT).double().numpy()
    return [last_of_first_row(dtw_path(cost, metric="precomputed")) for cost in costs]


def ours(sparse: torch.Tensor, dense: torch.Tensor) -> list[int]:
    return pseudo_boundary(sparse, dense).tolist()


def seconds(find: Callable, sparse: torch.Tensor, dense: torch.Tensor, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        find(sparse, dense)
    return (time.perf_counter() - start) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="windows (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up round (%(default)s)")
    parser.add_argument("--repeats", type=int, default=50, help="runs of ours a round (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)  # tslearn has one
    sparse, dense = windows(args.batch, args.seed)
    found = {find.__name__: find(sparse, dense) for find in (tslearn, tables, ours)}  # compiles tslearn too
    equal = {name: float(np.mean(np.equal(answer, found["ours"]))) for name, answer in found.items()}
    if min(equal.values()) < 1:
        raise SystemExit(f"the answers differ: equal to ours in {equal}")

    rounds: dict[str, list[float]] = {find.__name__: [] for find in (tslearn, tables, ours)}
    for _ in range(args.rounds + 1):
        for find in (tslearn, tables, ours):
            repeats = args.repeats if find is ours else 1
            rounds[find.__name__].append(seconds(find, sparse, dense, repeats))
    times = {name: values[1:] for name, values in rounds.items()}
    ratios = {
        name: [theirs / mine for theirs, mine in zip(times[name], times["ours"], strict=True)]
        for name in ("tslearn", "tables")
    }
    result = {
        "benchmark": "boundary",
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        "machine": machine(),
        "milliseconds": {name: 1000 * median(values) for name, values in times.items()},
        "ratio": {name: {"median": median(r), "min": min(r), "max": max(r)} for name, r in ratios.items()},
        "equal": equal,
        "rounds_seconds": times,
    }
    for name, value in result["milliseconds"].items():
        print(f"{name:8s} {value:9.3f} ms for {args.batch} windows")
    for name, ratio in result["ratio"].items():
        print(
            f"{name} / ours: {ratio['median']:.0f} ({ratio['min']:.0f}..{ratio['max']:.0f} over {args.rounds} rounds)"
        )
    print(f"same shot in all {args.batch} windows")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
