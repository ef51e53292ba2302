"""How well are the scenes of real films found, by models that never saw a film of their set?

    python -m benchmarks.real_films --films ../shared/real_films --out benchmarks/results/real_films.json \\
            --plot docs/real_films.svg
        train on one set and score the other, both ways, and five folds inside each set; about 15 minutes on 2 cores
    python -m benchmarks.real_films --films DIR --weights shipped --out FILE.json
        only score the weights of the package, or of a file
    python -m benchmarks.real_films --films ../shared/real_films --fit bassl_fast/segmentation/similarity.safetensors
        make the weights of the package again, bit for bit

Films are `.npz` files, a set being the letters of the name before its number: `shots` `[S, 2]` first and last frame,
`boundary` `[S]` (1 = last shot of its scene), and features `[S, D]` of any kinds. Frames are taken as 25 a second.

Rows: `chance`; `neighbours` (how unlike the two shots at a cut are); `colour change` (the baseline of `scenes`, on the
same histograms); `sequential grouping` (Rotman et al., 2016: the grouping of least total distance within scenes, for
each number of scenes; a cut scores the share of groupings that have it); `relation network` (fine-tuned on the same
features, three seeds); `similarity` (ours). A film that lacks a kind is scored with the others of the row.
Columns: mean AP over films, AP of all cuts pooled, F1 at the model's own threshold, predicted scenes for each true one
(median of films, and the share of films from 0.7 to 1.4), mIoU; in the JSON also the calibration error. All but the
ratio are in percent.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from bassl_fast.heads import ContextualRelationNetwork
from bassl_fast.heads.similarity import alike, combine
from bassl_fast.metrics.scenes import FilmScores, best_threshold, scene_metrics
from bassl_fast.runtime.quiet import quieten
from bassl_fast.scenes.detector import ColourChange
from bassl_fast.segmentation.features import Film as FeatureFilm
from bassl_fast.segmentation.films import LabelledFilm
from bassl_fast.segmentation.fitting import Batches, Finetuning
from bassl_fast.segmentation.model import SceneBoundary
from bassl_fast.segmentation.similarity import SimilarityModel, fit
from bassl_fast.segmentation.windows import Windows
from bassl_fast.training.options import Optimiser
from benchmarks import plots
from benchmarks.machine import machine
from shard_tools.errors import BasslFastError
from shard_tools.shards.format import SHOT

RATE = 25.0
FOLDS = 5
IN_RANGE = (0.7, 1.4)  # predicted scenes for each true one
KINDS = [["hue"], ["vgg19"], ["hue", "vgg19"]]  # of the rows that are trained here
CRN = {"hidden": 128, "intermediate": 256, "heads": 4, "layers": 2, "similarity_init": True}


@dataclass(frozen=True)
class Film:
    """A film of the folder: its set, name, shots `[S, 2]`, labels `[S]` and features of each kind `[S, D]`."""

    group: str
    name: str
    shots: np.ndarray
    boundary: np.ndarray
    kinds: dict[str, np.ndarray]

    @property
    def seconds(self) -> np.ndarray:
        return (self.shots[:, 1] - self.shots[:, 0] + 1) / RATE

    def having(self, kinds: Sequence[str]) -> list[np.ndarray]:
        return [self.kinds[kind] for kind in kinds if kind in self.kinds]

    def labelled(self, kinds: Sequence[str]) -> LabelledFilm:
        had = {kind: self.kinds[kind] for kind in kinds if kind in self.kinds}
        return LabelledFilm(self.name, had, self.seconds, self.boundary)

    def scores(self, probability: np.ndarray) -> FilmScores:
        labels = self.boundary.astype(np.int64)
        return FilmScores(self.name, probability, labels, self.shots[:, 0], self.shots[:, 1])


Score = Callable[[Film], np.ndarray]  # probabilities [S]


def read_films(folder: Path) -> list[Film]:
    """All films of a folder."""
    films = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        shots, boundary = arrays.pop("shots").astype(np.int64), arrays.pop("boundary")
        kinds = {name: a.astype(np.float32) for name, a in sorted(arrays.items()) if a.ndim == 2}
        group = re.match("[A-Za-z_]*[A-Za-z]", path.stem)
        films.append(Film(group[0] if group else path.stem, path.stem, shots, boundary, kinds))
    if not films:
        raise SystemExit(f"{folder}: no .npz files")
    return films


def row(model: str, group: str, kinds: Sequence[str], films: Sequence[Film], score: Score, threshold: float | None):
    """A row of the table, over the films that have one of the kinds."""
    films = [film for film in films if film.having(kinds) or not kinds]
    found = [film.scores(score(film)) for film in films]
    complete = [f for film, f in zip(films, found, strict=True) if len(film.having(kinds)) == len(kinds)]
    of_rank = scene_metrics(found, 0.5)
    result: dict[str, Any] = {
        "model": model,
        "set": group,
        "kinds": list(kinds),
        "films": len(films),
        "films_with_all_kinds": len(complete),
        "mean_ap_with_all_kinds": scene_metrics(complete, 0.5).get("mean_ap") if complete else None,
        "mean_ap": of_rank.get("mean_ap"),  # None without a labelled boundary
        "pooled_ap": of_rank.get("ap"),
    }
    if threshold is not None:
        at = scene_metrics(found, threshold)
        # The last shot of a film ends a scene, whatever is predicted.
        ratios = [(f.predicted(threshold)[:-1].sum() + 1) / ((f.boundary[:-1] == 1).sum() + 1) for f in found]
        inside = float(np.mean([IN_RANGE[0] <= ratio <= IN_RANGE[1] for ratio in ratios]))
        result |= {"f1": at.get("f1"), "miou": at.get("miou"), "threshold": threshold}
        result |= {"scene_ratio": float(median(ratios)), "films_in_range": 100 * inside}
        result |= {"calibration_error": calibration_error(found)}
    return result


def calibration_error(films: Sequence[FilmScores], bins: int = 10) -> float:
    """Expected calibration error in percent, all cuts pooled, in bins of as many cuts each (Guo et al., 2017)."""
    probability = np.concatenate([film.probability[:-1] for film in films])
    truth = np.concatenate([film.boundary[:-1] == 1 for film in films])
    parts = np.array_split(np.argsort(probability, kind="stable"), bins)
    gaps = [len(part) * abs(probability[part].mean() - truth[part].mean()) for part in parts if len(part)]
    return float(100 * sum(gaps) / len(truth))


# Models


def neighbours(kinds: Sequence[str]) -> Score:
    return lambda film: 1 - np.nan_to_num(combine([alike(x) for x in film.having(kinds)])[:, 0], nan=1.0)


def colour_change(film: Film) -> np.ndarray:
    return ColourChange().probability(film.kinds["hue"])


def sequential_grouping(kinds: Sequence[str], most: int = 100) -> Score:
    """Share of the optimal groupings into 2, 3, ... scenes that have a cut; dynamic programming over shots."""

    def score(film: Film) -> np.ndarray:
        distance = np.mean([1 - _cosine(x) for x in film.having(kinds)], 0)
        count = len(distance)
        total = np.zeros((count + 1, count + 1))
        total[1:, 1:] = distance.cumsum(0).cumsum(1)
        first, after = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
        within = total[after, after] - total[first, after] - total[after, first] + total[first, first]
        within[first >= after] = np.inf
        best, cuts, votes = within[0], [], np.zeros(count)
        groups = min(most, count // 2)
        for _ in range(1, groups):
            through = best[:, None] + within
            cuts.append(through.argmin(0))
            best = through.min(0)
            at = count
            for before in reversed(cuts):
                at = before[at]
                votes[at - 1] += 1
        return votes / max(1, groups - 1)

    return score


def _cosine(x: np.ndarray) -> np.ndarray:
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return x @ x.T


def similarity(train: Sequence[Film], kinds: Sequence[str]) -> Callable[[Sequence[str]], tuple[Score, float]]:
    """Ours, fitted to films once; then scores and threshold for any kinds."""
    return _scorer(fit([film.labelled(kinds) for film in train]))


def _scorer(model: SimilarityModel) -> Callable[[Sequence[str]], tuple[Score, float]]:
    def of(kinds: Sequence[str]) -> tuple[Score, float]:
        return lambda film: model.probability(film.having(kinds), film.seconds, film.name), model.thresholds["normal"]

    return of


def relation_network(train: Sequence[Film], kinds: Sequence[str], seed: int, epochs: int) -> tuple[Score, float]:
    """The contextual relation network, fine-tuned on the features of all `kinds` side by side."""
    pl.seed_everything(seed, verbose=False)

    def windows(films: Sequence[Film]) -> Windows:
        rows = []
        for film in films:
            x = np.concatenate([_standard(film.kinds[kind]) for kind in kinds], 1)
            shots = np.zeros(len(x), SHOT)
            shots["boundary"], shots["start"], shots["end"] = film.boundary, film.shots[:, 0], film.shots[:, 1]
            rows.append(FeatureFilm(film.name, x, shots))
        return Windows.load(rows, 17, torch.device("cpu"))

    train = [film for film in train if all(kind in film.kinds for kind in kinds)]
    known = windows(train)
    dim = known.features.shape[1]
    model = SceneBoundary(ContextualRelationNetwork(dim, **CRN), dim)
    module = Finetuning(
        model,
        known,
        None,
        Batches(known, min(128, len(known.boundary)), seed),
        Optimiser("adam", lr=1e-3, lr_batch=0),
        epochs,
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
    trainer.fit(module)
    return lambda film: windows([film]).scores(model)[0].probability, best_threshold(known.scores(model))


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0) + 1e-3)


# Protocols


def across_sets(films: Sequence[Film], seeds: int, epochs: int) -> Iterator[dict[str, Any]]:
    """Every set scored by models that were trained on the others."""
    groups = sorted({film.group for film in films})
    everything = sorted({kind for film in films for kind in film.kinds})
    for group in groups:
        test = [film for film in films if film.group == group]
        train = [film for film in films if film.group != group]
        yield row("chance", group, [], test, lambda film: np.full(len(film.shots), 0.5), None)
        for kinds in KINDS:
            yield row("neighbours", group, kinds, test, neighbours(kinds), None)
            yield row("sequential grouping", group, kinds, test, sequential_grouping(kinds), None)
        yield row("colour change", group, ["hue"], test, colour_change, None)
        ours = similarity(train, everything)
        for kinds in KINDS:
            yield row("similarity", group, kinds, test, *ours(kinds))
        for kinds in (KINDS[0], KINDS[-1]) if seeds else ():
            complete = [film for film in test if all(kind in film.kinds for kind in kinds)]
            runs = [
                row("relation network", group, kinds, complete, *relation_network(train, kinds, seed, epochs))
                for seed in range(seeds)
            ]
            yield _averaged(runs)


def _averaged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the deviation of the mean AP."""
    found = {
        key: mean(run[key] for run in runs) if isinstance(value, float) else value for key, value in runs[0].items()
    }
    return found | {"seeds": len(runs), "mean_ap_stdev": stdev(run["mean_ap"] for run in runs)}


