"""VoV3D (Lee et al., arXiv:2012.00317): one-shot aggregation over time, with X3D's stem and head."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shard_tools.errors import ConfigError

from .clip import conv
from .staged import Head, SqueezeExcite, StagedEncoder, Stem

# size -> (blocks per stage, units per block, inner channels of a unit in the first stage). "M-2020" is M as first
# published.
_SHAPES = {
    "M": ((1, 2, 3, 2), 5, 40),
    "M-2020": ((1, 1, 2, 2), 4, 48),
    "L": ((1, 2, 5, 3), 5, 48),
}


class VoV3D(StagedEncoder):
    """Clips `[N, 3, T, H, W]` -> features `[N, 2048]`; every stage is of `TemporalOSA` blocks.

    Args:
        size: M, M-2020 (the smaller of its two published shapes) or L.

    Raises:
        ConfigError: another size.
    """

    def __init__(self, size: Literal["M", "M-2020", "L"] = "M") -> None:
        if size not in _SHAPES:
            raise ConfigError(f"VoV3D size {size}: choose one of {', '.join(_SHAPES)}")
        blocks, units, inner = _SHAPES[size]
        inputs = inner // 2
        stem, stages = Stem(inputs), []
        for count in blocks:
            outputs = inner // 2
            first = TemporalOSA(inputs, inner, outputs, units, stride=2)
            rest = [TemporalOSA(outputs, inner, outputs, units, stride=1) for _ in range(count - 1)]
            stages.append(nn.Sequential(first, *rest))
            inputs, inner = outputs, 2 * inner
        super().__init__(stem, stages, Head(inputs, inner // 2, self.dim))


class TemporalOSA(nn.Module):
    """Temporal one-shot aggregation: a chain of units whose outputs are all concatenated once, and a shortcut.

        x -> unit -> unit -> ... -> unit
        |     |       |              |
        +-----+-------+---- ... -----+-> concatenate -> 1x1x1 -> + x

    The input of the block is concatenated too if it has the spatial size of the outputs.
    """

    def __init__(self, inputs: int, inner: int, outputs: int, units: int, stride: int) -> None:
        super().__init__()
        self.shortcut = self.shortcut_bn = None
        if inputs != outputs or stride != 1:
            self.shortcut, self.shortcut_bn = conv(inputs, outputs, stride=stride), nn.BatchNorm3d(outputs)
        self.layers = nn.ModuleList(
            FactorisedUnit(inputs if i == 0 else outputs, inner, outputs, stride if i == 0 else 1, excite=i % 2 == 0)
            for i in range(units)
        )
        gathered = units * outputs + (inputs if stride == 1 else 0)
        self.c, self.c_bn = conv(gathered, outputs), nn.BatchNorm3d(outputs)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        gathered, y = [x] if self.stride == 1 else [], x
        for unit in self.layers:
            y = unit(y)
            gathered.append(y)
        y = self.c_bn(self.c(torch.cat(gathered, 1)))
        shortcut = x if self.shortcut is None else self.shortcut_bn(self.shortcut(x))  # type: ignore[misc]
        return torch.relu(y + shortcut)


class FactorisedUnit(nn.Module):
    """D(2+1)D: 1x1x1, depthwise over space, depthwise over time, squeeze-and-excite in every other unit, 1x1x1."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, excite: bool) -> None:
        super().__init__()
        self.a = nn.Sequential(conv(inputs, inner), nn.BatchNorm3d(inner))
        self.b1 = conv(inner, inner, (1, 3, 3), stride, groups=inner)
        self.b2, self.b_bn = conv(inner, inner, (3, 1, 1), groups=inner), nn.BatchNorm3d(inner)
        self.se = SqueezeExcite(inner) if excite else nn.Identity()
        self.c = nn.Sequential(conv(inner, outputs), nn.BatchNorm3d(outputs))
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.b_bn(self.b2(self.b1(torch.relu(self.a(x)))))
        y = self.c(F.silu(self.se(y)))
        return torch.relu(y + x if self.residual else y)
