"""Boundaries from the similarity of shots: the head is fitted to labelled films, kept in a file, used on new ones.

    labelled films -> fit -> SimilarityModel -> probability of a boundary after each shot of a film

The problem is convex and small, so it is solved exactly: no epochs. The weights that come with the package,
`similarity.safetensors` beside this file, are described in docs/reference/model-card.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bassl_fast.config.choices import Detail
from bassl_fast.heads.similarity import SimilarityHead, alike, film_statistics, statistic_names
from shard_tools.errors import CheckpointError, FeatureError
from shard_tools.storage.atomic import write_atomically
from shard_tools.storage.untrusted import one_line, parse_json

from .films import LabelledFilm
from .joined import joined
from .logistic import solve

SHIPPED = Path(__file__).with_name("similarity.safetensors")
# Predicted scenes for each that people mark, in the middle of the training films.
DETAILS: dict[Detail, float] = {"coarse": 0.5, "normal": 1.0, "fine": 2.0}
PENALTY = 1 / 0.006  # of half the squared weights, beside a sum over shots
FOLDS = 8  # of films, to choose thresholds on films that were not trained on
_TOGETHER = 2  # kinds of features of a film that are trained on at once, at most
_NOTES = "similarity"  # key of the file's metadata
_WEIGHT, _BIAS = "linear.weight", "linear.bias"  # names in the file
_DIGITS = 6  # of the weights; what is beyond differs between machines


@dataclass(frozen=True)
class SimilarityModel:
    """A fitted head and its thresholds.

    Attributes:
        head: gives logits.
        thresholds: probability from which a shot ends a scene, by detail.
    """

    head: SimilarityHead
    thresholds: dict[Detail, float]

    def probability(
        self,
        kinds: Sequence[np.ndarray],
        seconds: np.ndarray,
        film: str = "film",
        words: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability `[S]` that a shot is the last of its scene; 0 for the last of the film.

        Args:
            kinds: features of each kind, `[S, D]` or `[S, K, D]` for K key-frames per shot.
            seconds: `[S]`, how long the shots last.
            film: its name, for errors.
            words: one more kind, `[S, D]`, which shots may lack: their features are NaN.

        Raises:
            FeatureError: a feature is not finite, or a kind has features of another number of shots.
        """
        similar = _similarities(kinds, seconds, film)
        if words is not None:
            similar.append(alike(words, film, may_lack=True))
        return score(self.head, film_statistics(similar, seconds))

    def save(self, path: str | Path) -> None:
        """Write it as safetensors."""
        notes = json.dumps({"names": statistic_names(), "thresholds": self.thresholds})
        weights = self.head.coefficients
        write_atomically(
            Path(path), save({_WEIGHT: weights[None, :-1], _BIAS: weights[-1:]}, {_NOTES: notes})
        )  # one key, as the order of two varies

    @classmethod
    def load(cls, path: str | Path = SHIPPED) -> SimilarityModel:
        """Read it.

        Raises:
            CheckpointError: not such a file, or of another version.
        """
        try:
            with safe_open(path, "np") as file:
                notes = parse_json((file.metadata() or {}).get(_NOTES, "{}"))
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dictionary
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as safetensors ({one_line(error)}); install bassl-fast again"
            ) from None
        shapes = {_WEIGHT: (1, len(statistic_names())), _BIAS: (1,)}
        current = isinstance(notes, dict) and notes.get("names") == statistic_names()
        current = current and set(notes.get("thresholds", ())) == set(DETAILS)
        if not current or {name: w.shape for name, w in weights.items()} != shapes:
            raise CheckpointError(f"{path}: weights of another version of the head; install bassl-fast again")
        return cls(SimilarityHead(np.append(weights[_WEIGHT], weights[_BIAS])), notes["thresholds"])


def fit(films: Sequence[LabelledFilm]) -> SimilarityModel:
    """Logistic regression on the statistics of all labelled cuts, with a penalty on the squared weights.

    Every film is used once with each kind of feature and with each pair of kinds, so that the head learns no habits of
    one kind; together they weigh as much as a film used once. Films joined from pieces of them weigh as much as all of
    them. Thresholds are chosen on films held out in turn.

    Raises:
        FeatureError: no labelled boundary, no other labelled cut, or features that do not fit the shots.
    """
    sets = [Samples.of(film) for film in films]
    if not has_both(sets):
        raise FeatureError("the films need a labelled scene boundary and a labelled cut inside a scene; add such films")
    more = [(pieces, Samples.of(film)) for film, pieces in joined(films)]
    head, held_out = _fitted(sets, [samples for _, samples in more]), []
    for fold in range(min(FOLDS, len(sets))):
        left_out = set(range(fold, len(sets), FOLDS))
        others = [samples for i, samples in enumerate(sets) if i not in left_out]
        of_others = [samples for pieces, samples in more if not pieces & left_out]
        without = _fitted(others, of_others) if has_both(others) else head
        held_out += [(score(without, x), samples.labels) for samples in sets[fold::FOLDS] for x in samples.statistics]
    return SimilarityModel(head, {detail: choose_threshold(held_out, ratio) for detail, ratio in DETAILS.items()})


