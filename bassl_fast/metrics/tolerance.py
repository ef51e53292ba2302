"""Boundaries that count as found if they are near enough: F1 and AP with a tolerance in time.

    true        |         |      |
    predicted     |       |          |      tolerance 2: two of three found, one of three predictions wrong

A prediction finds at most one true boundary and the reverse, as in the detection of actions or events. Times are those
at which shots end, in frames at 24 a second. All scores are pooled over films, in percent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from shard_tools.annotations.labels import FPS
from shard_tools.errors import ConfigError

from .scenes import FilmScores, Metric, average_precision_of

_TOLERANCE = re.compile(r"([0-9]+(?:\.[0-9]+)?)s|([0-9]+)f")


def read_tolerance(text: str) -> float:
    """Frames at 24 a second of a tolerance such as "3s" or "12f".

    Raises:
        ConfigError: it is neither.
    """
    if not (match := _TOLERANCE.fullmatch(text)):
        raise ConfigError(f"tolerance {text}: give seconds or frames at 24 a second, such as 3s or 12f")
    return float(match[1]) * FPS if match[1] else float(match[2])


def tolerant_metrics(tolerance: float) -> dict[str, Metric]:
    """Name -> metric; each is None if the frames of a labelled shot are not known.

    Args:
        tolerance: largest distance that counts, in frames.
    """
    found = {"precision_near": precision, "recall_near": recall, "f1_near": f1, "ap_near": average_precision}
    return {name: partial(metric, tolerance=tolerance) for name, metric in found.items()}


def matched(truth: np.ndarray, predicted: np.ndarray, tolerance: float) -> int:
    """The largest number of pairs of a true and a predicted boundary at most `tolerance` apart.

    Args:
        truth, predicted: `[G]` and `[P]` times, ascending.
    """
    t = p = pairs = 0
    while t < len(truth) and p < len(predicted):
        if abs(truth[t] - predicted[p]) <= tolerance:
            pairs, t, p = pairs + 1, t + 1, p + 1
        elif truth[t] < predicted[p]:
            t += 1
        else:
            p += 1
    return pairs


def hits(truth: np.ndarray, times: np.ndarray, probability: np.ndarray, tolerance: float) -> np.ndarray:
    """`[S]` bool: which shots find a true boundary, if the most probable choose first, each the nearest that is left.

    Args:
        truth: `[G]` times of the true boundaries.
        times, probability: `[S]` of the shots.
    """
    found, left = np.zeros(len(times), bool), np.ones(len(truth), bool)
    for shot in np.argsort(-probability, kind="stable").tolist():
        distance = np.where(left, abs(truth - times[shot]), np.inf)
        if len(truth) and distance.min() <= tolerance:
            found[shot], left[distance.argmin()] = True, False
    return found


def precision(films: Sequence[FilmScores], threshold: float, tolerance: float) -> float | None:
    """Predicted boundaries near a true one of their own."""
    pairs, _, predicted = _counts(films, threshold, tolerance)
    return 100 * pairs / predicted if predicted else None


def recall(films: Sequence[FilmScores], threshold: float, tolerance: float) -> float | None:
    """True boundaries near a predicted one of their own."""
    pairs, true, _ = _counts(films, threshold, tolerance)
    return 100 * pairs / true if true else None


def f1(films: Sequence[FilmScores], threshold: float, tolerance: float) -> float | None:
    """Harmonic mean of precision and recall."""
    pairs, true, predicted = _counts(films, threshold, tolerance)
    return 100 * 2 * pairs / (true + predicted) if true else None


def average_precision(films: Sequence[FilmScores], threshold: float, tolerance: float) -> float | None:
    """Area under the precision-recall curve of all shots, ranked by probability; see `hits`.

    The threshold has no effect. With a tolerance below the shortest shot it is the AP of `scenes`.
    """
    if not all(film.timed for film in films):
        return None
    found, probability, true = [], [], 0
    for film in films:
        truth = film.end[film.boundary == 1]
        found.append(hits(truth, film.end[film.labelled], film.probability[film.labelled], tolerance))
        probability.append(film.probability[film.labelled])
        true += len(truth)
    if not true:
        return None
    hit = np.concatenate(found)
    # AP divides by the hits; a true boundary that no shot finds counts too.
    return 100 * average_precision_of(hit, np.concatenate(probability)) * hit.sum() / true


def _counts(films: Sequence[FilmScores], threshold: float, tolerance: float) -> tuple[int, int, int]:
    """Pairs, true and predicted boundaries of all films; zeros if times are unknown."""
    if not all(film.timed for film in films):
        return 0, 0, 0
    pairs = true = predicted = 0
    for film in films:
        truth, calls = film.end[film.boundary == 1], film.end[film.predicted(threshold) & film.labelled]
        pairs, true, predicted = pairs + matched(truth, calls, tolerance), true + len(truth), predicted + len(calls)
    return pairs, true, predicted
