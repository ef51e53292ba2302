"""ResNet (He et al., arXiv:1512.03385) as a shot encoder, under torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shard_tools.errors import ConfigError

from .encoder import Encoder

# depth -> (blocks per stage, bottleneck)
_SHAPES = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class _NarrowShortcut(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 8 channels, as one without stride of every second row and column.

    For the gradient of its weights, oneDNN on a CPU with AVX2 writes past its memory (uxlfoundation/oneDNN#6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        down, across = self.stride
        return nn.functional.conv2d(x[..., ::down, ::across], self.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; the stride is in the 3x3 (ResNet v1.5)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Encoder):
    """Images `[N, 3, H, W]` -> features `[N, dim]` (table 1 of the paper); 512-d for depth 18 and 34, else 2048-d.

    Kaiming initialisation, except that the last BN gamma of every block is zero, so that a block starts as its shortcut
    (Goyal et al., arXiv:1706.02677, section 5.1).

    Args:
        depth: 18, 34, 50 or 101.
        width: channels of the first stage; 64 as published, fewer for small machines (`dim` shrinks with it).
        activation_checkpointing: keep only the inputs of blocks and recompute the rest in the backward pass (Chen et
            al., arXiv:1604.06174): less memory, more time, the same numbers.

    Raises:
        ConfigError: another depth, or a width below 1.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int = 50, width: int = 64, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self._activation_checkpointing = activation_checkpointing
        if depth not in _SHAPES:
            raise ConfigError(f"encoder depth {depth}: choose one of {', '.join(map(str, _SHAPES))}")
        if width < 1:
            raise ConfigError(f"encoder width {width}: must be at least 1")
        blocks, bottleneck = _SHAPES[depth]
        self._block = Bottleneck if bottleneck else BasicBlock
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self._channels = width
        for stage, count in enumerate(blocks, 1):
            setattr(self, f"layer{stage}", self._stage(width * 2 ** (stage - 1), count, stride=1 if stage == 1 else 2))
        self.dim = self._channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)

    def _stage(self, width: int, count: int, stride: int) -> nn.Sequential:
        outputs = width * self._block.expansion
        downsample = None
        if stride != 1 or self._channels != outputs:
            conv = _NarrowShortcut if self._channels < 8 else nn.Conv2d
            downsample = nn.Sequential(conv(self._channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        layers = [self._block(self._channels, width, stride, downsample)]
        layers += [self._block(outputs, width, 1, None) for _ in range(count - 1)]
        self._channels = outputs
        return nn.Sequential(*layers)

    def compile(self, *args, **kwargs) -> None:
        """See `nn.Module.compile`.

        Raises:
            ConfigError: activation checkpointing is on; torch.compile decides by its own rules what to recompute.
        """
        if self._activation_checkpointing:
            raise ConfigError(
                "training.compile and encoder.activation_checkpointing exclude each other: torch.compile already "
                "decides what to recompute; switch one off"
            )
        super().compile(*args, **kwargs)

    def maps(self, images: Tensor) -> Tensor:
        """Maps `[N, dim, h, w]` of the last stage; h and w are 1/32 of the image's."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = self._checkpointed(block, x) if self._activation_checkpointing and self.training else block(x)
        return x

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).mean((2, 3))

    @staticmethod
    def _checkpointed(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(block)))


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Freeze the running statistics of batch normalisation while a batch is recomputed."""
    norms = [module for module in block.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    batches = [norm.num_batches_tracked.clone() for norm in norms]  # type: ignore[union-attr]  # all track them
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:  # torch exits by an exception as soon as it has what it needs
        for norm, momentum, count in zip(norms, momenta, batches, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]
