"""Batch normalisation over the images of all processes, by one all-reduce.

        process 0   n, sum(x), sum(x^2)  \\
                                           >  total  ->  mean and variance of all
        process 1   n, sum(x), sum(x^2)  /

The sums are float64, so nothing cancels. torch's SyncBatchNorm gathers mean and variance of every process and drops
those of empty ones by a mask: the host waits at every layer, and a compiled graph breaks. Nor does it run on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bassl_fast.runtime.distributed import world_size


class SyncedBatchNorm(_BatchNorm):
    """As torch's batch normalisation, with statistics over all processes in training, and the same names of its state.

    Takes `[N, C]` or `[N, C, ...]`, where N may differ between processes.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"at least two dimensions are needed, not {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        group = dist.group.WORLD.group_name  # type: ignore[union-attr]  # there are several processes
        output, mean, var, count = _Normalise.apply(input, self.weight, self.bias, self.eps, group)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            rate = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.float()
            with torch.no_grad():
                self.running_mean += rate * (mean - self.running_mean)
                self.running_var += rate * (var * (count / (count - 1)) - self.running_var)
        return output


def synchronised(network: nn.Module) -> nn.Module:
    """`network` with all its batch normalisations synchronised, in place; the same parameters and names."""
    for name, module in network.named_children():
        if isinstance(module, _BatchNorm):
            setattr(network, name, _synced(module))
        else:
            synchronised(module)
    return network


def _synced(norm: _BatchNorm) -> SyncedBatchNorm:
    synced = SyncedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    synced._parameters, synced._buffers = norm._parameters, norm._buffers
    return synced.train(norm.training)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, with the mean and variance of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first, second, count = _sums(x)
        sums = _total(torch.cat([first, second, count]), group)
        first, second, total = sums.split([len(first), len(second), 1])
        mean, square = first / total, second / total
        mean, var, total = mean.float(), (square - mean * mean).clamp_min(0).float(), total.float()
        ctx.save_for_backward(x, weight, mean, var, total)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, var, total)
        # As in evaluation, the operator takes mean and variance as they are given.
        return functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, total = ctx.saved_tensors
        # Gradients with the statistics held fixed, and their sums over this process's images.
        fixed, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        all_weight, all_bias = (_total(torch.cat([of_weight, of_bias]), ctx.group) / total).chunk(2)
        scale = torch.rsqrt(var + ctx.eps)
        outer = scale if weight is None else scale * weight
        # What the statistics contribute is linear in x, so the same operator computes it, without a copy in float32.
        through = functional.batch_norm(x, mean, var, outer * all_weight, outer * all_bias, training=False, eps=ctx.eps)
        of_x = fixed - through
        if weight is None:
            return of_x, None, None, None, None
        return of_x, of_weight, of_bias, None, None


def _sums(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums `[C]` of this process's values and of their squares, and their number `[1]`, float64; there may be none."""
    dims, number = [0, *range(2, x.dim())], x.numel() // x.shape[1]
    count = torch.full([1], number, dtype=torch.float64, device=x.device)
    if x.dtype == torch.float32 and number:
        var, mean = torch.var_mean(x, dims, correction=0)
        mean = mean.double()
        return number * mean, number * (var.double() + mean * mean), count
    # Half precision is summed in float32 as it is read; a copy of it would be twice its size.
    norm = torch.linalg.vector_norm(x, dim=dims, dtype=torch.float32).double()
    return x.sum(dims, dtype=torch.float32).double(), norm * norm, count


def _total(values: Tensor, group: str) -> Tensor:
    """Sum over all processes, as an operator that torch.compile keeps in its graph."""
    return torch.ops._c10d_functional.wait_tensor(torch.ops._c10d_functional.all_reduce(values, "sum", group))
