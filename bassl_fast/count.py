"""What a network costs: parameters and multiply-accumulates. `python -m bassl_fast.count` prints those for clips."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from .encoders import X3D, Encoder, ResNet3D, VoV3D
from .methods import Classifier, Supervised


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


def classifier(encoder: Encoder, classes: int) -> Classifier:
    """`encoder` under a classifier."""
    return Classifier(encoder, Supervised(encoder.dim, classes))


# name -> network and frames of the clip that it is published with
MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "R3D-18": (lambda: ResNet3D(18), 8),
    "R3D-50": (lambda: ResNet3D(50), 8),
    "X3D-M": (lambda: classifier(X3D("M"), 400), 16),
    "X3D-L": (lambda: classifier(X3D("L"), 400), 16),
    "VoV3D-M": (lambda: classifier(VoV3D("M"), 400), 16),
    "VoV3D-M-2020": (lambda: classifier(VoV3D("M-2020"), 400), 16),
    "VoV3D-L": (lambda: classifier(VoV3D("L"), 400), 16),
}


def main() -> None:
    """Print what every network of clips costs."""
    print(f"{'':14s}{'parameters':>12s}{'without BN':>12s}  frames  GMAC@224  GMAC@256")
    for name, (make, frames) in MODELS.items():
        with torch.device("meta"):
            network = make()
        at_224, at_256 = (count(network, (1, 3, frames, side, side)) for side in (224, 256))
        print(
            f"{name:14s}{at_224.parameters:12,d}{at_224.parameters_without_bn:12,d}{frames:8d}"
            f"{at_224.macs / 1e9:10.3f}{at_256.macs / 1e9:10.3f}"
        )


if __name__ == "__main__":
    main()
