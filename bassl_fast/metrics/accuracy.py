"""Top-k accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

TOP = (1, 5)


def hits(probability: Tensor, labels: Tensor) -> Tensor:
    """For each k of `TOP`, how many rows of `probability` `[N, classes]` have their label `[N]` in the k most probable.

    Ties are broken by class number, lower first.
    """
    ranked = probability.argsort(dim=1, descending=True, stable=True)
    ranks = (ranked == labels[:, None]).long().argmax(1)
    return torch.stack([(ranks < k).sum() for k in TOP])
