"""How shots are grouped into scenes: coverage, overflow and their F-score, as papers on BBC and OVSD report them.

Vendrig and Worring, "Systematic evaluation of logical story unit segmentation" (IEEE Transactions on Multimedia 4(4),
2002), define coverage and overflow; Baraldi et al., "A Deep Siamese Network for Scene Detection in Broadcast Videos"
(ACM Multimedia 2015), and Rotman et al. on OVSD combine them to an F-score. Of a true scene of `n` shots:

    coverage    largest number of its shots in one predicted scene, / n
    overflow    shots of other scenes in the predicted scenes that touch it, / shots of its two neighbours

Those of a film are the means over its true scenes, weighted by n; those of a set are the means over films.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .scenes import FilmScores, Metric


def coverage_and_overflow(truth: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Coverage and overflow of one film, as fractions; overflow may exceed 1 where neighbours are short.

    Args:
        truth, predicted: `[S]` numbers of scenes of the shots, from 0, ascending.
    """
    shared = np.zeros((truth[-1] + 1, predicted[-1] + 1), np.int64)  # shots by true and predicted scene
    np.add.at(shared, (truth, predicted), 1)
    length = shared.sum(1)
    foreign = ((shared.sum(0) - shared) * (shared > 0)).sum(1)
    # A film of one scene has no neighbours, and no foreign shots.
    neighbours = np.append(0, length[:-1]) + np.append(length[1:], 0)
    weight = length / length.sum()
    return float(weight @ (shared.max(1) / length)), float(weight @ (foreign / np.maximum(neighbours, 1)))


def coverage(films: Sequence[FilmScores], threshold: float) -> float | None:
    """How much of each true scene is in one predicted scene."""
    return _mean([of_film(film, threshold)[0] for film in _labelled(films)])


def overflow(films: Sequence[FilmScores], threshold: float) -> float | None:
    """How much of its neighbours is in the predicted scenes of a true one; 0 is best."""
    return _mean([of_film(film, threshold)[1] for film in _labelled(films)])


def f_coverage_overflow(films: Sequence[FilmScores], threshold: float) -> float | None:
    """Harmonic mean of coverage and 1 - overflow, of each film; an overflow above 1 counts as 1."""
    found = []
    for film in _labelled(films):
        covered, overflown = of_film(film, threshold)
        right = max(0.0, 1 - overflown)
        found.append(2 * covered * right / (covered + right))
    return _mean(found)


METRICS: dict[str, Metric] = {"coverage": coverage, "overflow": overflow, "f_co": f_coverage_overflow}


def of_film(film: FilmScores, threshold: float) -> tuple[float, float]:
    """`coverage_and_overflow` of the labelled shots of a film."""
    return coverage_and_overflow(_scenes(film, film.boundary == 1), _scenes(film, film.predicted(threshold)))


def _scenes(film: FilmScores, boundary: np.ndarray) -> np.ndarray:
    """Scene numbers of the labelled shots, where scenes end at `boundary` `[S]` (bool), and where labels end."""
    last = boundary | ~np.append(film.labelled[1:], True)
    return (np.cumsum(last & film.labelled) - (last & film.labelled))[film.labelled]


def _labelled(films: Sequence[FilmScores]) -> list[FilmScores]:
    return [film for film in films if film.labelled.any()]


def _mean(fractions: list[float]) -> float | None:
    return 100 * float(np.mean(fractions)) if fractions else None
