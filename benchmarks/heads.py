"""Does a head gain from seeing other cuts of the film, beside statistics of the cut?

    python -m benchmarks.heads --labels ../shared/movienet318/movienet318.npz --films ../shared/real_films \\
            --out benchmarks/results/heads.json
        about 20 minutes on 2 cores

`--labels` is the file of `benchmarks.no_pixels`: durations of shots and times of speech, no image. Networks learn from
its train films. Rows: `similarity head` (linear, on what it reads), `linear` (on what the film head reads), and
networks on the same: `film head`, in which no cut sees another; `attention` to the 16 cuts on each side, with relative
positions; `state space` over the whole film in both directions, whose states decay with seconds. Then the heads as
`finetune --head similarity` and `--head film` train them.

`--films` are those of `benchmarks.real_films`, trained on one set and scored on the other. Networks add to the logit of
the similarity head, which for films of training is fitted to other films, and start at 0; folds inside the training set
choose the number of epochs, or none.

Columns: AP of all cuts pooled, mean AP over films, and by how much AP of a film is above the similarity head's: mean
over films and its standard error. Networks are scored seed by seed, then averaged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional as F

from bassl_fast import cli
from bassl_fast.heads import FilmHead
from bassl_fast.heads.similarity import alike
from bassl_fast.metrics.scenes import FilmScores
from bassl_fast.segmentation.features import write_index
from bassl_fast.segmentation.scoring import score
from bassl_fast.segmentation.similarity import fit
from bassl_fast.segmentation.statistics import names, statistics_of
from benchmarks import no_pixels, real_films
from benchmarks.machine import machine
from shard_tools.annotations.labels import FPS
from shard_tools.annotations.speech import speech_of_shots
from shard_tools.shards.format import SHOT_WITH_SPEECH, SPEECH, sequence_dtype
from shard_tools.storage.output import open_place

MIXERS = {"film head": None, "attention": "attention", "state space": "state space"}
STRETCH, BATCH = 256, 8  # consecutive cuts of a film, and stretches, of a step
FOLDS = 5
ALL = ("hue", "vgg19")


@dataclass(frozen=True)
class Cuts:
    """The cuts of a film: statistics `[S, F]`, labels `[S]`, -1 where unlabelled, seconds that shots last, and a logit
    that a network adds to."""

    statistics: np.ndarray
    labels: np.ndarray
    seconds: np.ndarray
    logit: np.ndarray

    def tensors(self) -> list[Tensor]:
        arrays = (self.statistics, self.labels, self.seconds, self.logit)
        return [torch.from_numpy(array.astype(np.float32)) for array in arrays]


@dataclass(frozen=True)
class Settings:
    """Of a network and its training."""

    hidden: int
    dropout: float
    lr: float
    decay: float
    epochs: int


LARGE = Settings(hidden=48, dropout=0.2, lr=2e-3, decay=0.02, epochs=4)  # MovieNet's train films
SMALL = Settings(hidden=16, dropout=0.5, lr=3e-4, decay=1.0, epochs=16)


# Networks


class Attention(nn.Module):
    """To the cuts at most `window` away, which have biases by distance; computed in blocks, so linear in cuts."""

    def __init__(self, hidden: int, heads: int = 4, window: int = 16) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, hidden)
        self.project = nn.Linear(hidden, 3 * hidden, bias=False)
        slopes = 2.0 ** -torch.arange(1, heads + 1)
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(-window, window + 1).abs())

    def forward(self, x: Tensor, known: Tensor, seconds: Tensor) -> Tensor:
        (batch, cuts, hidden), size = x.shape, self.window
        blocks = -(-cuts // size)

        def split(values: Tensor) -> Tensor:  # [B, blocks, size, ...]
            fill = [0, 0] * (values.ndim - 2) + [0, blocks * size - cuts]
            return F.pad(values, fill).unflatten(1, (blocks, size))

        def near(values: Tensor) -> Tensor:  # of the blocks before and after as well, [B, blocks, 3 * size, ...]
            nothing = torch.zeros_like(values[:, :1])
            return torch.cat(
                [torch.cat([nothing, values[:, :-1]], 1), values, torch.cat([values[:, 1:], nothing], 1)], 2
            )

        q, k, v = (split(part.unflatten(-1, (self.heads, -1))) for part in self.project(self.norm(x)).chunk(3, -1))
        apart = torch.arange(3 * size) - size - torch.arange(size)[:, None]
        bias = self.bias[:, apart.clamp(-size, size) + size].masked_fill(apart.abs() > size, -1e9)
        logits = torch.einsum("bnqhd,bnkhd->bnhqk", q, near(k)) * q.shape[-1] ** -0.5 + bias
        weights = logits.masked_fill(~near(split(known))[:, :, None, None], -1e9).softmax(-1)
        found = torch.einsum("bnhqk,bnkhd->bnqhd", weights, near(v))
        return self.out(found.reshape(batch, blocks * size, hidden)[:, :cuts])


class StateSpace(nn.Module):
    """States of the film up to the cut and after it; each decays in its own time, faster or slower as inputs say."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm, self.gate, self.out = nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.log_seconds = nn.Parameter(torch.linspace(np.log(3), np.log(300), hidden))
        nn.init.zeros_(self.gate.weight)

    def forward(self, x: Tensor, known: Tensor, seconds: Tensor) -> Tensor:
        x = self.norm(x)
        kept = torch.exp(-seconds[..., None] * 2 * self.gate(x).sigmoid() / self.log_seconds.exp())
        kept = torch.where(known[..., None], kept, 1.0)
        before = _scan(kept, (1 - kept) * x)
        after = _scan(kept.flip(1), ((1 - kept) * x).flip(1)).flip(1)
        return self.out(torch.cat([before, F.pad(after[:, 1:], (0, 0, 0, 1))], -1))


