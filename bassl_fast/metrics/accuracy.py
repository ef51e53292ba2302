"""How often a classifier is right."""

from __future__ import annotations

import torch
from torch import Tensor

TOP = (1, 5)


def hits(probability: Tensor, labels: Tensor) -> Tensor:
    """For each of `TOP`, how many of `probability` `[N, classes]` have their label `[N]` among the k most probable.

    Of equal ones, those of lower number come first.
    """
    ranked = probability.argsort(dim=1, descending=True, stable=True)
    ranks = (ranked == labels[:, None]).long().argmax(1)
    return torch.stack([(ranks < k).sum() for k in TOP])
