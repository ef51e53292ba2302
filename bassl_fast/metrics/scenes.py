"""Scores of predicted scene boundaries: pure functions from probabilities and labels to percent.

Three kinds, as in BaSSL (Mun et al., arXiv:2201.05277) on MovieNet-SSeg: ranking of shots (AP, AUC), decisions at a
threshold (F1, recall, recall@3s), and overlap of whole scenes (mIoU). `METRICS` lists them; a new one is a function of
(films, threshold) and an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from types import ModuleType

import numpy as np

from shard_tools.annotations.labels import FPS
from shard_tools.errors import ConfigError, FeatureError

NEAR_SHOTS = 5  # recall@3s: a predicted boundary counts within this many shots ...
NEAR_SECONDS = 3.0  # ... and less than this far in time, shot end to shot end


@dataclass(frozen=True)
class FilmScores:
    """Probabilities and labels of one film, a row per shot in film order.

    Attributes:
        probability: `[S]` float in 0..1, that the shot is the last of its scene.
        boundary: `[S]` int, 1 = last shot of its scene, 0 = not, -1 = unlabelled.
        start, end: `[S]` int, first and last frame (inclusive) at 24 frames a second, -1 = unknown.

    Raises:
        FeatureError: arrays of different length, a label other than 1, 0, -1, a shot that ends before it starts, or a
            probability that is NaN or outside 0..1. The message names the film.
    """

    film: str
    probability: np.ndarray
    boundary: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __post_init__(self) -> None:
        for name in ("probability", "boundary", "start", "end"):
            array = np.asarray(getattr(self, name), np.float64 if name == "probability" else np.int64)
            if array.shape != (len(self.probability),):
                raise FeatureError(
                    f"{self.film}: {name} has shape {list(array.shape)} for {len(self.probability)} scores; "
                    "score the film again with the shards it was labelled with"
                )
            object.__setattr__(self, name, array)
        bad = ~((self.probability >= 0) & (self.probability <= 1))  # NaN fails both
        if bad.any():
            shot = int(bad.argmax())
            raise FeatureError(
                f"{self.film}: score of shot {shot} is {self.probability[shot]}, not a probability "
                f"({bad.sum()} of {len(bad)} shots); check the features and the checkpoint"
            )
        if not np.isin(self.boundary, (-1, 0, 1)).all():
            raise FeatureError(f"{self.film}: a boundary label is not 1, 0 or -1 (unlabelled); check the annotations")
        if ((self.end < self.start) & (self.end >= 0)).any():
            shot = int(((self.end < self.start) & (self.end >= 0)).argmax())
            raise FeatureError(f"{self.film}: shot {shot} ends before it starts; check its shot times")

    @property
    def labelled(self) -> np.ndarray:
        """`[S]` bool: the shots that count."""
        return self.boundary >= 0

    @property
    def timed(self) -> bool:
        """Whether the frames of every labelled shot are known."""
        return bool((np.minimum(self.start, self.end)[self.labelled] >= 0).all())

    def predicted(self, threshold: float) -> np.ndarray:
        """`[S]` bool: predicted boundaries."""
        return self.probability >= threshold


# Percent of a set of films at a threshold, at which a shot is a predicted boundary when its probability is at least
# this; None where the score is undefined.
Metric = Callable[[Sequence[FilmScores], float], float | None]


def scene_metrics(
    films: Sequence[FilmScores],
    threshold: float = 0.5,
    reference_quirks: bool = False,
    more: Mapping[str, Metric] | None = None,
) -> dict[str, float]:
    """All scores of a set of films, in percent; a score that is undefined on them is left out.

    Pooled over all shots: `ap`, `auc`, `f1`, `acc`, and `acc1`, `acc0` over shots that are and are not a boundary.
    Averaged over films: `mean_ap`, `recall`, `recall_at_3s`, `miou`. A film without a true boundary has no AP and no
    recall and is skipped in those means; it counts in every other score (as one scene, in `miou`).
    `recall_at_3s` and `miou` need the frames of every labelled shot of every film, else both are left out.
    Unlabelled shots are ignored everywhere, also in the scenes of `miou`.

    Args:
        threshold: a shot is a predicted boundary when its probability is at least this.
        reference_quirks: score as the published code does, to compare with its numbers: unlabelled shots count as
            boundaries, shots after the last boundary belong to no scene, a scene is one frame short.
        more: metrics besides ours, by name.

    Raises:
        FeatureError: no labelled shot at all; with `reference_quirks`, a film without a true or predicted boundary.
        ConfigError: a metric of `more` returns something other than a number or None.
    """
    metrics = {**METRICS, **(more or {})}
    if reference_quirks:
        films = [FilmScores(f.film, f.probability, abs(f.boundary), f.start, f.end) for f in films]
        metrics["miou"] = partial(mean_iou, quirks=True)
    return scores_of(films, threshold, metrics)


def scores_of(films: Sequence[FilmScores], threshold: float, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Scores by the name of their metric; one that is undefined on the films is left out.

    Raises:
        FeatureError: no labelled shot at all.
        ConfigError: a metric returns something other than a number or None.
    """
    _pool(films)  # raises if nothing is labelled
    scores = {name: metric(films, threshold) for name, metric in metrics.items()}
    for name, score in scores.items():
        if not isinstance(score, Real | None):
            raise ConfigError(f"metric {name}: returned {type(score).__name__}, not a number; fix the plug-in")
    return {name: float(score) for name, score in scores.items() if score is not None}