def _scan(kept: Tensor, added: Tensor) -> Tensor:
    """`state[t] = kept[t] * state[t - 1] + added[t]`, in logarithmically many steps (Hillis and Steele, 1986)."""
    apart = 1
    while apart < kept.shape[1]:
        added = torch.cat([added[:, :apart], added[:, apart:] + kept[:, apart:] * added[:, :-apart]], 1)
        kept = torch.cat([kept[:, :apart], kept[:, apart:] * kept[:, :-apart]], 1)
        apart *= 2
    return added


class Network(nn.Module):
    """The film head, with layers between its own in which cuts see each other."""

    def __init__(self, inputs: int, mixer: str | None, settings: Settings) -> None:
        super().__init__()
        self.film = FilmHead(inputs, settings.hidden, dropout=settings.dropout)
        kind = {"attention": Attention, "state space": StateSpace}.get(mixer or "")
        self.mixers = nn.ModuleList(kind(settings.hidden) for _ in self.film.layers) if kind else [None] * 2
        self.dropout, self.head = nn.Dropout(settings.dropout), nn.Linear(settings.hidden, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, statistics: Tensor, known: Tensor, seconds: Tensor, logit: Tensor) -> Tensor:
        """Logits `[B, S]` from statistics `[B, S, F]`."""
        x = self.film.embed(((statistics - self.film.mean) / self.film.deviation).clamp(-5, 5))
        for mixer, layer in zip(self.mixers, self.film.layers, strict=True):
            x = x if mixer is None else x + self.dropout(mixer(x, known, seconds))
            x = x + layer(x)
        return logit + self.head(self.film.norm(x))[..., 0]

    @torch.no_grad()
    def of_film(self, film: Cuts) -> np.ndarray:
        x, y, seconds, logit = (part[None] for part in film.tensors())
        return self(x, torch.ones_like(y, dtype=torch.bool), seconds, logit)[0].numpy()