def _fitted(sets: Sequence[Samples], more: Sequence[Samples]) -> SimilarityHead:
    """The head that fits the labelled cuts of films, and of films joined from them, best.

    Joined films have more boundaries, so they have an intercept of their own, which is left out in the end.
    """
    x, y, weight = cuts_of(sets)
    if more:
        x_joined, y_joined, weight_joined = cuts_of(more)
        x = np.concatenate([np.pad(x, ((0, 0), (0, 1))), np.pad(x_joined, ((0, 0), (0, 1)), constant_values=1)])
        y = np.concatenate([y, y_joined])
        weight = np.concatenate([weight, weight_joined * weight.sum() / weight_joined.sum()])
    count = sets[0].statistics[0].shape[1]
    penalty = np.array([PENALTY] * count + [0.0] + [1.0] * bool(more))
    return head_of(solve(x, y, weight, np.zeros(len(penalty)), penalty)[: count + 1])


@dataclass(frozen=True)
class Samples:
    """The cuts of a film: statistics `[S, F]` for every choice of kinds, and labels `[S]`, -1 where unlabelled."""

    statistics: list[np.ndarray]
    labels: np.ndarray

    @classmethod
    def of(cls, film: LabelledFilm) -> Samples:
        """Every kind of a film, and every pair of kinds.

        Raises:
            FeatureError: a feature is not finite, or a kind has features of another number of shots.
        """
        similar = _similarities(list(film.kinds.values()), film.seconds, film.name)
        chosen = [some for count in range(1, _TOGETHER + 1) for some in combinations(similar, count)]
        labels = np.array(film.boundary, np.int64)
        labels[-1:] = -1  # a film ends there in any case
        speech = [] if film.speech is None else [film.speech]
        return cls([np.column_stack([film_statistics(some, film.seconds), *speech]) for some in chosen], labels)


def _similarities(kinds: Sequence[np.ndarray], seconds: np.ndarray, film: str) -> list[np.ndarray]:
    for features in kinds:
        if len(features) != len(seconds):
            raise FeatureError(
                f"{film}: features of {len(features)} shots, but {len(seconds)} durations; use those of the same shots"
            )
    return [alike(features, film) for features in kinds]


def has_both(sets: Sequence[Samples]) -> bool:
    """Whether some cuts are boundaries and some are not."""
    return all(any((samples.labels == label).any() for samples in sets) for label in (0, 1))


def cuts_of(sets: Sequence[Samples]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled cuts for `solve`: statistics and a one `[N, F + 1]`, labels `[N]`, weights `[N]`."""
    x, y, weight = [], [], []
    for samples in sets:
        known = samples.labels >= 0
        for statistics in samples.statistics:
            x.append(np.column_stack([statistics[known], np.ones(known.sum())]).astype(np.float64))
            y.append(samples.labels[known])
            weight.append(np.full(known.sum(), 1 / len(samples.statistics)))
    return np.concatenate(x), np.concatenate(y), np.concatenate(weight)


def head_of(coefficients: np.ndarray) -> SimilarityHead:
    """The head of coefficients `[F + 1]`, the intercept last."""
    return SimilarityHead(coefficients.round(_DIGITS).astype(np.float32))


def score(head: SimilarityHead, statistics: np.ndarray) -> np.ndarray:
    """Probability `[S]` of a boundary, from the statistics `[S, F]` of a film; 0 for the last shot."""
    found = 1 / (1 + np.exp(-head(statistics)))
    found[-1:] = 0.0
    return found


def choose_threshold(held_out: Sequence[tuple[np.ndarray, np.ndarray]], ratio: float = 1.0) -> float:
    """The threshold at which half of the films have fewer than `ratio` times their true scenes, and half have more.

    Args:
        held_out: probability `[S]` and labels `[S]` of each film.
    """
    each = []
    for probability, labels in held_out:
        known = labels >= 0
        wanted = max(1, round(ratio * (int((labels[known] == 1).sum()) + 1)) - 1)  # boundaries
        ranked = np.sort(probability[known])[::-1]
        each.append(ranked[min(wanted, len(ranked)) - 1] if len(ranked) else 0.5)
    return round(float(np.median(each)), 4)
