"""Pseudo-boundary of a window in closed form (BaSSL, arXiv:2201.05277, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def pseudo_boundary(sparse: Tensor, dense: Tensor) -> Tensor:
    """Last shot of the first group, `[b]` int64 in 0..T-2, for windows of T shots.

    Dynamic time warping of two sparse embeddings onto T dense ones, with cost 1 - cosine, has T - 1 possible paths, one
    per split k. The best maximises sum_{t<=k} s_first.d_t + sum_{t>k} s_last.d_t: up to a constant, the prefix sum of
    (s_first - s_last).d_t. So the search is one argmax; the first maximum wins.

    Args:
        sparse: `[b, 2, D]` L2-normalised embeddings of the first and the last shot.
        dense: `[b, T, D]` L2-normalised embeddings of all shots.
    """
    difference = (sparse[:, 0] - sparse[:, 1]).float()
    with torch.autocast(dense.device.type, enabled=False):  # half precision would tie neighbouring splits
        gain = torch.einsum("bd,btd->bt", difference, dense.float()).cumsum(1)
    return gain[:, :-1].argmax(1)
