"""How long it takes to score a test set: 64 synthetic films of 1,500 shots, with features of 2,048 numbers.

    scene metrics     AP, mean AP, AUC, F1, recall, recall@3s, mIoU at one threshold
    table of films    the same for every film
    threshold         the best one
    kNN precision     precision@{1, 5, 10, 15, 20} inside a film (benchmarks/knn.py has its peer)

The peer of the scene metrics computes recall@3s and mIoU pair by pair in Python, on `--peer-films` of the films; its
time is scaled to all films, and its scores must equal ours. They take turns, round by round.

    python -m benchmarks.metrics                                      about a minute on 2 cores
    python -m benchmarks.metrics --out benchmarks/results/metrics.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median

import numpy as np

from bassl_fast.metrics.neighbours import knn_precision
from bassl_fast.metrics.scenes import FilmScores, best_threshold, per_film, scene_metrics

BAR = 5.0  # seconds


def make_film(name: str, shots: int, rng: np.random.Generator) -> FilmScores:
    boundary = (rng.random(shots) < 0.08).astype(int)
    boundary[[shots // 2, -1]] = 1, 0
    end = np.cumsum(rng.integers(20, 200, shots)) - 1
    probability = np.clip(0.3 * boundary + rng.random(shots) * 0.7, 0, 1)
    return FilmScores(name, probability, boundary, np.append(0, end[:-1] + 1), end)


def pair_by_pair(films: list[FilmScores], threshold: float = 0.5) -> dict[str, float]:
    """recall@3s and mIoU in percent, written in the simplest way."""
    recalls, overlaps = [], []
    for film in films:
        truth = [i for i, label in enumerate(film.boundary.tolist()) if label == 1]
        predicted = [i for i, p in enumerate(film.probability.tolist()) if p >= threshold]
        end, start = film.end.tolist(), film.start.tolist()
        near = [any(abs(t - p) <= 5 and abs(end[t] - end[p]) < 72 for p in predicted) for t in truth]
        recalls.append(mean(near))
        scenes = []
        for ends in (truth, predicted):
            first = [0, *(i + 1 for i in ends if i + 1 < len(end))]
            last = [*(i for i in ends if i + 1 < len(end)), len(end) - 1]
            scenes.append([(start[a], end[b]) for a, b in zip(first, last, strict=True)])
        both = []
        for ours, theirs in (scenes, scenes[::-1]):
            best = []
            for a, b in ours:
                found = 0.0
                for c, d in theirs:
                    shared = max(0, min(b, d) - max(a, c) + 1)
                    found = max(found, shared / (b - a + d - c + 2 - shared))
                best.append(found)
            both.append(mean(best))
        overlaps.append(mean(both))
    return {"recall_at_3s": 100 * mean(recalls), "miou": 100 * mean(overlaps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=64)
    parser.add_argument("--shots", type=int, default=1500, help="of a film")
    parser.add_argument("--dim", type=int, default=2048, help="of a feature")
    parser.add_argument("--peer-films", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a warm-up round")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    films = [make_film(f"tt{n}", args.shots, rng) for n in range(args.films)]
    scenes = {film.film: np.append(0, np.cumsum(film.boundary)[:-1]) for film in films}
    features = {film.film: rng.standard_normal((args.shots, args.dim), np.float32) for film in films}
    some = films[: args.peer_films]
    ours, theirs = scene_metrics(some), pair_by_pair(some)
    for name, value in theirs.items():
        if abs(ours[name] - value) > 1e-6:
            raise SystemExit(f"{name}: {ours[name]} here, {value} pair by pair")
    contest = {
        "scene metrics": lambda: scene_metrics(films),
        "scene metrics, reference quirks": lambda: scene_metrics(films, reference_quirks=True),
        "table of films": lambda: per_film(films),
        "threshold": lambda: best_threshold(films),
        "kNN precision": lambda: knn_precision(features, scenes),
        "pair by pair": lambda: pair_by_pair(some),
    }
    times: dict[str, list[float]] = {name: [] for name in contest}
    for i in range(args.rounds + 1):
        for name, run in contest.items():
            started = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - started)
    times["pair by pair"] = [seconds * args.films / args.peer_films for seconds in times["pair by pair"]]
    print(f"{args.films} films of {args.shots} shots")
    for name, seconds in times.items():
        verdict = "" if name == "pair by pair" else f"   {'under' if median(seconds) < BAR else 'OVER'} {BAR:.0f} s"
        print(f"{name:34s}{median(seconds):8.3f} s ({min(seconds):.3f}..{max(seconds):.3f}){verdict}")
    each = [theirs / mine for theirs, mine in zip(times["pair by pair"], times["scene metrics"], strict=True)]
    print(f"pair by pair / all scene metrics: {median(each):.0f} ({min(each):.0f}..{max(each):.0f})")
    if args.out:
        from benchmarks.machine import machine

        settings = {key: value for key, value in vars(args).items() if key != "out"}
        seconds = {name: median(values) for name, values in times.items()}
        report = {"benchmark": "metrics", "settings": settings, "machine": machine(), "seconds": seconds}
        report["ratio"] = {"median": median(each), "min": min(each), "max": max(each)}
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
