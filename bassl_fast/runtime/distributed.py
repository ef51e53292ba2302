"""Reductions over processes, which also work with one.

        process 0   [z0 z1]  \
                              >  gather  ->  [z0 z1 z2 z3] on both, gradients flow back to their owner
        process 1   [z2 z3]  /
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def own_process_group() -> Iterator[None]:
    """Around whatever may start a process group: it is ended with the block, its threads too.

    A thread of gloo that frees a tensor after the interpreter has ended needs Python for it, which kills the process by
    SIGABRT. Lightning ends groups that are of NCCL alone.
    """
    mine = not dist.is_initialized()
    try:
        yield
    finally:
        if mine and dist.is_initialized() and "gloo" in dist.get_backend_config():
            dist.destroy_process_group()


def gather(rows: Tensor) -> Tensor:
    """Rows `[B, ...]` of all W processes as `[W * B, ...]`, in order of rank, with gradient.

    Every process computes the same loss from these rows. The owner of a row sums its W gradients; DDP then averages
    over processes, which gives the gradient of that one loss.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        everyone = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient).chunk(world_size())[dist.get_rank()]


def total(values: Tensor) -> Tensor:
    """Sum of `values` over all processes, without gradient."""
    values = values.detach().clone()
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def any_process(flags: list[bool]) -> list[bool]:
    """Each flag is true if it is true on any process; they travel between CPUs, and no GPU is waited for."""
    return flags if world_size() == 1 else (total(torch.tensor(flags, dtype=torch.int32)) > 0).tolist()


def gather_objects(mine: Any) -> list[Any]:
    """The (small) object of every process, in order of rank."""
    if world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def lost_process(error: RuntimeError) -> str:
    """The short reason if `error` says that another process ended or does not answer; else ""."""
    gloo = re.search(r"/gloo/\S+\] (.+?)(?:\. This is typically|\. The remote|$)", str(error))
    return gloo[1] if gloo else str(error).partition("\n")[0] if isinstance(error, dist.DistError) else ""


def global_mean(sum_: Tensor, count: Tensor) -> Tensor:
    """Sum over count, with the count over all processes.

    Scaled so that DDP's mean over processes is the mean over all counted items, however they are spread over processes.
    """
    return sum_ * world_size() / total(count)