def in_folds(films: Sequence[Film]) -> Iterator[dict[str, Any]]:
    """Every set scored by models that were trained on the other folds of the same set."""
    everything = sorted({kind for film in films for kind in film.kinds})
    for group in sorted({film.group for film in films}):
        inside = [film for film in films if film.group == group]
        if len(inside) < FOLDS:
            continue
        by_film = {}
        for fold in range(FOLDS):
            ours = similarity([film for i, film in enumerate(inside) if i % FOLDS != fold], everything)
            by_film |= {film.name: ours for film in inside[fold::FOLDS]}
        for kinds in KINDS:
            threshold = median(ours(kinds)[1] for ours in by_film.values())
            scores = row("similarity, 5 folds", group, kinds, inside, _each(by_film, kinds), threshold)
            yield scores


def _each(by_film: dict[str, Callable], kinds: Sequence[str]) -> Score:
    return lambda film: by_film[film.name](kinds)[0](film)


def scored_by(model: SimilarityModel, films: Sequence[Film]) -> Iterator[dict[str, Any]]:
    """Every set scored by a fitted model: each kind, each with hue, and all together."""
    for group in sorted({film.group for film in films}):
        inside = [film for film in films if film.group == group]
        kinds = sorted({kind for film in inside for kind in film.kinds}, key=lambda kind: (kind != "hue", kind))
        rows = [[kind] for kind in kinds]
        rows += [["hue", kind] for kind in kinds if kind != "hue" and "hue" in kinds]
        rows += [kinds] if len(kinds) > 2 else []
        for some in rows:
            yield row("similarity", group, some, inside, *_scorer(model)(some))


