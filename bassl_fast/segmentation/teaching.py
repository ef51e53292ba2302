"""A few corrected films adapt a fitted similarity head.

The coefficients of the head are what is most probable before any correction is seen (a Gaussian prior around them), so
a few films move them only a little. Whether they move at all is decided on the corrected films themselves, each scored
by a head that learnt from the others: films that have little in common teach nothing about the next one. If the gain
may be chance, only the intercept and the threshold follow the corrections: that changes how many scenes are found, not
which boundaries come first. The threshold follows them as far as they agree on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bassl_fast.heads.similarity import SimilarityHead
from bassl_fast.metrics.scenes import FilmScores, scene_metrics
from shard_tools.errors import FeatureError

from .films import LabelledFilm
from .logistic import solve
from .similarity import PENALTY, Samples, SimilarityModel, choose_threshold, cuts_of, has_both, head_of, score

# Three times the penalty of training. On `benchmarks.corrections` one to five times gain alike where films are alike,
# and from two times on films that are not alike lose nothing.
PRIOR = 3 * PENALTY
CHANCE = 0.2  # weights are adapted if a gain as large as that of the corrected films is less likely by chance
_FIXED = 1e9  # penalty of weights that are kept


@dataclass(frozen=True)
class Taught:
    """An adapted head.

    Attributes:
        head: gives logits.
        threshold: probability from which a shot ends a scene.
        gains: for each corrected film with a boundary, what heads adapted to the other films add to its average
            precision, in points of 100; empty if there are no others.
        adapted: whether the weights changed, not only the intercept.
    """

    head: SimilarityHead
    threshold: float
    gains: tuple[float, ...]
    adapted: bool


def teach(films: Sequence[LabelledFilm], start: SimilarityModel) -> Taught:
    """Adapt the head of `start` to corrected films.

    Raises:
        FeatureError: no boundary, no cut inside a scene, or features that do not fit the shots.
    """
    return teach_sets([Samples.of(film) for film in films], start)


def teach_sets(sets: Sequence[Samples], start: SimilarityModel) -> Taught:
    """`teach`, from the cuts of the films."""
    if not has_both(sets):
        raise FeatureError("the corrected films need a boundary and a cut inside a scene; correct one more film")
    others = [[*sets[:i], *sets[i + 1 :]] for i in range(len(sets))]
    usable = [i for i in range(len(sets)) if has_both(others[i])]  # films whose others can teach
    taught = {i: moved(others[i], start.head, PRIOR) for i in usable}
    scored = [i for i in usable if (sets[i].labels == 1).any()]
    gains = tuple(_ap(taught[i], sets[i]) - _ap(start.head, sets[i]) for i in scored)
    adapted = is_gain(gains)
    kept = taught if adapted else {i: moved(others[i], start.head, _FIXED) for i in usable}
    head = moved(sets, start.head, PRIOR if adapted else _FIXED)
    own = [_least(kept.get(i, head), samples) for i, samples in enumerate(sets)]
    least = shrunk(own, _logit(start.thresholds["normal"]) - float(start.head.coefficients[-1]))
    return Taught(head, _probability(least + float(head.coefficients[-1])), gains, adapted)


def is_gain(gains: Sequence[float]) -> bool:
    """Whether the mean of gains is above 0 by more than chance: Student's t-test, one-sided."""
    from scipy.stats import ttest_1samp  # slow to import

    if len(gains) < 2 or np.ptp(gains) == 0:
        return len(gains) > 1 and gains[0] > 0
    return bool(ttest_1samp(gains, 0, alternative="greater").pvalue < CHANCE)


def _least(head: SimilarityHead, samples: Samples) -> float:
    """The logit, without the intercept, from which a film has its true number of scenes."""
    threshold = choose_threshold([(score(head, samples.statistics[-1]), samples.labels)])
    return _logit(threshold) - float(head.coefficients[-1])


def shrunk(own: Sequence[float], shipped: float) -> float:
    """What films ask for, between their median and the `shipped` value (empirical Bayes).

    Their shift from the shipped value is trusted as far as it exceeds the error of their mean: many films that agree
    are followed, a few that disagree only in part, a single one, whose error is unknown, by half.

    >>> shrunk([2.0], 1.0), round(shrunk([2.0, 2.1, 1.9], 1.0), 2), round(shrunk([2.0, 4.0, 0.0], 1.0), 2)
    (1.5, 2.0, 1.43)
    """
    shift = float(np.median(own)) - shipped
    error = np.var(own, ddof=1) / len(own) if len(own) > 1 else shift**2
    return shipped + (shift * shift**2 / (shift**2 + float(error)) if shift else 0.0)


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-4), 1 - 1e-4)
    return float(np.log(p / (1 - p)))


def _probability(logit: float) -> float:
    return round(float(1 / (1 + np.exp(-logit))), 4)


def moved(sets: Sequence[Samples], start: SimilarityHead, penalty: float) -> SimilarityHead:
    """The most probable head after the cuts of `sets`; the intercept is free."""
    x, y, weight = cuts_of(sets)
    before = start.coefficients.astype(np.float64)
    return head_of(solve(x, y, weight, before, np.append(np.full(len(before) - 1, penalty), 0.0)))


def _ap(head: SimilarityHead, samples: Samples) -> float:
    """Average precision in percent, with all kinds of the film."""
    labels = samples.labels
    return scene_metrics([FilmScores("", score(head, samples.statistics[-1]), labels, labels * 0, labels * 0)])["ap"]
