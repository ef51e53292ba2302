"""Do a few films that somebody corrected by hand raise the average precision of the next film?

    python -m benchmarks.corrections --films ../shared/real_films --out benchmarks/results/corrections.json
        about 5 minutes on 2 cores

Films are those of `benchmarks.real_films`, with hue. The weights to start from are fitted to the other sets only, so no
film of the set was seen, as for a new user. Each film in turn is held out; 1, 2, 3, 5 other films of its set, drawn
several times, are the corrected ones, and `bassl_fast.segmentation.teaching` adapts the weights to them. Whether
weights are adapted is decided on the corrected films alone.

Rows `as shipped`: weights are adapted if that is a gain on the corrected films, else only the threshold.
Rows `always`: weights are adapted in any case.
Columns: mean AP of the held-out film before and after, gain with its deviation over draws (of the mean over films),
share of held-out films and draws where AP rises, falls, stays; share of films whose mean gain over draws is above 0; F1
at the model's threshold, and the share of films with 0.7 to 1.4 predicted scenes for each true one, before and after.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from bassl_fast.heads.similarity import SimilarityHead
from bassl_fast.metrics.scenes import FilmScores, scene_metrics
from bassl_fast.segmentation.similarity import Samples, SimilarityModel, fit, score
from bassl_fast.segmentation.teaching import PRIOR, moved, teach_sets
from benchmarks.machine import machine
from benchmarks.real_films import IN_RANGE, Film, read_films

KINDS = ["hue"]


@dataclass(frozen=True)
class Held:
    """A held-out film scored by one head."""

    ap: float
    f1: float
    ratio: float  # predicted scenes for each true one

    @classmethod
    def of(cls, film: Film, samples: Samples, head: SimilarityHead, threshold: float) -> Held:
        found = FilmScores(film.name, score(head, samples.statistics[-1]), samples.labels, *film.shots.T)
        scores = scene_metrics([found], threshold)
        ratio = (found.predicted(threshold)[:-1].sum() + 1) / ((samples.labels == 1).sum() + 1)
        return cls(scores["mean_ap"], scores["f1"], float(ratio))


def rows_of(group: str, films: Sequence[Film], count: int, draws: int, start: SimilarityModel) -> list[dict[str, Any]]:
    """The rows of a set and a number of corrected films."""
    sets = {film.name: Samples.of(film.labelled(KINDS)) for film in films}
    threshold = start.thresholds["normal"]
    before = {film.name: Held.of(film, sets[film.name], start.head, threshold) for film in films}
    after: dict[str, list[list[Held]]] = {"as shipped": [], "always": []}  # [draw][film]
    adapted = []
    for draw in range(draws):
        rng = np.random.default_rng((count, draw))
        found: dict[str, list[Held]] = {"as shipped": [], "always": []}
        for film in films:
            others = [other.name for other in films if other is not film]
            corrected = [sets[name] for name in rng.choice(others, count, replace=False)]
            taught = teach_sets(corrected, start)
            adapted.append(taught.adapted)
            always = taught.head if taught.adapted else moved(corrected, start.head, PRIOR)
            for name, head in (("as shipped", taught.head), ("always", always)):
                found[name].append(Held.of(film, sets[film.name], head, taught.threshold))
        for name, of_draw in found.items():
            after[name].append(of_draw)
    reference = list(before.values())
    return [
        {"set": group, "corrected": count, "weights": name, "films": len(films), "draws": draws}
        | _summary(reference, of_draws)
        | {"adapted": 100 * mean(adapted) if name == "as shipped" else 100.0}
        for name, of_draws in after.items()
    ]


def _summary(before: Sequence[Held], after: Sequence[Sequence[Held]]) -> dict[str, Any]:
    gains = np.array([[new.ap - old.ap for new, old in zip(draw, before, strict=True)] for draw in after])
    changed = {"rises": gains > 1e-9, "falls": gains < -1e-9, "stays": abs(gains) <= 1e-9}
    flat = [held for draw in after for held in draw]
    return {
        "ap_before": mean(held.ap for held in before),
        "ap_after": mean(held.ap for held in flat),
        "gain": float(gains.mean()),
        "gain_stdev_over_draws": float(gains.mean(1).std(ddof=1)) if len(gains) > 1 else None,
        **{name: float(100 * where.mean()) for name, where in changed.items()},
        "films_that_gain": float(100 * (gains.mean(0) > 1e-9).mean()),
        "films_that_lose": float(100 * (gains.mean(0) < -1e-9).mean()),
        "f1_before": mean(held.f1 for held in before),
        "f1_after": mean(held.f1 for held in flat),
        "scene_ratio_before": median(held.ratio for held in before),
        "scene_ratio_after": median(held.ratio for held in flat),
        "in_range_before": 100 * mean(IN_RANGE[0] <= held.ratio <= IN_RANGE[1] for held in before),
        "in_range_after": 100 * mean(IN_RANGE[0] <= held.ratio <= IN_RANGE[1] for held in flat),
    }


def _line(one: dict[str, Any]) -> str:
    spread = one["gain_stdev_over_draws"]
    return (
        f"{one['set']:6}{one['corrected']:9}  {one['weights']:11}{one['ap_before']:7.1f} ->{one['ap_after']:5.1f}"
        f"{one['gain']:+6.1f} +-{0 if spread is None else spread:4.1f}"
        f"{one['rises']:7.0f}{one['falls']:6.0f}{one['stays']:6.0f}{one['films_that_gain']:8.0f}"
        f"{one['f1_before']:8.1f} ->{one['f1_after']:5.1f}{one['in_range_before']:7.0f} ->{one['in_range_after']:4.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of .npz files, of two sets or more")
    parser.add_argument("--corrected", type=int, nargs="+", default=[1, 2, 3, 5], help="numbers of corrected films")
    parser.add_argument("--draws", type=int, default=10, help="of the corrected films, for each held-out film")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    args = parser.parse_args()
    films = [film for film in read_films(args.films) if film.having(KINDS)]
    print(
        "set   corrected  weights     AP              gain        rises falls stays films+  F1               in range"
    )
    rows = []
    for group in sorted({film.group for film in films}):
        inside = [film for film in films if film.group == group]
        rest = [film for film in films if film.group != group]
        start = fit([film.labelled(sorted({kind for one in rest for kind in one.kinds})) for film in rest])
        for count in args.corrected:
            if count < len(inside):
                rows += rows_of(group, inside, count, args.draws, start)
                print("\n".join(map(_line, rows[-2:])), flush=True)
    settings = {"corrected": args.corrected, "draws": args.draws, "kinds": KINDS}
    report = {"benchmark": "corrections", "settings": settings, "machine": machine(), "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
