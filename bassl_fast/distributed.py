"""Reductions over processes that also work with one.

        process 0   [z0 z1]  \
                              >  gather  ->  [z0 z1 z2 z3] on both, gradients flow back to their owner
        process 1   [z2 z3]  /
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(rows: Tensor) -> Tensor:
    """Rows `[B, ...]` of all processes as `[W * B, ...]`, in order of rank, with gradient."""
    return rows if world_size() == 1 else torch.cat(all_gather(rows.contiguous()), 0)


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Sum over count, where the count is taken over all processes.

    Scaled so that the mean over processes, which DDP takes of gradients, is the mean over all counted things, however
    unevenly they fall on the processes.
    """
    if world_size() > 1:
        count = count.detach().clone()
        dist.all_reduce(count)
    return total * world_size() / count
