"""X3D-M and X3D-L (Feichtenhofer, arXiv:2004.04730): narrow bottlenecks around a depthwise 3x3x3 convolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shard_tools.errors import ConfigError

from .clip import ClipEncoder, conv, start_from_scratch

_BLOCKS = {"M": (3, 5, 11, 7), "L": (5, 10, 25, 15)}
_CHANNELS = (24, 48, 96, 192)
_EXPANSION = 2.25


class X3D(ClipEncoder):
    """Clips `[N, 3, T, H, W]` -> features `[N, 2048]`. Every stage halves height and width; the length is kept.

    Args:
        size: M or L.

    Raises:
        ConfigError: another size.
    """

    dim = 2048
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    stage5: nn.Sequential

    def __init__(self, size: Literal["M", "L"] = "M") -> None:
        super().__init__()
        if size not in _BLOCKS:
            raise ConfigError(f"X3D size {size}: choose one of {', '.join(_BLOCKS)}")
        self.stem = Stem(_CHANNELS[0])
        inputs = _CHANNELS[0]
        for stage, (count, outputs) in enumerate(zip(_BLOCKS[size], _CHANNELS, strict=True), 2):
            inner = int(_EXPANSION * outputs)
            first = Bottleneck(inputs, inner, outputs, stride=2, excite=True)
            rest = [Bottleneck(outputs, inner, outputs, stride=1, excite=i % 2 == 0) for i in range(1, count)]
            setattr(self, f"stage{stage}", nn.Sequential(first, *rest))
            inputs = outputs
        self.head = Head(inputs, inner, self.dim)
        start_from_scratch(self)
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.c_bn.weight)

    def maps(self, clips: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stem(clips)))
        return self.head(self.stage5(self.stage4(x)))

    def features(self, maps: Tensor, window: int | None = None) -> Tensor:
        return torch.relu(self.head.lin_5(super().features(maps, window)))


class Stem(nn.Module):
    """3x3 over space with stride 2, then depthwise over 5 frames."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv_xy, self.conv = (
            conv(3, outputs, (1, 3, 3), stride=2),
            conv(outputs, outputs, (5, 1, 1), groups=outputs),
        )
        self.bn = nn.BatchNorm3d(outputs)

    def forward(self, clips: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(self.conv_xy(clips))))


class SqueezeExcite(nn.Module):
    """Squeeze-and-excite (Hu et al., arXiv:1709.01507): channel gates from the mean over the clip, 16x reduction."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # A multiple of 8, at least 8, never rounded down by more than 10 %.
        width = max(8, int(channels / 16 + 4) // 8 * 8)
        width += 8 * (width < 0.9 * channels / 16)
        self.fc1, self.fc2 = nn.Conv3d(channels, width, 1), nn.Conv3d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3, 4), keepdim=True)))))


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


class Head(nn.Module):
    """1x1x1 on the last maps; `lin_5` turns the pooled maps into features."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.conv_5, self.conv_5_bn = conv(inputs, inner), nn.BatchNorm3d(inner)
        self.lin_5 = conv(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv_5_bn(self.conv_5(x)))
