"""What X3D and VoV3D share: stem, head, squeeze-and-excite, and the network around four stages of blocks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .clip import ClipEncoder, conv, start_from_scratch


class StagedEncoder(ClipEncoder):
    """Clips `[N, 3, T, H, W]` -> features `[N, 2048]`: stem, four stages of blocks, head.

    Stem and stages each halve height and width; the length is kept (X3D; Feichtenhofer, arXiv:2004.04730, table 1).
    Kaiming initialisation, except that the last BN gamma of every block, `c_bn`, is zero, as in `ResNet`.

    Args:
        stem: the first maps.
        stages: four sequences of blocks.
        head: the features; its size is `dim`.
    """

    dim = 2048
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential
    stage5: nn.Sequential

    @abstractmethod
    def __init__(self, stem: Stem, stages: Sequence[nn.Sequential], head: Head) -> None:
        super().__init__()
        self.stem = stem
        self.stage2, self.stage3, self.stage4, self.stage5 = stages
        self.head = head
        start_from_scratch(self)
        for stage in stages:
            for block in stage:
                nn.init.zeros_(block.c_bn.weight)  # type: ignore[arg-type, union-attr]  # a `BatchNorm3d`

    def maps(self, clips: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stem(clips)))
        return self.head(self.stage5(self.stage4(x)))

    def features(self, maps: Tensor, window: int | None = None) -> Tensor:
        return torch.relu(self.head.lin_5(super().features(maps, window)))


class Stem(nn.Module):
    """3x3 over space with stride 2, then depthwise over 5 frames: `[N, 3, T, H, W]` -> `[N, outputs, T, H/2, W/2]`."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv_xy = conv(3, outputs, (1, 3, 3), stride=2)
        self.conv = conv(outputs, outputs, (5, 1, 1), groups=outputs)
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


class Head(nn.Module):
    """1x1x1 on the last maps, to `inner` channels; `lin_5` turns the pooled maps into features of size `outputs`."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.conv_5, self.conv_5_bn = conv(inputs, inner), nn.BatchNorm3d(inner)
        self.lin_5 = conv(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv_5_bn(self.conv_5(x)))
