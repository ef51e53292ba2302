"""How much faster is kNN precision of shot features than a loop over pairs of shots?

    pairs     for every shot, the cosine to every other shot of its film, one after the other (numpy), then a sort
    ours      `knn_precision`
Both score one synthetic film and must agree; they take turns, round by round. Then ours alone scores a test set of the
size of MovieNet's, which benchmarks/metrics.py times beside the other metrics.

    python -m benchmarks.knn --out benchmarks/results/knn.json         about a minute on 2 cores
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from bassl_fast.metrics.neighbours import knn_precision
from benchmarks.machine import machine

KS = (1, 5, 10, 15, 20)


def film(shots: int, dim: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features `[S, D]` float32 and scenes `[S]` of a film whose scenes have 24 shots."""
    scene = np.arange(shots) // 24
    centres = rng.standard_normal((scene[-1] + 1, dim), np.float32)
    return centres[scene] + 3 * rng.standard_normal((shots, dim), np.float32), scene


def pairs(features: np.ndarray, scene: np.ndarray) -> dict[int, float]:
    """The definition, pair by pair."""
    length = [float(np.sqrt(row @ row)) for row in features]
    size = np.bincount(scene)[scene]
    hits, asked = dict.fromkeys(KS, 0), dict.fromkeys(KS, 0)
    for i, row in enumerate(features):
        cosine = [(float(row @ other) / (length[i] * length[j]), j) for j, other in enumerate(features) if j != i]
        nearest = [j for _, j in sorted(cosine, reverse=True)[: max(KS)]]
        for k in KS:
            if size[i] >= k:
                hits[k] += sum(int(scene[j] == scene[i]) for j in nearest[:k])
                asked[k] += k
    return {k: 100 * hits[k] / asked[k] for k in KS}


def ours(features: np.ndarray, scene: np.ndarray) -> dict[int, float]:
    return knn_precision({"film": features}, {"film": scene}, KS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=int, default=1500, help="of the film that both score (%(default)s)")
    parser.add_argument("--films", type=int, default=64, help="of 1,500 shots, for ours alone (%(default)s)")
    parser.add_argument("--dim", type=int, default=2048, help="size of a feature (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up round (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    features, scene = film(args.shots, args.dim, rng)

    times: dict[str, list[float]] = {"pairs": [], "ours": []}
    for _ in range(args.rounds + 1):
        answers = []
        for score in (pairs, ours):
            start = time.perf_counter()
            answers.append(score(features, scene))
            times[score.__name__].append(time.perf_counter() - start)
        if any(abs(answers[0][k] - answers[1][k]) > 1e-6 for k in KS):
            raise SystemExit(f"the answers differ: {answers[0]} and {answers[1]}")
    ratios = [theirs / mine for theirs, mine in zip(times["pairs"][1:], times["ours"][1:], strict=True)]

    films = [film(1500, args.dim, rng) for _ in range(args.films)]
    start = time.perf_counter()
    knn_precision({str(i): x for i, (x, _) in enumerate(films)}, {str(i): s for i, (_, s) in enumerate(films)}, KS)
    whole = time.perf_counter() - start
    result = {
        "benchmark": "knn",
        "settings": {key: value for key, value in vars(args).items() if key != "out"},
        "machine": machine(),
        "milliseconds": {name: 1000 * median(values[1:]) for name, values in times.items()},
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "test_set_seconds": whole,
        "rounds_seconds": {name: values[1:] for name, values in times.items()},
    }
    for name, value in result["milliseconds"].items():
        print(f"{name:6s} {value:9.1f} ms for {args.shots} shots")
    ratio = result["ratio"]
    print(
        f"pairs / ours: {ratio['median']:.0f} ({ratio['min']:.0f}..{ratio['max']:.0f} over {args.rounds} rounds), equal"
    )
    print(f"{args.films} films of 1,500 shots: {whole:.1f} s")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
