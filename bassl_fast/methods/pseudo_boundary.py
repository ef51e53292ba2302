"""Pseudo-boundary of a window in closed form (BaSSL, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def pseudo_boundary(sparse: Tensor, dense: Tensor) -> Tensor:
    """Last shot of the first group, `[B]` in 0..T-2, for windows of T shots.

    Dynamic time warping of two sparse embeddings with T dense ones, under cost 1 - cosine, has T - 1 possible paths:
    one for each split k. The best maximises sum_{t<=k} s_first.d_t + sum_{t>k} s_last.d_t. Up to a constant that is
    the prefix sum of (s_first - s_last).d_t, so the search is one argmax (of several maxima, the first).

    Args:
        sparse: `[B, 2, D]` L2-normalised embeddings of the first and the last shot.
        dense: `[B, T, D]` L2-normalised embeddings of all shots.
    """
    difference = (sparse[:, 0] - sparse[:, 1]).float()
    with torch.autocast(dense.device.type, enabled=False):  # in half precision neighbouring splits would tie
        gain = torch.einsum("bd,btd->bt", difference, dense.float()).cumsum(1)
    return gain[:, :-1].argmax(1)
