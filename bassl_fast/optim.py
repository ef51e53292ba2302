"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from shard_tools.errors import ConfigError


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the norm of the weights (arXiv:1708.03888).

    In groups with `adapt`, the decayed gradient is multiplied by trust * |w| / (|g| + decay * |w|), or left alone
    where either norm is zero.

    Args:
        params: parameters or groups; a group may set `lr`, `weight_decay`, `adapt`.
        lr: learning rate.
        momentum: of the (scaled) gradient.
        weight_decay: L2 decay.
        trust: trust coefficient.
        adapt: scale to the norm of the weights.

    Raises:
        ConfigError: a negative value.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("trust", trust)):
            if value < 0:
                raise ConfigError(f"LARS: {name} {value} is negative")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> Tensor | None:
        """One step; all tensors of a group at a time."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            grads = [p.grad for p in weights]
            decay = group["weight_decay"]
            if group["adapt"]:
                weight_norms, grad_norms = torch._foreach_norm(weights), torch._foreach_norm(grads)
                if decay:
                    grads = torch._foreach_add(grads, weights, alpha=decay)
                w, g = torch.stack(weight_norms), torch.stack(grad_norms)
                scale = torch.where((w > 0) & (g > 0), group["trust"] * w / (g + decay * w), 1.0)
                grads = torch._foreach_mul(grads, list(scale.unbind()))
            elif decay:
                grads = torch._foreach_add(grads, weights, alpha=decay)
            for p in weights:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        return loss


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters with weight decay, and those without: whose name holds `bn` or `bias`.

    The rule of the reference by name, not by kind: `downsample.1.weight` and the weights of LayerNorm are decayed.
    """
    decayed, free = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            (free if "bn" in name or "bias" in name else decayed).append(parameter)
    return decayed, free


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate at `step` of `total`: linear from 0 over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass(frozen=True)
class Optimiser:
    """Recipe of the optimiser.

    Args:
        name: lars, adam or adamw.
        lr: base learning rate, for a global batch of `lr_batch`; scaled linearly to the batch in use.
        lr_batch: batch that `lr` is meant for; 0 takes `lr` as it is.
        momentum: of LARS.
        weight_decay: of parameters that are decayed, see `split_parameters`.
        warmup: part of all steps over which the rate rises, 0..1.

    Raises:
        ConfigError: a value outside its range.
    """

    name: Literal["lars", "adam", "adamw"] = "lars"
    lr: float = 0.3
    lr_batch: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-6
    warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"optimiser.lr {self.lr}: must be positive")
        for name in ("lr_batch", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimiser.{name} {getattr(self, name)}: must not be negative")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optimiser.warmup {self.warmup}: a part of all steps, within [0, 1)")

    def build(self, modules: nn.Module, global_batch: int, total_steps: int) -> dict:
        """Optimiser and per-step schedule for `modules`, as Lightning's `configure_optimizers` returns them."""
        lr = self.lr * (global_batch / self.lr_batch if self.lr_batch else 1)
        decayed, free = split_parameters(modules)
        groups = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
        if self.name == "lars":
            groups[1]["adapt"] = False
            optimiser = LARS(groups, lr, self.momentum, self.weight_decay)
        else:
            kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
            optimiser = kind(groups, lr, weight_decay=self.weight_decay)
        warmup = round(self.warmup * total_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warmup_cosine(step, warmup, total_steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
