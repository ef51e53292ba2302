"""Retrieval: recall of the same class among the nearest of a bank."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

KS = (1, 5, 10, 15, 20, 25)


_AT_ONCE = 1 << 28  # similarities, 1 GiB


@torch.no_grad()
def recall(
    query: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    ks: tuple[int, ...] = KS,
    centred: bool = True,
) -> dict[int, float]:
    """Recall at each k, in percent: queries with a clip of their class among the k nearest by cosine.

    Args:
        query, bank: features `[Q, D]`, `[N, D]`.
        query_labels, bank_labels: classes `[Q]`, `[N]`.
        ks: numbers of neighbours, at most N.
        centred: subtract the mean of each set first, as SCE's evaluation does.
    """
    if centred:
        query, bank = query - query.mean(0), bank - bank.mean(0)
    bank = F.normalize(bank, dim=1).T
    blocks = F.normalize(query, dim=1).split(max(1, _AT_ONCE // bank.shape[1]))
    nearest = torch.cat([(block @ bank).topk(max(ks)).indices for block in blocks])
    hits = bank_labels[nearest] == query_labels[:, None]
    return {k: 100 * hits[:, :k].any(1).double().mean().item() for k in ks}