def _line(one: dict[str, Any]) -> str:
    shown = f"{one['set']:8}{one['model']:22}{' + '.join(one['kinds']):28}{one['films']:5}"
    shown += f"{_percent(one['mean_ap'])}   {_percent(one['pooled_ap'])}"
    if "scene_ratio" in one:
        ratio = f"{one['scene_ratio']:.2f} ({one['films_in_range']:.0f} % in range)"
        shown += f"{_percent(one['f1'])}  {ratio:22}{_percent(one['miou'])}"
    if one["films_with_all_kinds"] < one["films"]:
        shown += f"; mean AP{_percent(one['mean_ap_with_all_kinds'])} of {one['films_with_all_kinds']} with all kinds"
    return shown


def _percent(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of .npz files")
    parser.add_argument("--weights", help="only score these: a file, or `shipped`")
    parser.add_argument("--fit", type=Path, help="only fit to all films, and write the weights here")
    parser.add_argument("--seeds", type=int, default=3, help="of the relation network; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=8, help="of the relation network")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--plot", type=Path, help="SVG file for the mean AP")
    args = parser.parse_args()
    quieten()
    try:
        run(args)
    except BasslFastError as error:  # features that do not fit, weights of another version
        raise SystemExit(f"real_films: {error}") from None


def run(args: argparse.Namespace) -> None:
    """Fit, or score and report."""
    films = read_films(args.films)
    if args.fit:
        kinds = sorted({kind for film in films for kind in film.kinds})
        fit([film.labelled(kinds) for film in films]).save(args.fit)
        print(f"weights: {args.fit} ({args.fit.stat().st_size} bytes, {len(films)} films)")
        return
    if args.weights:
        model = SimilarityModel.load() if args.weights == "shipped" else SimilarityModel.load(args.weights)
        found = scored_by(model, films)
    else:
        found = (r for protocol in (across_sets(films, args.seeds, args.epochs), in_folds(films)) for r in protocol)
    rows = []
    print(f"{'set':8}{'model':22}{'kinds':28}films  mean AP  pooled    F1  scenes predicted/true   mIoU")
    for one in found:
        rows.append(one)
        print(_line(one), flush=True)
    report = {"benchmark": "real_films", "machine": machine(), "rows": rows}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        plots.draw(report, args.plot)


if __name__ == "__main__":
    main()