def trained(films: Sequence[Cuts], mixer: str | None, settings: Settings, seed: int) -> Iterator[Network]:
    """The network after each epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    known = [film.tensors() for film in films]
    net = Network(films[0].statistics.shape[1], mixer, settings)
    net.film.standardise(torch.cat([film[0] for film in known]))
    steps = -(-sum(-(-len(film.labels) // STRETCH) for film in films) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.lr, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.lr, total_steps=settings.epochs * steps + 2, pct_start=0.1
    )
    for _ in range(settings.epochs):
        shift = int(rng.integers(STRETCH))  # so that stretches begin elsewhere in every epoch
        starts = [(film, at) for film in range(len(films)) for at in range(-shift, len(films[film].labels), STRETCH)]
        for batch in np.array_split(rng.permutation(len(starts)), steps):
            rows = [starts[i] for i in batch]
            parts = [[x[max(0, at) : at + STRETCH] for x in known[film]] for film, at in rows]
            x, y, seconds, logit = (nn.utils.rnn.pad_sequence(list(some), True) for some in zip(*parts, strict=True))
            lengths = torch.tensor([len(part[1]) for part in parts])
            inside = torch.arange(y.shape[1]) < lengths[:, None]
            labelled = inside & (y >= 0)
            if not labelled.any():
                continue
            net.train()
            loss = F.binary_cross_entropy_with_logits(net(x, inside, seconds, logit)[labelled], y[labelled])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        yield net.eval()


# Scores


def ap(labels: np.ndarray, logits: np.ndarray) -> float:
    known = labels >= 0
    return 100 * float(average_precision_score(labels[known] == 1, logits[known]))


def row(
    model: str,
    group: str,
    labels: Sequence[np.ndarray],
    runs: Sequence[Sequence[np.ndarray]],
    base: Sequence[np.ndarray],
) -> dict[str, Any]:
    """Scores of the logits of each run of a model, against those of the similarity head."""
    pooled = [ap(np.concatenate(labels), np.concatenate(run)) for run in runs]
    each = np.array([[ap(*pair) for pair in zip(labels, run, strict=True)] for run in runs])
    gain = each.mean(0) - [ap(*pair) for pair in zip(labels, base, strict=True)]
    found = {"model": model, "set": group, "films": len(labels), "pooled_ap": np.mean(pooled), "mean_ap": each.mean()}
    found |= {"gain": gain.mean(), "standard_error": gain.std(ddof=1) / len(gain) ** 0.5}
    found |= {"seeds": len(runs), "pooled_ap_stdev": np.std(pooled)}
    return {key: value if isinstance(value, str | int) else float(value) for key, value in found.items()}


# By the commands


def finetuned(path: Path, seeds: int) -> Iterator[dict[str, Any]]:
    """The heads as `bassl-fast finetune` trains them on features that are all alike."""
    configs = Path(__file__).parents[1] / "configs" / "finetune"
    with TemporaryDirectory() as folder:
        films = no_pixels.read_films(path)
        features = write_features(films, Path(folder) / "features")
        batch = min(1024, sum(int((film.boundary >= 0).sum()) for film in films["train"]))
        scores: dict[str, list[dict[str, list[FilmScores]]]] = {"similarity": [], "film": []}
        for head, runs in scores.items():
            for seed in range(seeds if head == "film" else 1):
                out = f"{folder}/{head}{seed}"
                where = ["--config", str(configs / f"{head}.yaml"), "--data.features", features, "--out", out]
                if cli.main(["finetune", *where, "--seed", str(seed), "--data.batch", str(batch)]):
                    raise SystemExit(1)
                runs.append({split: score(f"{out}/best.ckpt", features, split)[0] for split in ("val", "test")})
    for split in ("val", "test"):
        scored = scores["similarity"][0][split]
        base = [film.probability for film in scored]
        for head, runs in scores.items():
            logits = [[film.probability for film in run[split]] for run in runs]
            yield row(f"finetune, {head}", split, [film.boundary for film in scored], logits, base)


def write_features(splits: dict[str, list[no_pixels.Film]], root: Path) -> str:
    """A folder of features of one number, always 0, with shots, labels and times of speech of the films."""
    films = [(split, film) for split, some in splits.items() for film in some]
    sequences, tables = np.zeros(len(films), sequence_dtype([film.name.encode() for _, film in films])), []
    root.mkdir()
    for line, (split, film) in zip(sequences, films, strict=True):
        table = np.zeros(len(film.end), SHOT_WITH_SPEECH)
        table["shot"], table["scene"], table["boundary"] = np.arange(len(table)), -1, film.boundary
        table["start"], table["end"] = np.round(film.start * FPS), np.round(film.end * FPS) - 1
        for name, column in zip(SPEECH.names or (), speech_of_shots(film.start, film.end, film.lines).T, strict=True):
            table[name] = column
        np.save(root / f"{film.name}.npy", np.zeros((len(table), 1), np.float32))
        line["name"], line["split"], line["shots"] = film.name.encode(), split.encode(), len(table)
        tables.append(table)
    provenance = {"dim": 1, "dtype": "float32", "checkpoint": None, "checkpoint_sha256": None}
    provenance |= {"shards": None, "manifest_sha256": None, "transform": None}
    write_index(open_place(root), sequences, np.concatenate(tables), provenance, {})
    return str(root)


# Durations and speech


def without_pixels(path: Path, seeds: int) -> Iterator[dict[str, Any]]:
    films = {split: [_cuts(film) for film in some] for split, some in no_pixels.read_films(path).items()}
    base = _linear(films, len(names("heard")))
    wide = _linear(films, len(names("film")))
    networks = {
        name: [list(trained(films["train"], mixer, LARGE, seed))[-1] for seed in range(seeds)]
        for name, mixer in MIXERS.items()
    }
    for split in ("val", "test"):
        labels = [film.labels for film in films[split]]
        yield row("similarity head", split, labels, [base[split]], base[split])
        yield row("linear", split, labels, [wide[split]], base[split])
        for name, nets in networks.items():
            runs = [[net.of_film(film) for film in films[split]] for net in nets]
            yield row(name, split, labels, runs, base[split])


def _cuts(film: no_pixels.Film) -> Cuts:
    seconds = film.end - film.start
    spoken = speech_of_shots(film.start, film.end, film.lines)
    same = alike(np.zeros((len(seconds), 1), np.float32))
    found = statistics_of([same], seconds, spoken, "film")
    return Cuts(found, film.boundary, seconds, np.zeros(len(seconds)))


def _linear(films: dict[str, list[Cuts]], columns: int) -> dict[str, list[np.ndarray]]:
    x = np.concatenate([film.statistics[:, :columns] for film in films["train"]])
    y = np.concatenate([film.labels for film in films["train"]])
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=0.01, max_iter=200, tol=1e-3)
    model.fit(((x - mean) / deviation).clip(-5, 5)[y >= 0], y[y >= 0])
    return {
        split: [
            model.decision_function(((film.statistics[:, :columns] - mean) / deviation).clip(-5, 5)) for film in some
        ]
        for split, some in films.items()
    }


# Real films, across sets


def across_sets(folder: Path, seeds: int, epochs: int) -> Iterator[dict[str, Any]]:
    settings = replace(SMALL, epochs=epochs)
    films = real_films.read_films(folder)
    for group in sorted({film.group for film in films}):
        test, train = ([f for f in films if (f.group == group) == wanted] for wanted in (True, False))
        known: list[list[Cuts]] = [[]] * len(train)  # of each film, with its kinds and pairs of kinds
        for fold in range(min(FOLDS, len(train))):
            head = _similarity([film for i, film in enumerate(train) if i % FOLDS != fold])
            known[fold::FOLDS] = [[_seen(film, kinds, head) for kinds in _kinds(film)] for film in train[fold::FOLDS]]
        head = _similarity(train)
        scored: dict[tuple[str, ...], list[Cuts]] = {
            kinds: [_seen(film, kinds, head) for film in test if film.having(kinds)] for kinds in (("hue",), ALL)
        }
        chosen = {name: _epochs(known, mixer, settings) for name, mixer in MIXERS.items()}
        samples = [cuts for film in known for cuts in film]
        runs = {
            name: [
                [None, *_kept(trained(samples, mixer, settings, seed), scored)][chosen[name]] for seed in range(seeds)
            ]
            for name, mixer in MIXERS.items()
        }
        for kinds, some in scored.items():
            base, where = [cuts.logit for cuts in some], f"{group}, {' + '.join(kinds)}"
            labels = [cuts.labels for cuts in some]
            yield row("similarity head", where, labels, [base], base)
            for name, found in runs.items():
                yield row(name, where, labels, [base if one is None else one[kinds] for one in found], base) | {
                    "epochs": chosen[name]
                }


def _similarity(films: Sequence[real_films.Film]):
    everything = sorted({kind for film in films for kind in film.kinds})
    return fit([film.labelled(everything) for film in films]).head


def _kinds(film: real_films.Film) -> list[tuple[str, ...]]:
    had = [kind for kind in ALL if kind in film.kinds]
    return [some for count in range(1, len(had) + 1) for some in combinations(had, count)]


def _seen(film: real_films.Film, kinds: Sequence[str], head) -> Cuts:
    """The cuts of a film but for its last shot, which is no cut."""
    found = statistics_of([alike(x) for x in film.having(kinds)], film.seconds, None, "film")
    logit = head(found[:, : len(names("similar"))])
    return Cuts(found[:-1], film.boundary[:-1].astype(np.int64), film.seconds[:-1], logit[:-1])


def _epochs(films: list[list[Cuts]], mixer: str | None, settings: Settings) -> int:
    """The number of epochs of highest AP on films left out in turn; 0 keeps the similarity head."""
    totals = np.zeros(settings.epochs + 1)
    for fold in range(FOLDS):
        held = [cuts for film in films[fold::FOLDS] for cuts in film if (cuts.labels == 1).any()]
        others = [cuts for i, film in enumerate(films) if i % FOLDS != fold for cuts in film]
        if held and others:
            totals[0] += sum(ap(cuts.labels, cuts.logit) for cuts in held)
            for epoch, net in enumerate(trained(others, mixer, settings, fold), 1):
                totals[epoch] += sum(ap(cuts.labels, net.of_film(cuts)) for cuts in held)
    return int(totals.argmax())


def _kept(networks: Iterator[Network], scored: dict[tuple[str, ...], list[Cuts]]) -> Iterator[dict]:
    for net in networks:
        yield {kinds: [net.of_film(cuts) for cuts in some] for kinds, some in scored.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="file of benchmarks.no_pixels")
    parser.add_argument("--films", type=Path, help="folder of benchmarks.real_films")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each row")
    parser.add_argument("--epochs", type=int, default=SMALL.epochs, help="at most, with --films")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    args = parser.parse_args()
    rows = []
    print(f"{'set':20}{'model':18}films  pooled    mean  gain of a film")
    parts = [part(args.labels, args.seeds) for part in (without_pixels, finetuned)] if args.labels else []
    parts += [across_sets(args.films, args.seeds, args.epochs)] if args.films else []
    for one in chain.from_iterable(parts):
        rows.append(one)
        shown = f"{one['set']:20}{one['model']:18}{one['films']:5}{one['pooled_ap']:8.2f}{one['mean_ap']:8.2f}"
        print(f"{shown}  {one['gain']:+.2f} +- {one['standard_error']:.2f}", flush=True)
    report = {"benchmark": "heads", "settings": {"seeds": args.seeds, "epochs": args.epochs}, "machine": machine()}
    if args.out:
        args.out.write_text(json.dumps(report | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
