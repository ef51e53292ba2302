"""View steps in torch, for libraries that lack them, optimised: colour jitter in any order is one matrix an image, with
hue as a rotation about the grey axis and one clip, and a few images at a time are blurred by one convolution an axis.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipelines.graph import MEAN, STD
from pipelines.views import GREY, ORDERS, STEPS

TOGETHER = 4  # images: more do not fit in the CPU caches
SCALE = torch.tensor(1 / STD, dtype=torch.float32).view(3, 1, 1)
OFFSET = torch.tensor(-MEAN / STD, dtype=torch.float32).view(3, 1, 1)


def normalise(pictures: Tensor) -> Tensor:
    """uint8 `[..., S, S, 3]` to normalised float32 `[..., 3, S, S]`."""
    planes = pictures.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.mul_(SCALE).add_(OFFSET)


def colour_and_blur(pictures: Tensor, rows: np.ndarray, out: Tensor) -> None:
    """Jitter, blur and normalise uint8 `[N, S, S, 3]` by view rows `[N]` into `out`, float32 `[N, 3, S, S]`."""
    pixel, mean = map(torch.from_numpy, colour_matrices(rows))
    for first in range(0, len(rows), TOGETHER):
        part = slice(first, first + TOGETHER)
        planes = pictures[part].movedim(-1, 1).to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
        grey = mean[part] @ planes.mean(2, keepdim=True)
        planes = torch.baddbmm(grey, pixel[part], planes).clamp_(0, 255).view(out[part].shape)
        sigma = rows["blur"][part]
        blurred = np.flatnonzero(sigma)
        if len(blurred):
            planes[blurred] = _blur(planes[blurred], torch.from_numpy(sigma[blurred]))
        torch.addcmul(OFFSET, planes, SCALE, out=out[part])


def colour_matrices(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jitter of view rows `[N]` as matrices A, C `[N, 3, 3]` float32: A pixel + C (mean pixel of the image)."""
    grey, eye = np.tile(GREY, (3, 1)), np.eye(3)
    pixel, mean = np.tile(eye, (len(rows), 1, 1)), np.zeros((len(rows), 3, 3))
    for place in ORDERS[rows["order"]].T:
        for step, name in enumerate(STEPS):
            at = np.flatnonzero(place == step)
            f = rows[name][at].astype(np.float64)[:, None, None]
            if name == "contrast":
                mean[at] = f * mean[at] + (1 - f) * (grey @ (pixel[at] + mean[at]))
                pixel[at] = f * pixel[at]
            else:
                matrix = _turn(f) if name == "hue" else f * eye
                if name == "saturation":
                    matrix = matrix + (1 - f) * grey
                pixel[at], mean[at] = matrix @ pixel[at], matrix @ mean[at]
    return pixel.astype(np.float32), mean.astype(np.float32)


def _turn(turns: np.ndarray) -> np.ndarray:
    """`[N, 3, 3]` rotations about the grey axis by `[N, 1, 1]` turns."""
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return cos * np.eye(3) + sin * across + (1 - cos) / 3


def _blur(planes: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of `[N, C, H, W]`, sigma `[N]` in pixels, mirrored at the edges; taps reach 3 sigma."""
    n, channels, height, width = planes.shape
    reach = int(np.ceil(3 * float(sigma.max())))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]  # [N * C, 1, taps]
    padded = F.pad(planes, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    down = F.conv2d(padded, taps[..., None], groups=len(taps))
    return F.conv2d(down, taps[..., None, :], groups=len(taps)).view(n, channels, height, width)
