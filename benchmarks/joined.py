"""Clips played one after another: every join is a scene boundary, every cut inside a clip is not.

    python -m benchmarks.joined --films ../shared/films --out benchmarks/results/joined.json
        a minute on 2 cores

Every clip is decoded once and cut into shots. A joined film is the shots of clips in a random order:
`clips`: all of them;
`short clips`: without those of more than `--longest` shots, such as a trailer, which has many scenes itself;
`pieces`: clips cut into pieces of 2 to 5 shots, so there are more joins; pieces of one clip are never neighbours.

Rows: `default` (of `scenes`); `colour change` (its baseline); `least distance`, the simplest rule: the least distance
between any key-frames of the 2 shots before a cut and the 2 after, on three kinds of features: histograms of hue, of
hue, saturation and value, and images of 32 x 18 pixels. AP in percent, mean and deviation over orders.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.metrics import average_precision_score

from bassl_fast.scenes.detector import ColourChange, SceneDetector
from benchmarks.machine import machine

SIDE = 2  # shots on each side of a cut that the simplest rule compares
VIDEOS = (".mp4", ".mkv", ".mov", ".webm")


class Shots(NamedTuple):
    """Consecutive shots of a clip.

    Attributes:
        clip: its number.
        features: of the default `[S, D]`, and those the rule compares, by name `[S, K, D]`.
        seconds: `[S]`.
    """

    clip: int
    features: dict[str, np.ndarray]
    seconds: np.ndarray

    def part(self, first: int, after: int) -> Shots:
        part = slice(first, after)
        return Shots(self.clip, {name: x[part] for name, x in self.features.items()}, self.seconds[part])


Score = Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray]  # features, seconds -> `[S]`


def read_clip(path: Path, number: int, detector: SceneDetector) -> Shots:
    shots = detector(path).shots
    baseline = ColourChange()
    features = {
        "default": np.stack(list(detector.model.features(iter([tuple(shot.keyframes) for shot in shots])))),
        "colour change": np.stack(list(baseline.features(iter([tuple(shot.keyframes) for shot in shots])))),
        "hue, saturation, value": np.stack(
            [[next(baseline.features(iter([(jpeg,)]))) for jpeg in shot.keyframes] for shot in shots]
        ),
        "image": np.stack([[_image(jpeg) for jpeg in shot.keyframes] for shot in shots]),
    }
    hue = features["default"][:, : 3 * 256]
    return Shots(number, features | {"hue": hue.reshape(len(hue), 3, 256)}, np.array([s.end - s.start for s in shots]))


def _image(jpeg: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image.convert("RGB").resize((32, 18)), np.float64).ravel() / 255


def least_distance(x: np.ndarray) -> np.ndarray:
    """`[S]`: least sum of absolute differences between key-frames of `SIDE` shots before and after the cut at each."""
    found = np.zeros(len(x))
    for shot in range(len(x) - 1):
        before = x[max(0, shot + 1 - SIDE) : shot + 1].reshape(-1, x.shape[-1])
        after = x[shot + 1 : shot + 1 + SIDE].reshape(-1, x.shape[-1])
        found[shot] = abs(before[:, None] - after).sum(-1).min()
    return found


def models(detector: SceneDetector) -> dict[str, Score]:
    """Name -> score."""
    return {
        "default": lambda x, seconds: detector.model.probability(x["default"], seconds),
        "colour change": lambda x, seconds: ColourChange().probability(x["colour change"], seconds),
        "least distance, hue": lambda x, _: least_distance(x["hue"]),
        "least distance, hue, saturation, value": lambda x, _: least_distance(x["hue, saturation, value"]),
        "least distance, image": lambda x, _: least_distance(x["image"]),
    }


def orders(clips: Sequence[Shots], count: int, pieces: bool) -> Iterator[list[Shots]]:
    """Random orders of clips, or of pieces of them."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        parts = [part for clip in clips for part in (_pieces(clip, rng) if pieces else [clip])]
        for _ in range(1000):
            order = [parts[i] for i in rng.permutation(len(parts))]
            if all(a.clip != b.clip for a, b in pairwise(order)):
                yield order
                break


def _pieces(clip: Shots, rng: np.random.Generator) -> list[Shots]:
    found, first, count = [], 0, len(clip.seconds)
    while first < count:
        after = first + int(rng.integers(2, 5))
        after = count if count - after < 2 else after
        found.append(clip.part(first, after))
        first = after
    return found


def score_order(order: Sequence[Shots], model: Score) -> float:
    """AP in percent of the joins of a film."""
    features = {name: np.concatenate([clip.features[name] for clip in order]) for name in order[0].features}
    joins = np.concatenate([np.arange(len(clip.seconds)) == len(clip.seconds) - 1 for clip in order])
    found = model(features, np.concatenate([clip.seconds for clip in order]))
    return float(100 * average_precision_score(joins[:-1], found[:-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of clips, each of one scene if possible")
    parser.add_argument("--orders", type=int, default=100, help="random orders")
    parser.add_argument("--longest", type=int, default=10, help="most shots of a clip among `short clips`")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    args = parser.parse_args()
    detector = SceneDetector()
    paths = sorted(path for path in args.films.iterdir() if path.suffix in VIDEOS)
    clips = [read_clip(path, number, detector) for number, path in enumerate(paths)]
    short = [clip for clip in clips if len(clip.seconds) <= args.longest]
    sets = {"clips": (clips, False), "short clips": (short, False), "pieces": (clips, True)}
    rows: list[dict[str, Any]] = []
    for name, (some, pieces) in sets.items():
        films = list(orders(some, args.orders, pieces))
        for model, score in models(detector).items():
            aps = [score_order(order, score) for order in films]
            rows.append({"joined": name, "model": model, "orders": len(aps), "ap": mean(aps), "ap_stdev": stdev(aps)})
            print(f"{name:15}{model:40}{mean(aps):6.1f} +-{stdev(aps):5.1f}", flush=True)
    shots = {path.name: len(clip.seconds) for path, clip in zip(paths, clips, strict=True)}
    settings = {"orders": args.orders, "longest": args.longest, "shots": shots}
    report = {"benchmark": "joined", "settings": settings, "machine": machine(), "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
