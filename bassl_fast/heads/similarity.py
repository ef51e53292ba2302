"""Scene boundaries from how alike the shots around a cut are, and how long they last.

    kinds of features -> similarity of near shots, by quantiles of the film -> statistics of every cut -> logit

The head never sees a feature, only which shots are alike, so the same weights work with any encoder, with colours
alone, and with several kinds of features at once: kinds are averaged after each was ranked within its film.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shard_tools.errors import FeatureError

REACH = 12  # shots on each side of a cut
SCALES = (1, 2, 3, 4, 6, 8, 12)  # shots on each side that a statistic looks at
LINKS = (0.7, 0.8, 0.9, 0.95)  # rank from which two shots are linked
NEIGHBOURS = 6  # durations on each side that are statistics of their own ...
STRETCHES = (4, 8)  # ... and durations on each side whose mean is one
_SPREAD = 0.1  # added to the deviation of a statistic in its film: one that hardly varies stays small
_USUAL_PACE = 1.5  # logarithm of the seconds that half of the shots of a usual film last, about 4.5
_PACE_WEIGHT = 3.0  # large, so that the penalty of training hardly shrinks it


@dataclass(frozen=True)
class SimilarityHead:
    """A linear function of the statistics of a cut: logit that the shot before it is the last of its scene.

    It is symmetric in time, because its statistics are.

    Attributes:
        coefficients: `[F + 1]` float32, the intercept last.
    """

    coefficients: np.ndarray

    def __call__(self, statistics: np.ndarray) -> np.ndarray:
        """Logits `[B]` float64 from statistics `[B, F]`."""
        return statistics.astype(np.float64) @ self.coefficients[:-1] + self.coefficients[-1]


def film_statistics(kinds: Sequence[np.ndarray], seconds: np.ndarray) -> np.ndarray:
    """Statistics `[S, F]` float32 of the cut after every shot of a film.

    All but the last column are standardised within the film. The last is the film's pace: films of long shots have
    more scenes per shot.

    Args:
        kinds: similarities `[S, 2 * REACH - 1]` of each kind of feature, see `alike`; at least one.
        seconds: `[S]`, how long the shots last.
    """
    found = np.stack([*_similarity_statistics(combine(kinds)).values(), *_duration_statistics(seconds).values()], 1)
    cuts = found[:-1] if len(found) > 1 else found  # there is none after the last shot
    found = (found - cuts.mean(0)) / (cuts.std(0) + _SPREAD)
    pace = _PACE_WEIGHT * (np.log(max(np.median(seconds), 1e-3)) - _USUAL_PACE)
    return np.column_stack([found, np.full(len(found), pace)]).astype(np.float32)


# Similarity


def alike(features: np.ndarray, film: str = "film", may_lack: bool = False) -> np.ndarray:
    """Similarity `[S, 2 * REACH - 1]` of every shot to each of those that follow it; NaN where it is unknown.

    It is unknown beyond the end of the film, and between two shots of which one lacks this kind of feature.

    Features are centred by their mean in the film and compared by cosine. Histograms (rows that sum to 1, none
    negative) are compared by the mean of two ranks: their intersection, and the cosine of their centred square roots.
    Two shots are as alike as their best pair of key-frames.

    Args:
        features: `[S, D]`, or `[S, K, D]` for K key-frames per shot.
        film: its name, for errors.
        may_lack: whether shots may lack a feature, which is then NaN.

    Raises:
        FeatureError: a feature is not finite.
    """
    x = np.asarray(features, np.float32)
    x = x[:, None] if x.ndim == 2 else x
    lacks = np.isnan(x).all((1, 2)) & may_lack
    broken = (~np.isfinite(x)).any((1, 2)) & ~lacks
    if broken.any():
        shot = int(broken.argmax())
        raise FeatureError(f"{film}: the feature of shot {shot} is NaN or infinite; check the encoder, extract again")
    if not is_histogram(x):
        mean = (x[~lacks] if lacks.any() else x).mean((0, 1))
        return _banded(_unit(x - mean), _cosine)
    root = np.sqrt(x)
    return combine([_banded(x, _intersection), _banded(_unit(root - root.mean((0, 1))), _cosine)])


def is_histogram(features: np.ndarray) -> bool:
    """Whether the rows `[..., D]` are shares of a whole."""
    return bool((features >= 0).all() and np.allclose(features.sum(-1), 1, atol=0.02))


def combine(kinds: Sequence[np.ndarray]) -> np.ndarray:
    """Similarities of one or several kinds -> ranks in 0..1 among all pairs of the film, of the same shape.

    The ranks of a pair are averaged over the kinds that know it.
    """
    ranked = np.stack([_ranks(kind) for kind in kinds])
    if len(ranked) == 1:
        return ranked[0]
    known = ~np.isnan(ranked)
    with np.errstate(invalid="ignore"):  # 0 / 0, which is NaN, beyond the end of the film
        mean = np.where(known, ranked, 0).sum(0) / known.sum(0)
    return _ranks(mean.round(9))  # ties in any order of the kinds


def _ranks(similarity: np.ndarray) -> np.ndarray:
    """The share of the film's pairs that are less alike; equal ones share the middle rank."""
    known = ~np.isnan(similarity)
    ordered = np.sort(similarity[known])
    below, upto = (np.searchsorted(ordered, similarity[known], side) for side in ("left", "right"))
    ranks = np.full(similarity.shape, np.nan)
    ranks[known] = (below + upto) / (2 * max(1, len(ordered)))
    return ranks


