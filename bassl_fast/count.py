"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Parameters, those outside batch normalisation, and multiply-accumulates of convolutions and linear layers."""

    parameters: int
    parameters_without_bn: int
    macs: int


def count(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    """Cost of `network` in evaluation on an input of `shape`; nothing is computed, so size and memory do not matter."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    parameters = sum(p.numel() for p in network.parameters())
    in_norms = sum(p.numel() for norm in norms for p in norm.parameters())
    abstract = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        abstract(torch.empty(shape, device="meta"))
    return Cost(parameters, parameters - in_norms, counter.get_total_flops() // 2)
