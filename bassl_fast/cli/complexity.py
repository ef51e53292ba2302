"""Complexity of a network: its parameters and multiply-accumulates."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from bassl_fast.checkpoints.weights import without_memory
from bassl_fast.encoders import ClipEncoder, Encoder, ResNet3D
from bassl_fast.methods import Classifier, Supervised
from shard_tools.errors import ConfigError


@dataclass(frozen=True)
class Complexity:
    """Parameters, those outside batch normalisation, and multiply-accumulates of convolutions and linear layers."""

    parameters: int
    parameters_without_bn: int
    macs: int


def count(network: nn.Module, shape: tuple[int, ...]) -> Complexity:
    """Complexity of `network` in eval mode on an input of `shape`; runs on the meta device, so any size fits."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    parameters = sum(p.numel() for p in network.parameters())
    in_norms = sum(p.numel() for norm in norms for p in norm.parameters())
    abstract = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        abstract(torch.empty(shape, device="meta"))
    return Complexity(parameters, parameters - in_norms, counter.get_total_flops() // 2)


def classifier(encoder: Encoder, classes: int) -> Classifier:
    """`encoder` with a linear classifier."""
    return Classifier(encoder, Supervised(encoder.dim, classes))


def print_complexity(model: Callable[[], Encoder], classes: int | None, frames: int | None) -> None:
    """See `cost`."""
    with without_memory():
        encoder = model()
    clips = isinstance(encoder, ClipEncoder)
    if frames is not None and (frames < 1 or not clips):
        raise ConfigError(
            f"frames {frames}: {type(encoder).__name__} takes "
            + ("clips of at least 1" if clips else "images, not clips; leave it out")
        )
    network = encoder if classes is None else classifier(encoder, classes)
    length = frames or (8 if isinstance(encoder, ResNet3D) else 16)
    shapes = {side: (1, 3, *([length] if clips else []), side, side) for side in (224, 256)}
    found = {side: count(network, shape) for side, shape in shapes.items()}
    what = f"clips of {length} frames" if clips else "images"
    print(f"parameters                  {found[224].parameters:,d}")
    print(f"without BN                  {found[224].parameters_without_bn:,d}")
    for side, one in found.items():
        print(f"multiply-accumulates @{side}   {one.macs / 1e9:.3f} G ({what})")
