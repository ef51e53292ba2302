"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, arXiv:1905.11946, table 1) with ReLU6 and no squeeze-and-excite."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import Encoder

# kernel, stride of the first block, expansion, channels, blocks
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM = 32


class EfficientNetLite0(Encoder):
    """Images `[N, 3, H, W]` -> features `[N, 1280]`.

    Kaiming initialisation; no stochastic depth. ImageNet weights are loaded by `checkpoints.packaged`.
    """

    dim = 1280
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = _ConvNorm(3, _STEM, 3, stride=2)
        blocks, inputs = [], _STEM
        for kernel, stride, expansion, outputs, count in _STAGES:
            for i in range(count):
                blocks.append(_Block(inputs, outputs, kernel, 1 if i else stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _ConvNorm(inputs, self.dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        maps = self.blocks(F.relu6(self.stem(images), inplace=True))
        return F.relu6(self.head(maps), inplace=True).mean((2, 3))


class _Block(nn.Module):
    """1x1 to more channels, a depthwise convolution, 1x1 without activation, and a shortcut where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _ConvNorm(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = _ConvNorm(inner, inner, kernel, stride, groups=inner)
        self.project = _ConvNorm(inner, outputs, 1)
        self._shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self._shortcut else y


class _ConvNorm(nn.Conv2d):
    """Convolution and batch normalisation, with TensorFlow's padding and constants, which the weights need.

    The output has ceil(n / stride) cells a side. If the padding of a side is odd, the larger part is at its end.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            (top, bottom), (left, right) = self._padding(x.shape[2]), self._padding(x.shape[3])
            x = F.pad(x, (left, right, top, bottom))
        if self.training:
            return self.norm(super().forward(x))
        # One pass over the maps instead of two, which saves a third of the time on a CPU.
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)  # type: ignore[arg-type, operator]
        bias = self.norm.bias - self.norm.running_mean * scale  # type: ignore[operator]
        return self._conv_forward(x, self.weight * scale[:, None, None, None], bias)

    def _padding(self, length: int) -> tuple[int, int]:
        total = max(0, self.kernel_size[0] - (length % self.stride[0] or self.stride[0]))
        return total // 2, total - total // 2