def accuracy(films: Sequence[FilmScores], threshold: float) -> float:
    """Shots labelled correctly."""
    truth, probability = _pool(films)
    return 100 * ((probability >= threshold) == truth).mean()


def average_precision(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Area under the precision-recall curve of all shots; the threshold has no effect."""
    truth, probability = _pool(films)
    return 100 * average_precision_of(truth, probability) if truth.any() else None


def average_precision_of(truth: np.ndarray, probability: np.ndarray) -> float:
    """Average precision, 0..1, of `[N]` labels (bool) and probabilities; 0 if no label is true."""
    return float(_sklearn().average_precision_score(truth, probability)) if truth.any() else 0.0


def f1(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Harmonic mean of precision and recall, pooled over shots."""
    truth, probability = _pool(films)
    predicted = probability >= threshold
    return 100 * (2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())) if truth.any() else None


def accuracy_on_boundaries(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Boundary shots labelled correctly."""
    truth, probability = _pool(films)
    return 100 * (probability >= threshold)[truth].mean() if truth.any() else None


def accuracy_elsewhere(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Other shots labelled correctly."""
    truth, probability = _pool(films)
    return 100 * (1 - (probability >= threshold)[~truth].mean()) if not truth.all() else None


def area_under_roc(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Area under the ROC curve of all shots; the threshold has no effect."""
    truth, probability = _pool(films)
    return 100 * _sklearn().roc_auc_score(truth, probability) if truth.any() and not truth.all() else None


def mean_average_precision(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Mean of the average precisions of films with a true boundary."""
    found = [_sklearn().average_precision_score(*_pool([f])) for f in _with_truth(films)]
    return 100 * np.mean(found) if found else None


def mean_recall(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Mean over films of the share of true boundaries that are predicted."""
    found = [f.predicted(threshold)[f.boundary == 1].mean() for f in _with_truth(films)]
    return 100 * np.mean(found) if found else None


def recall_at_3s(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Mean over films of the share of true boundaries with a predicted one nearby, in shots and in time."""
    found = [_recall_near(f, threshold) for f in _with_truth(films)] if all(f.timed for f in films) else []
    return 100 * np.mean(found) if found else None


def mean_iou(films: Sequence[FilmScores], threshold: float, quirks: bool = False) -> float | None:
    """Mean over films of the overlap of true and predicted scenes. `quirks`: see `scene_metrics`."""
    if not all(f.timed for f in films):
        return None
    return 100 * np.mean([_miou(f, threshold, quirks) for f in films if f.labelled.any()])


METRICS: dict[str, Metric] = {
    "acc": accuracy,
    "ap": average_precision,
    "f1": f1,
    "acc1": accuracy_on_boundaries,
    "acc0": accuracy_elsewhere,
    "auc": area_under_roc,
    "mean_ap": mean_average_precision,
    "recall": mean_recall,
    "recall_at_3s": recall_at_3s,
    "miou": mean_iou,
}


def per_film(films: Sequence[FilmScores], threshold: float = 0.5) -> list[dict[str, str | int | float]]:
    """A row a film, in the order given: `film`; counts `shots`, `boundaries`, `predicted`, `hits` of labelled shots;
    and the `scene_metrics` of the film alone. A film without labels has only its counts."""
    rows = []
    for film in films:
        truth, predicted = film.boundary == 1, film.predicted(threshold) & film.labelled
        row: dict[str, str | int | float] = {
            "film": film.film,
            "shots": int(film.labelled.sum()),
            "boundaries": int(truth.sum()),
            "predicted": int(predicted.sum()),
            "hits": int((truth & predicted).sum()),
        }
        scores = scene_metrics([film], threshold) if film.labelled.any() else {}
        rows.append(row | {name: value for name, value in scores.items() if name != "mean_ap"})
    return rows


def precision_recall(films: Sequence[FilmScores]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pooled curve: precision `[K+1]`, recall `[K+1]` (falling, ends at precision 1, recall 0), thresholds `[K]`.

    Raises:
        FeatureError: no film has a true boundary, so recall is undefined.
    """
    truth, probability = _pool(films)
    if not truth.any():
        raise FeatureError(f"no true boundary in {_names(films)}; a precision-recall curve needs one")
    return _sklearn().precision_recall_curve(truth, probability)


def best_threshold(films: Sequence[FilmScores]) -> float:
    """The threshold with the highest pooled F1, the lowest of a tie. Choose it on validation films, not on test films.

    Raises:
        FeatureError: no film has a true boundary.
    """
    precision, recall, thresholds = precision_recall(films)
    half_f1 = precision * recall / np.maximum(precision + recall, 1e-12)
    return float(thresholds[half_f1[:-1].argmax()])


def _sklearn() -> ModuleType:
    """Imported when a score is computed: it takes a second, and `scenes` needs none."""
    from sklearn import metrics

    return metrics


def _pool(films: Sequence[FilmScores]) -> tuple[np.ndarray, np.ndarray]:
    """Truth (bool) and probability `[N]` of the labelled shots of all films."""
    if not any(f.labelled.any() for f in films):
        raise FeatureError(f"no labelled shot in {_names(films)}; score films of a labelled split")
    truth = np.concatenate([f.boundary[f.labelled] == 1 for f in films])
    return truth, np.concatenate([f.probability[f.labelled] for f in films])


def _with_truth(films: Sequence[FilmScores]) -> list[FilmScores]:
    """Films with a true boundary."""
    return [f for f in films if (f.boundary == 1).any()]


def _names(films: Sequence[FilmScores]) -> str:
    return ", ".join(f.film for f in films[:3]) + (", ..." if len(films) > 3 else "") if films else "no films"


def _recall_near(film: FilmScores, threshold: float) -> float:
    """Share of the true boundaries of a film with a predicted one nearby, in shots and in time."""
    truth = np.flatnonzero(film.boundary == 1)[:, None]  # [G, 1]
    predicted = np.flatnonzero(film.predicted(threshold) & film.labelled)[None]  # [1, P]
    near = abs(truth - predicted) <= NEAR_SHOTS
    near &= abs(film.end[truth] - film.end[predicted]) < NEAR_SECONDS * FPS
    return float(near.any(1).mean())


def _scene_frames(film: FilmScores, boundary: np.ndarray, tail: bool) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame `[N]` of each scene, where scenes end at `boundary [S]` (bool).

    A scene also ends where the labels end. `tail`: the shots after the last boundary are a scene too.
    """
    inside = film.labelled
    last = inside & (boundary | ~np.append(inside[1:], not tail))
    first = inside & ~np.insert((inside & ~last)[:-1], 0, False)
    return film.start[first][: last.sum()], film.end[last]


def _miou(film: FilmScores, threshold: float, quirks: bool) -> float:
    """Mean IoU in frames of each scene with its best match, averaged over true and predicted scenes."""
    start, end = _scene_frames(film, film.boundary == 1, tail=not quirks)
    other_start, other_end = _scene_frames(film, film.predicted(threshold), tail=not quirks)
    if not len(start) or not len(other_start):
        raise FeatureError(f"{film.film}: no boundary, which the reference cannot score; leave reference_quirks off")
    inclusive = 0 if quirks else 1  # the reference takes end - start, which makes a one-frame shot empty
    length = (end - start + inclusive)[:, None]
    other_length = (other_end - other_start + inclusive)[None]
    overlap = np.minimum(end[:, None], other_end) - np.maximum(start[:, None], other_start) + inclusive  # [G, P]
    overlap = np.maximum(overlap, 0)
    iou = overlap / np.maximum(length + other_length - overlap, 1)
    return float((iou.max(0).mean() + iou.max(1).mean()) / 2)
