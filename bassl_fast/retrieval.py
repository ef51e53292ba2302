"""Retrieval of clips: is one of the nearest of a bank of the same class?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def recall(
    query: Tensor,
    query_labels: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    ks: tuple[int, ...] = (1, 5, 10, 15, 20, 25),
    centred: bool = True,
) -> dict[int, float]:
    """Recall at each k, in percent: queries with a clip of their class among their k nearest by cosine.

    Args:
        query, bank: features `[Q, D]`, `[N, D]`.
        query_labels, bank_labels: classes `[Q]`, `[N]`.
        ks: how many of the nearest, at most N.
        centred: take from each set its own mean first, as SCE's evaluation does.
    """
    if centred:
        query, bank = query - query.mean(0), bank - bank.mean(0)
    nearest = (F.normalize(query, dim=1) @ F.normalize(bank, dim=1).T).topk(max(ks)).indices
    hits = bank_labels[nearest] == query_labels[:, None]
    return {k: 100 * hits[:, :k].any(1).double().mean().item() for k in ks}
