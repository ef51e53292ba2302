"""X3D-M and X3D-L (Feichtenhofer, arXiv:2004.04730): narrow bottlenecks around a depthwise 3x3x3 convolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shard_tools.errors import ConfigError

from .clip import conv
from .staged import Head, SqueezeExcite, StagedEncoder, Stem

_BLOCKS = {"M": (3, 5, 11, 7), "L": (5, 10, 25, 15)}
_CHANNELS = (24, 48, 96, 192)
_EXPANSION = 2.25


class X3D(StagedEncoder):
    """Clips `[N, 3, T, H, W]` -> features `[N, 2048]`.

    Args:
        size: M or L.

    Raises:
        ConfigError: another size.
    """

    def __init__(self, size: Literal["M", "L"] = "M") -> None:
        if size not in _BLOCKS:
            raise ConfigError(f"X3D size {size}: choose one of {', '.join(_BLOCKS)}")
        stem, stages, inputs = Stem(_CHANNELS[0]), [], _CHANNELS[0]
        for count, outputs in zip(_BLOCKS[size], _CHANNELS, strict=True):
            inner = int(_EXPANSION * outputs)
            first = Bottleneck(inputs, inner, outputs, stride=2, excite=True)
            rest = [Bottleneck(outputs, inner, outputs, stride=1, excite=i % 2 == 0) for i in range(1, count)]
            stages.append(nn.Sequential(first, *rest))
            inputs = outputs
        super().__init__(stem, stages, Head(inputs, inner, self.dim))


class Bottleneck(nn.Module):
    """1x1x1, depthwise 3x3x3, squeeze-and-excite in every other block, Swish, 1x1x1, and a shortcut."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, excite: bool) -> None:
        super().__init__()
        self.shortcut = self.shortcut_bn = None
        if inputs != outputs or stride != 1:
            self.shortcut, self.shortcut_bn = conv(inputs, outputs, stride=stride), nn.BatchNorm3d(outputs)
        self.a, self.a_bn = conv(inputs, inner), nn.BatchNorm3d(inner)
        self.b, self.b_bn = conv(inner, inner, (3, 3, 3), stride, groups=inner), nn.BatchNorm3d(inner)
        self.se = SqueezeExcite(inner) if excite else nn.Identity()
        self.c, self.c_bn = conv(inner, outputs), nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a_bn(self.a(x)))
        y = self.c_bn(self.c(F.silu(self.se(self.b_bn(self.b(y))))))
        shortcut = x if self.shortcut is None else self.shortcut_bn(self.shortcut(x))  # type: ignore[misc]
        return torch.relu(y + shortcut)
