"""R3D-18 and R3D-50 as SCE trains them (Denize et al., arXiv:2212.11187): ResNets for clips that keep every frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shard_tools.errors import ConfigError

from .clip import ClipEncoder, conv, start_from_scratch

# depth -> (blocks per stage, bottleneck)
_SHAPES = {18: ((2, 2, 2, 2), False), 50: ((3, 4, 6, 3), True)}
# Temporal kernel size of the first convolution of a block, by stage: only late stages mix frames (Feichtenhofer et al.,
# arXiv:1812.03982, slow pathway).
_TEMPORAL_KERNELS = (1, 1, 3, 3)


class _Block(nn.Module):
    """Two or three convolutions and a shortcut."""

    conv_c: nn.Conv3d | None

    def __init__(self, inputs: int, outputs: int, temporal: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            inner = outputs // 4
            self.conv_a, self.norm_a = conv(inputs, inner, (temporal, 1, 1)), nn.BatchNorm3d(inner)
            self.conv_b, self.norm_b = conv(inner, inner, (1, 3, 3), stride), nn.BatchNorm3d(inner)
            self.conv_c, self.norm_c = conv(inner, outputs), nn.BatchNorm3d(outputs)
        else:
            self.conv_a, self.norm_a = conv(inputs, outputs, (temporal, 3, 3), stride), nn.BatchNorm3d(outputs)
            self.conv_b, self.norm_b = conv(outputs, outputs, (1, 3, 3)), nn.BatchNorm3d(outputs)
            self.conv_c = None
        self.shortcut_conv = self.shortcut_norm = None
        if inputs != outputs or stride != 1:
            self.shortcut_conv = conv(inputs, outputs, stride=stride)
            self.shortcut_norm = nn.BatchNorm3d(outputs)

    @property
    def last_norm(self) -> nn.BatchNorm3d:
        return self.norm_b if self.conv_c is None else self.norm_c

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm_a(self.conv_a(x)))
        y = self.norm_b(self.conv_b(y))
        if self.conv_c is not None:
            y = self.norm_c(self.conv_c(torch.relu(y)))
        shortcut = x if self.shortcut_conv is None else self.shortcut_norm(self.shortcut_conv(x))  # type: ignore[misc]
        return torch.relu(y + shortcut)


class ResNet3D(ClipEncoder):
    """Clips `[N, 3, T, H, W]` -> features `[N, dim]`; 512-d for depth 18, 2048-d for 50. Initialised as `ResNet`.

    Args:
        depth: 18 or 50.

    Raises:
        ConfigError: another depth.
    """

    stage1: nn.Sequential
    stage2: nn.Sequential
    stage3: nn.Sequential
    stage4: nn.Sequential

    def __init__(self, depth: int = 18) -> None:
        super().__init__()
        if depth not in _SHAPES:
            raise ConfigError(f"encoder depth {depth}: choose one of {', '.join(map(str, _SHAPES))}")
        blocks, bottleneck = _SHAPES[depth]
        self.conv, self.norm = conv(3, 64, (1, 7, 7), stride=2), nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        inputs, outputs = 64, 256 if bottleneck else 64
        for stage, (count, temporal) in enumerate(zip(blocks, _TEMPORAL_KERNELS, strict=True), 1):
            first = _Block(inputs, outputs, temporal, 1 if stage == 1 else 2, bottleneck)
            rest = [_Block(outputs, outputs, temporal, 1, bottleneck) for _ in range(count - 1)]
            setattr(self, f"stage{stage}", nn.Sequential(first, *rest))
            inputs, outputs = outputs, 2 * outputs
        self.dim = inputs
        start_from_scratch(self)
        for module in self.modules():
            if isinstance(module, _Block):
                nn.init.zeros_(module.last_norm.weight)

    def maps(self, clips: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.norm(self.conv(clips))))
        return self.stage4(self.stage3(self.stage2(self.stage1(x))))
