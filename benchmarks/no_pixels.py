"""How well are scenes found without a pixel: by how long shots last, and by when somebody speaks?

    python -m benchmarks.no_pixels --labels ../shared/movienet318/movienet318.npz \\
            --test ../shared/movienet318/movienet318.npz --out benchmarks/results/no_pixels.json

A file has four arrays a film: `FILM/shots` `[S, 2]` first and last frame, 24000/1001 frames a second; `FILM/raw_label`
`[S - 1]` or `[S]`, 1 = the next shot begins a scene, 0 = not, -1 = left out; `FILM/split` train, val or test;
`FILM/speech` `[L, 2]` seconds of each line of subtitles, none if unknown. Models learn from the train films of
`--labels`, settings were chosen on its val films, and the test films of `--test` are scored; the files may be the same.

Models: `linear` (logistic regression), `trees` (gradient boosting), `network` (convolutions over shots, mean of
`--seeds`), and `together`, the mean of the logits of the last two. Besides, what users have, without images: `scenes`,
the weights of the package, then `--subtitles`, which learns nothing; and `finetune`, the similarity head fitted here.
AP in percent of all cuts pooled, and the mean over films; the gain from speech has the 5th and 95th percentile over
films drawn with replacement.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional as F

from bassl_fast.heads import similarity
from bassl_fast.heads import speech as heads_speech
from bassl_fast.segmentation.durations import duration_statistics
from bassl_fast.segmentation.similarity import SimilarityModel
from bassl_fast.segmentation.speech import move_to_pauses
from benchmarks.machine import machine
from benchmarks.speech_statistics import speech_statistics
from shard_tools.annotations.speech import align, speech_of_shots

RATE = 24000 / 1001
KINDS = (("durations",), ("speech",), ("durations", "speech"))
CLIP = 5.0  # deviations at which a statistic is clipped
TOGETHER = ("trees", "network")  # the linear model would lower AP on the val films
DRAWS = 200  # of test films
STRETCH, BATCH = 256, 8  # consecutive shots of a film, and stretches, that the network is trained on at once


@dataclass(frozen=True)
class Film:
    """A film: statistics `[S, F]` of the cut after each shot by kind, labels `[S]`, -1 where unlabelled, seconds at
    which its shots start and end `[S]`, and those of its lines `[L, 2]`."""

    name: str
    statistics: dict[str, np.ndarray]
    boundary: np.ndarray
    start: np.ndarray
    end: np.ndarray
    lines: np.ndarray

    def of(self, kinds: Sequence[str]) -> np.ndarray:
        return np.concatenate([self.statistics[kind] for kind in kinds], 1)


Model = Callable[[np.ndarray], np.ndarray]  # statistics [S, F] of a film -> logits [S]
Fit = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], Model]  # statistics and labels of films -> model


def read_films(path: Path) -> dict[str, list[Film]]:
    """Split -> films."""
    films: dict[str, list[Film]] = {"train": [], "val": [], "test": []}
    with np.load(path, allow_pickle=False) as file:
        for name in sorted({key.split("/")[0] for key in file.files}):
            shots, labels = file[f"{name}/shots"], file[f"{name}/raw_label"]
            start, end = shots[:, 0] / RATE, (shots[:, 1] + 1) / RATE
            boundary = np.full(len(shots), -1)
            boundary[:-1] = labels[: len(shots) - 1]  # a film ends after its last shot in any case
            speech = align(file[f"{name}/speech"].astype(np.float64), end[:-1])
            found = {
                "durations": duration_statistics(start, end),
                "speech": speech_statistics(start, end, speech),
            }
            columns = {kind: np.stack(list(x.values()), 1).astype(np.float32) for kind, x in found.items()}
            films[str(file[f"{name}/split"])].append(Film(name, columns, boundary, start, end, speech))
    return films


# Models


def linear(statistics: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Model:
    x, y = _labelled(statistics, labels)
    model = LogisticRegression(C=0.01, max_iter=200, tol=1e-3).fit(x, y)
    return model.decision_function


def trees(statistics: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Model:
    x, y = _labelled(statistics, labels)
    kept = (y == 1) | (np.arange(len(y)) % 3 == 0)  # a third of the other cuts, to save time
    sizes: dict[str, Any] = {"max_iter": 120, "max_leaf_nodes": 15, "min_samples_leaf": 100, "max_features": 0.2}
    model = HistGradientBoostingClassifier(learning_rate=0.1, l2_regularization=10, random_state=0, **sizes)
    return model.fit(x[kept], y[kept]).decision_function


def network(seeds: int, epochs: int) -> Fit:
    """Networks of several seeds, their logits averaged."""

    def fit(statistics: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Model:
        nets = [train(statistics, labels, seed, epochs) for seed in range(seeds)]

        def score(x: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return np.mean([net(torch.from_numpy(x)[None])[0].numpy() for net in nets], 0)

        return score

    return fit


class OverShots(nn.Module):
    """Residual convolutions over the shots of a film: statistics `[B, S, F]` to logits `[B, S]`.

    Each cut sees the 15 before and after it.
    """

    def __init__(self, statistics: int, width: int = 48, dropout: float = 0.2) -> None:
        super().__init__()
        self.inputs = nn.Sequential(nn.Dropout(dropout / 2), nn.Linear(statistics, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.neighbours = nn.ModuleList(nn.Conv1d(width, width, 3, padding=d, dilation=d) for d in (1, 2, 4, 8))
        self.mixes = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout)) for _ in range(4))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inputs(x)
        for norm, neighbours, mix in zip(self.norms, self.neighbours, self.mixes, strict=True):
            x = x + mix(F.gelu(neighbours(norm(x).transpose(1, 2)).transpose(1, 2)))
        return self.out(x)[..., 0]


def train(statistics: Sequence[np.ndarray], labels: Sequence[np.ndarray], seed: int, epochs: int) -> OverShots:
    """Train a network on stretches of films."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = OverShots(statistics[0].shape[1]).train()
    starts = [(film, at) for film, y in enumerate(labels) for at in range(0, len(y), STRETCH)]
    steps = epochs * -(-len(starts) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps + 2, pct_start=0.1)
    for _ in range(epochs):
        order = rng.permutation(len(starts))
        shift = int(rng.integers(STRETCH))  # so that stretches begin elsewhere in every epoch
        for batch in np.split(order, range(BATCH, len(order), BATCH)):
            x = torch.zeros(len(batch), STRETCH, statistics[0].shape[1])
            y = torch.full((len(batch), STRETCH), -1.0)
            for row, (film, at) in enumerate(starts[i] for i in batch):
                part = slice(max(0, at - shift), at - shift + STRETCH)
                count = len(labels[film][part])
                x[row, :count] = torch.from_numpy(statistics[film][part])
                y[row, :count] = torch.from_numpy(labels[film][part])
            known = y >= 0
            loss = F.binary_cross_entropy_with_logits(net(x)[known], y[known])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return net.eval()


