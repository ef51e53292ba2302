"""Do the nearest neighbours of a shot share its scene?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from shard_tools.errors import FeatureError

KS = (1, 5, 10, 15, 20)


def knn_precision(
    features: Mapping[str, np.ndarray | torch.Tensor],
    scenes: Mapping[str, np.ndarray | torch.Tensor],
    ks: Sequence[int] = KS,
) -> dict[int, float]:
    """Percentage of the k nearest shots of the same film (by cosine) that are in the same scene, pooled over shots.

    As in the reference: a shot is not its own neighbour, and only shots of scenes with at least k shots are queries (so
    a scene of exactly k shots cannot reach 100). Unlabelled shots are neither queries nor neighbours. A k larger than
    every scene is left out. Computed on the device of the features.

    Args:
        features: film -> `[S, D]`.
        scenes: film -> `[S]` int, index of the scene in its film, -1 = unlabelled.

    Raises:
        FeatureError: films or lengths of the two differ, or a feature is not finite. The message names the film.
    """
    if set(features) != set(scenes):
        film = min(set(features) ^ set(scenes))
        raise FeatureError(f"{film}: has only one of features and scenes; extract the features of the labelled films")
    hits, asked = dict.fromkeys(ks, 0), dict.fromkeys(ks, 0)
    for film in features:
        x, scene = torch.as_tensor(features[film]).float(), torch.as_tensor(scenes[film]).long()
        if x.ndim != 2 or len(x) != len(scene):
            raise FeatureError(f"{film}: features {list(x.shape)} for {len(scene)} shots; extract its features again")
        if not x.isfinite().all():
            raise FeatureError(f"{film}: a feature is NaN or infinite; extract its features again")
        scene = scene.to(x.device)
        x, scene = x[scene >= 0], scene[scene >= 0]
        if len(x) < 2:
            continue
        with torch.autocast(x.device.type, enabled=False):  # half precision would reorder close neighbours
            similarity = _similarity(torch.nn.functional.normalize(x, dim=1)).fill_diagonal_(-torch.inf)
        nearest = similarity.topk(min(max(ks), len(x) - 1), dim=1).indices  # [S, K]
        found = (scene[nearest] == scene[:, None]).cumsum(1)  # [S, K] neighbours in the scene among the first k
        size = torch.bincount(scene)[scene]  # [S]
        for k in ks:
            asks = size >= k
            hits[k] += int(found[asks, min(k, len(x) - 1) - 1].sum())
            asked[k] += k * int(asks.sum())
    return {k: 100 * hits[k] / asked[k] for k in ks if asked[k]}


def _similarity(x: torch.Tensor, block: int = 512) -> torch.Tensor:
    """Dot products `[S, S]` of the rows of `x` `[S, D]`; each pair of blocks is multiplied once."""
    similarity = x.new_empty(len(x), len(x))
    for first in range(0, len(x), block):
        rows = slice(first, first + block)
        torch.mm(x[rows], x[first:].T, out=similarity[rows, first:])
        similarity[first + block :, rows] = similarity[rows, first + block :].T
    return similarity


def neighbours_asked(scenes: Tensor) -> list[int]:
    """Number of neighbours that `knn_precision` counts for each k: k for every shot in a scene of at least k shots."""
    scenes = scenes[scenes >= 0]
    size = torch.bincount(scenes)[scenes] if len(scenes) else scenes
    return [k * int((size >= k).sum()) for k in KS]
