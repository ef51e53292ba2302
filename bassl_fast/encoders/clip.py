"""The base class of clip encoders."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from .encoder import Encoder


class ClipEncoder(Encoder):
    """Turns clips `[N, 3, T, H, W]` into features `[N, dim]`; images `[N, 3, H, W]` are clips of one frame.

    None of these networks strides over time, so clips may have any length, and a clip encoder can replace any
    `Encoder`: the key-frames of a shot are one clip.
    """

    mean, std = (0.45,) * 3, (0.225,) * 3
    memory_format = torch.channels_last_3d

    def forward(self, clips: Tensor) -> Tensor:
        """Features `[N, dim]` of normalised clips or images."""
        return self.features(self.maps(_as_clips(clips))).flatten(1)

    def of_shots(self, images: Tensor) -> Tensor:
        """Features `[N, dim]` float32 of shots; the key-frames `[N, K, 3, H, W]` of a shot are one clip."""
        return self.forward(images.transpose(1, 2)).float()

    def in_windows(self, images: Tensor, size: int) -> Tensor:
        """Features `[N, P, dim]` of clips `[N, 3, T, H, W]` in P windows of `size` pixels, one map cell apart."""
        return self.features(self.maps(_as_clips(images)), -(-size // 32)).flatten(2).transpose(1, 2)

    @abstractmethod
    def maps(self, clips: Tensor) -> Tensor:
        """Maps `[N, C, T, h, w]` of the last stage; h and w are 1/32 of the clip's."""

    def features(self, maps: Tensor, window: int | None = None) -> Tensor:
        """Features `[N, dim, 1, h', w']`: means over `maps`, or over each window of `window` x `window` cells."""
        if window is None:
            return maps.mean((2, 3, 4), keepdim=True)
        return nn.functional.avg_pool3d(maps, (maps.shape[2], window, window), stride=1)


def _as_clips(images: Tensor) -> Tensor:
    return images if images.ndim == 5 else images.unsqueeze(2)


def conv(
    inputs: int, outputs: int, kernel: tuple[int, int, int] = (1, 1, 1), stride: int = 1, groups: int = 1
) -> nn.Conv3d:
    """Convolution without bias that keeps the clip length and strides only in space; `kernel` is (T, H, W)."""
    time, height, width = (k // 2 for k in kernel)
    return nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), (time, height, width), groups=groups, bias=False)


def start_from_scratch(network: nn.Module) -> None:
    """Kaiming initialisation of all convolutions (He et al., arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