def _labelled(statistics: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.concatenate(statistics), np.concatenate(labels)
    return x[y >= 0], y[y >= 0]


# Scores


def pooled(films: Sequence[Film], logits: Sequence[np.ndarray]) -> float:
    """AP of all labelled cuts of all films, in percent."""
    truth = np.concatenate([film.boundary for film in films])
    score = np.concatenate(logits)
    return 100 * float(average_precision_score(truth[truth >= 0] == 1, score[truth >= 0]))


def mean_over_films(films: Sequence[Film], logits: Sequence[np.ndarray]) -> float:
    """Mean AP of the films that have a boundary, in percent."""
    pairs = [(film, x) for film, x in zip(films, logits, strict=True) if (film.boundary == 1).any()]
    return float(np.mean([pooled([film], [x]) for film, x in pairs]))


def chance(films: Sequence[Film]) -> float:
    truth = np.concatenate([film.boundary for film in films])
    return 100 * float((truth == 1).sum() / (truth >= 0).sum())


def gain(films: Sequence[Film], before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> dict[str, float]:
    """How much higher the AP of `after` is, with its spread over films drawn with replacement."""
    rng, draws = np.random.default_rng(0), []
    for _ in range(DRAWS):
        drawn = rng.integers(len(films), size=len(films))
        some = [films[i] for i in drawn]
        draws.append(pooled(some, [after[i] for i in drawn]) - pooled(some, [before[i] for i in drawn]))
    low, high = np.percentile(draws, [5, 95])
    each = [pooled([film], [b]) > pooled([film], [a]) for film, a, b in zip(films, before, after, strict=True)]
    return {
        "gain": pooled(films, after) - pooled(films, before),
        "low": float(low),
        "high": float(high),
        "films_that_gain": 100 * float(np.mean(each)),
    }


def rows(train_films: list[Film], scored: dict[str, list[Film]], models: dict[str, Fit]) -> Iterator[dict[str, Any]]:
    """A row for every model and choice of kinds, and one for the models together; with logits of the scored films."""
    labels = [film.boundary for film in train_films]
    for kinds in KINDS:
        x = np.concatenate([film.of(kinds) for film in train_films])
        mean, deviation = x.mean(0), x.std(0) + 1e-6

        def standard(film: Film, kinds=kinds, mean=mean, deviation=deviation) -> np.ndarray:
            return ((film.of(kinds) - mean) / deviation).clip(-CLIP, CLIP)

        inputs = [standard(film) for film in train_films]
        each = {}
        for name, fit in models.items():
            began = time.process_time()
            model = fit(inputs, labels)
            each[name] = {split: [model(standard(film)) for film in films] for split, films in scored.items()}
            yield _row(name, kinds, scored, each[name]) | {"processor_seconds": time.process_time() - began}
        together = {
            split: [np.mean(logits, 0) for logits in zip(*(each[name][split] for name in TOGETHER), strict=True)]
            for split in scored
        }
        yield _row("together", kinds, scored, together)


def rows_of_users(train_films: list[Film], scored: dict[str, list[Film]]) -> Iterator[dict[str, Any]]:
    """Rows for `bassl-fast scenes` and for `bassl-fast finetune --head similarity`, with shots that all look alike."""
    shipped = SimilarityModel.load()
    for kinds in (KINDS[0], KINDS[2]):
        found: dict[str, list[np.ndarray]] = {}
        for split, films in scored.items():
            found[split] = [shipped.probability([_alike(film)], film.end - film.start) for film in films]
            if "speech" in kinds:
                found[split] = [move_to_pauses(p, f.end, f.lines) for p, f in zip(found[split], films, strict=True)]
        yield _row("scenes", kinds, scored, found)
        model = linear([_of_head(film, kinds) for film in train_films], [film.boundary for film in train_films])
        logits = {split: [model(_of_head(film, kinds)) for film in films] for split, films in scored.items()}
        yield _row("finetune", kinds, scored, logits)


def _alike(film: Film) -> np.ndarray:
    return np.zeros((len(film.end), 1), np.float32)


def _of_head(film: Film, kinds: Sequence[str]) -> np.ndarray:
    seconds = film.end - film.start
    found = [similarity.film_statistics([similarity.alike(_alike(film))], seconds)]
    if "speech" in kinds:
        found.append(heads_speech.film_statistics(speech_of_shots(film.start, film.end, film.lines), seconds))
    return np.concatenate(found, 1)


def _row(model: str, kinds: Sequence[str], scored: dict[str, list[Film]], logits: dict[str, list[np.ndarray]]):
    found: dict[str, Any] = {"model": model, "kinds": list(kinds), "logits": logits}
    for split, films in scored.items():
        found[f"{split}_ap"], found[f"{split}_chance"] = pooled(films, logits[split]), chance(films)
        found[f"{split}_mean_ap"] = mean_over_films(films, logits[split])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="file with train and val films")
    parser.add_argument("--test", type=Path, required=True, help="file with test films")
    parser.add_argument("--seeds", type=int, default=2, help="networks")
    parser.add_argument("--epochs", type=int, default=4, help="of each network")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    args = parser.parse_args()
    films = read_films(args.labels)
    scored = {
        "val": films["val"],
        "test": films["test"] if args.test == args.labels else read_films(args.test)["test"],
    }
    models: dict[str, Fit] = {"linear": linear, "trees": trees, "network": network(args.seeds, args.epochs)}
    done, logits = [], {}
    print(f"{'model':10}{'kinds':22}val AP   mean  test AP   mean  chance")
    for row in chain(rows_of_users(films["train"], scored), rows(films["train"], scored, models)):
        logits[row["model"], tuple(row["kinds"])] = row.pop("logits")
        done.append(row)
        shown = "".join(f"{row[key]:7.1f}" for key in ("val_ap", "val_mean_ap", "test_ap", "test_mean_ap"))
        print(f"{row['model']:10}{' + '.join(row['kinds']):22}{shown}{row['test_chance']:7.1f}", flush=True)
    speech = {
        model: {
            split: gain(some, logits[model, KINDS[0]][split], logits[model, KINDS[2]][split])
            for split, some in scored.items()
        }
        for model in ("scenes", "finetune", "together")
    }
    for model, of_model in speech.items():
        gains = (f"{split} {g['gain']:+.1f} ({g['low']:+.1f} to {g['high']:+.1f})" for split, g in of_model.items())
        print(f"from speech, {model}: {'; '.join(gains)}")
    counts = {split: len(some) for split, some in {"train": films["train"], **scored}.items()}
    settings = {"films": counts, "seeds": args.seeds, "epochs": args.epochs, "draws": DRAWS}
    report = {"benchmark": "no_pixels", "settings": settings, "machine": machine(), "rows": done, "speech": speech}
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