def _banded(x: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """`compare` of the key-frames `[S, K, D]` of each shot with those of the shots after it."""
    band = np.full((len(x), 2 * REACH - 1), np.nan, np.float32)
    for apart in range(1, min(len(x), 2 * REACH)):
        band[:-apart, apart - 1] = compare(x[:-apart], x[apart:])
    return band


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[N]`, of the best pair of key-frames; of unit vectors `[N, K, D]`."""
    return (a @ b.transpose(0, 2, 1)).max((1, 2))


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[N]`, of the best pair of key-frames; of histograms `[N, K, D]`."""
    pairs = [np.minimum(a[:, i], b[:, j]).sum(-1) for i in range(a.shape[1]) for j in range(b.shape[1])]
    return np.max(pairs, 0)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


# Statistics


def statistic_names() -> list[str]:
    """The columns of `film_statistics`, in order."""
    nothing = np.full((2, 2 * REACH - 1), np.nan)
    return [*_similarity_statistics(nothing), *_duration_statistics(np.ones(2)), "pace"]


def _similarity_statistics(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> `[S]`, from ranks `[S, 2 * REACH - 1]`.

    Where the film ends before a statistic begins, it is 0.5, the mean rank, and 0 for shares of links.
    """
    window = _windows(ranks)
    left, right = np.arange(REACH)[::-1], np.arange(REACH, 2 * REACH)  # from the cut outwards
    found: dict[str, np.ndarray] = {}
    for k in SCALES:
        a, b = left[:k], right[:k]
        across = window[:, a][:, :, b]
        found[f"across_{k}"] = _mean(across, (1, 2))
        if k > 1:
            first, second = np.triu_indices(k, 1)
            found[f"within_{k}"] = _mean(window[:, a[second], a[first]], 1) + _mean(window[:, b[first], b[second]], 1)
            found[f"own_side_{k}"] = _max(window[:, a[1:], a[0]]) + _max(window[:, b[0], b[1:]])
            found[f"other_side_{k}"] = _max(window[:, a, b[0]]) + _max(window[:, a[0], b])
        for link in LINKS if k > 2 else ():
            linked = across > link  # NaN is not
            found[f"links_{k}_{link}"] = linked.mean((1, 2))
            found[f"linked_shots_{k}_{link}"] = linked.any(2).mean(1) + linked.any(1).mean(1)
    return found


def _duration_statistics(duration: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> `[S]`, from logarithms of durations against the film's median; 0 beyond the film's ends."""
    lasting = np.log(np.maximum(duration, 1e-6))
    lasting = lasting - np.median(lasting)
    reach = max(STRETCHES)
    window = _padded(lasting, reach)
    left, right = window[:, :reach][:, ::-1], window[:, reach:]  # from the cut outwards
    known = [np.nan_to_num(side) for side in (left, right)]
    found = {f"duration_{i + 1}": known[0][:, i] + known[1][:, i] for i in range(NEIGHBOURS)}
    found["duration_longer"] = np.maximum(known[0][:, 0], known[1][:, 0])
    found["duration_shorter"] = np.minimum(known[0][:, 0], known[1][:, 0])
    for k in STRETCHES:
        found[f"duration_mean_{k}"] = _mean(np.concatenate([left[:, :k], right[:, :k]], 1), 1, 0)
        found[f"duration_change_{k}"] = abs(_mean(left[:, :k], 1, 0) - _mean(right[:, :k], 1, 0))
    return found


def _windows(band: np.ndarray) -> np.ndarray:
    """`[S, 2 * REACH, 2 * REACH]`: similarity of shots p < q around the cut after each shot; NaN elsewhere."""
    shots, size = len(band), 2 * REACH
    window = np.full((shots, size, size), np.nan, np.float32)
    cut = np.arange(shots)
    for p in range(size):
        shot = cut - REACH + 1 + p
        inside = (shot >= 0) & (shot < shots)
        window[inside, p, p + 1 :] = band[shot[inside], : size - 1 - p]
    return window


def _padded(values: np.ndarray, reach: int) -> np.ndarray:
    """`[S, 2 * reach]`: values of the shots around the cut after each shot, NaN beyond the film."""
    padded = np.pad(values, (reach - 1, reach), constant_values=np.nan)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach)


def _mean(values: np.ndarray, axis: int | tuple[int, int], otherwise: float = 0.5) -> np.ndarray:
    """Mean without NaN; `otherwise` where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count, np.where(known, values, 0).sum(axis, dtype=np.float64) / np.maximum(count, 1), otherwise)


def _max(values: np.ndarray) -> np.ndarray:
    """Largest of the rows, without NaN; 0.5 where all are."""
    best = np.where(np.isnan(values), -np.inf, values).max(1)
    return np.where(np.isinf(best), 0.5, best)
