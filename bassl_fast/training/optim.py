"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from bassl_fast.encoders import Encoder
from shard_tools.errors import ConfigError

from .options import Exempt, Optimiser


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled per tensor to the norm of the weights (You et al., arXiv:1708.03888).

    In groups with `adapt`, the decayed gradient is multiplied by trust * |w| / (|g| + decay * |w|), or left as
    it is if either norm is zero.

    Args:
        params: parameters or groups; a group may set `lr`, `weight_decay`, `adapt`.
        lr: learning rate.
        momentum: of the (scaled) gradient.
        weight_decay: L2 decay.
        trust: trust coefficient.
        adapt: scale the step to the norm of the weights.
        lr_twice: apply the learning rate to the gradients as well as to the step, as the published SCRL code does in
            its group without `adapt` (docs/explanation/fidelity.md).

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
        lr_twice: bool = False,
    ) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("trust", trust)):
            if value < 0:
                raise ConfigError(f"LARS: {name} {value} is negative")
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        defaults |= {"adapt": adapt, "lr_twice": lr_twice}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> Tensor | None:
        """One step, on all tensors of a group at once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            grads: list[Tensor] | tuple[Tensor, ...] = [p.grad for p in weights]
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
            if group["lr_twice"]:
                grads = torch._foreach_mul(grads, group["lr"])
            for p in weights:
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        return loss


# Which parameters have no weight decay: (name, parameter, the module it belongs to) -> bool.
_EXEMPT: dict[str, Callable[[str, nn.Parameter, nn.Module], bool]] = {
    "names_with_bn_or_bias": lambda name, parameter, owner: "bn" in name or "bias" in name,
    "names_with_bn": lambda name, parameter, owner: "bn" in name,
    "norms": lambda name, parameter, owner: isinstance(owner, _NormBase | nn.LayerNorm),
    "vectors": lambda name, parameter, owner: parameter.ndim < 2,
}


def split_parameters(
    module: nn.Module, exempt: Exempt = "names_with_bn_or_bias"
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters with weight decay, and those without.

    Args:
        module: module whose parameters are split.
        exempt: rule for parameters without decay. Published code goes by name and so decays some norms: BaSSL and SCRL
            exempt names with `bn` or `bias` (`downsample.1.weight` and LayerNorm are decayed), VoV3D names with `bn`
            (`layers.0.a.1` and `layers.0.c.1` are decayed). "norms" and "vectors" (norms and biases) go by type.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    owners = dict(module.named_modules())
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            owner = owners[name.rpartition(".")[0]]
            (free if _EXEMPT[exempt](name, parameter, owner) else decayed).append(parameter)
    return decayed, free


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor of the learning rate at `step` of `total`: linear from 0 over `warmup` steps, then a cosine to 0."""
    if step < warmup:
        return step / warmup
    return cosine(step - warmup, max(1, total - warmup))


def warmup_cosine_scrl(step: int, warmup: int, total: int) -> float:
    """`warmup_cosine` one step ahead: the rate is above 0 at the first step and 0 at the last."""
    return warmup_cosine(step + 1, warmup, total)


def warmup_cosine_sce(step: int, warmup: int, total: int) -> float:
    """`warmup_cosine`, but at the full rate after `warmup` - 1 steps, so that two steps have it."""
    return step / max(1, warmup - 1) if step < warmup else warmup_cosine(step, warmup, total)


def warmup_into(schedule: Callable[[float], float], at: float, warmup: float, start: float) -> float:
    """Factor at `at` (steps or epochs): linear from `start` to `schedule(warmup)`, then `schedule`.

    As in SlowFast's recipes, with `cosine` or `drops`.
    """
    return schedule(at) if at >= warmup else start + (schedule(warmup) - start) * at / warmup


def cosine(at: float, total: float) -> float:
    """Factor at `at` of `total`: a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * at / total))


def drops(at: float, points: tuple[float, ...]) -> float:
    """Factor at `at`: divided by ten at every one of `points`."""
    return 0.1 ** sum(at >= point for point in points)


_SCHEDULES = {"bassl": warmup_cosine, "scrl": warmup_cosine_scrl, "sce": warmup_cosine_sce}


def build_optimiser(recipe: Optimiser, modules: nn.Module, global_batch: int, total_steps: int) -> dict:
    """Optimiser and per-step schedule of `modules`, as Lightning's `configure_optimizers` returns them."""
    lr = recipe.lr * (global_batch / recipe.lr_batch if recipe.lr_batch else 1)
    decayed, free = split_parameters(modules, recipe.exempt)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    optimiser: torch.optim.Optimizer
    if recipe.name == "lars":
        groups[1] |= {"adapt": False, "lr_twice": recipe.lr_twice}
    if recipe.layer_decay < 1:
        groups = _by_layer(groups, modules, recipe.layer_decay, lr)
    if recipe.name == "lars":
        optimiser = LARS(groups, lr, recipe.momentum, recipe.weight_decay)
    elif recipe.name == "sgd":
        optimiser = torch.optim.SGD(
            groups, lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov
        )
    else:
        kind = torch.optim.Adam if recipe.name == "adam" else torch.optim.AdamW
        optimiser = kind(groups, lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate_factor(recipe, total_steps))
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _by_layer(groups: list[dict[str, Any]], modules: nn.Module, decay: float, lr: float) -> list[dict[str, Any]]:
    """Groups split by layer of the encoder: the rate of a layer is `decay` times that of the one above it.

    Heads and what follows the last layer have the full rate (Clark et al., arXiv:2003.10555; Bao et al.,
    arXiv:2106.08254).

    Raises:
        ConfigError: there is no encoder with layers.
    """
    encoder = getattr(modules, "encoder", None)
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"optimiser.layer_decay {decay}: there is no encoder to train here; leave it out")
    above = encoder.layers_above()
    found = []
    for group in groups:
        by_layer = defaultdict(list)
        for parameter in group["params"]:
            by_layer[above.get(parameter, 0)].append(parameter)
        found += [group | {"params": by_layer[n], "lr": lr * decay**n} for n in sorted(by_layer)]
    return found


def rate_factor(recipe: Optimiser, total: int) -> Callable[[int], float]:
    """Factor of the learning rate at a step of a run of `total` steps."""
    if recipe.schedule == "constant":
        return lambda _: 1.0
    if recipe.schedule != "slowfast":
        return partial(_SCHEDULES[recipe.schedule], warmup=round(recipe.warmup * total), total=total)

    def after(part: float) -> float:
        return drops(part, recipe.drops) if recipe.drops else cosine(part, 1)

    return lambda step: warmup_into(after, step / total, recipe.warmup, recipe.warmup_start)
