"""Training views on a GPU by kernels of Triton, from key-frames that are decoded once each.

    decoded images  ->  resample, colours up to contrast  ->  float32, and sums of grey
                    ->  contrast, the other colours
                    ->  blur across
                    ->  blur down, solarize, flip, normalise  ->  views, bfloat16

The arithmetic is that of `fused.c`. A contrast needs the mean of its view, and a blur the neighbours of a pixel, so
there are four launches. They pass on 32 views at a time, which the L2 cache of an H200 holds. Sums are added in a fixed
order, so a view does not depend on the others of its batch.

Not run on a GPU yet: tests run it by Triton's interpreter on a CPU, and compile it for a GPU.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shard_tools.errors import MissingDependency

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingDependency(
        f"Triton is not installed ({error}); it comes with torch for CUDA; choose data.views gpu or cpu"
    ) from None

from . import fused
from .graph import Channels
from .views import STEPS

# Of a view: addresses of its first pixel and of that of the next frame (0: none), bytes per row of the image, height
# and width of the crop, and the number of colour steps before contrast.
CROP = np.dtype([(name, "<i8") for name in ("image", "following", "pitch", "height", "width", "split")])
_STEPS = tl.constexpr(len(STEPS) + 2)
_NUMBERS = tl.constexpr(fused.PARAMETERS.itemsize // 4)
_SCALE, _OFFSET, _BLUR, _FLIP, _FOLD = (
    tl.constexpr(fused.PARAMETERS.fields[name][1] // 4)  # type: ignore[index]  # it has fields
    for name in ("scale", "offset", "blur", "flip", "fold")
)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # on a CPU, by Triton's interpreter
_BLOCK = 1024  # pixels of a program
_WARPS = 8
_TOGETHER = 32  # views between two launches: with 224 pixels, 38 MB


def check_driver() -> None:
    """Let Triton compile what launches kernels, at the start of a run instead of in its first step.

    Raises:
        MissingDependency: it cannot.
    """
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # no compiler, no headers, no folder for its cache: each is of another type
        raise MissingDependency(
            f"Triton cannot start ({' '.join(str(error).split())}); it needs a C compiler, Python's header files and a "
            "TRITON_CACHE_DIR to write to; or choose data.views gpu or cpu"
        ) from None


def make_views(
    crops: np.ndarray, parameters: np.ndarray, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Views `[N, size, size, 3]`, on the current stream of the device.

    Args:
        crops: `[N]` of `CROP`; the addresses are of uint8 `[h, w, 3]` on the device.
        parameters: `[N, 52]` of `fused.parameters`.
        size: side of the views in pixels.
        dtype: of the views.
        device: a GPU; or the CPU in Triton's interpreter.
    """
    where, numbers = _on(crops.view(np.int64).reshape(len(crops), -1), device), _on(parameters, device)
    out = torch.empty((len(crops), size, size, 3), dtype=dtype, device=device)
    blocks = triton.cdiv(size * size, _BLOCK)
    image, blurred = torch.empty((2, _TOGETHER, 3, size * size), device=device)
    sums = torch.empty((_TOGETHER, blocks), device=device)
    padded = triton.next_power_of_2(blocks)
    for first in range(0, len(crops), _TOGETHER):
        some = slice(first, first + _TOGETHER)
        grid, rows = (blocks, len(out[some])), numbers[some]
        options: dict[str, Any] = {"BLOCK": _BLOCK, "num_warps": _WARPS}
        _resample[grid](where[some], rows, image, sums, size, **options)
        _colour[grid](where[some], rows, image, sums, size, blocks, BLOCKS=padded, **options)
        _blur_across[grid](rows, image, blurred, size, **options)
        _blur_down[grid](rows, blurred, out[some], size, **options)
    return out


def of_images(
    rows: np.ndarray,
    image: np.ndarray,
    width: np.ndarray,
    images: Any,
    *,
    size: int,
    mean: Channels,
    std: Channels,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Views `[N, size, size, 3]` of rows `[N]` of `VIEW` and the images that DALI decoded for them.

    Args:
        rows: of the views.
        image: `[N + D]` number of the image of every row, then of the next frames of the D rows with `difference`.
        width: `[N + D]` of these images, in pixels.
        images: DALI's list of uint8 `[h, w, 3]`; it must be kept until the device is done.
        size, dtype, device: see `make_views`.
        mean, std: of the channels, as of `TrainViews`.
    """
    parameters = fused.parameters(rows, 255 * np.array(mean), 255 * np.array(std))
    starts = np.array([images[at].data_ptr() for at in range(len(images))], np.int64)[image]
    crops = np.zeros(len(rows), CROP)
    crops["pitch"], crops["height"], crops["width"] = 3 * width[: len(rows)], rows["height"], rows["width"]
    corner = rows["top"] * crops["pitch"] + 3 * rows["left"].astype(np.int64)
    crops["image"] = starts[: len(rows)] + corner
    crops["following"][rows["difference"]] = starts[len(rows) :] + corner[rows["difference"]]
    crops["split"] = before_contrast(parameters)
    return make_views(crops, parameters, size, dtype, device)


def before_contrast(parameters: np.ndarray) -> np.ndarray:
    """Number `[N]` of the colour steps before contrast; of all, if a view has none."""
    means = parameters.view(fused.PARAMETERS)["steps"]["mean"].reshape(len(parameters), -1) != 0
    return np.where(means.any(1), means.argmax(1), means.shape[1])


def _on(rows: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(rows)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


@triton.jit
def _resample(crops, rows, image, sums, size, BLOCK: tl.constexpr):
    """Antialiased bilinear resize of the crops (less those of the next frames), and the colours up to contrast."""
    at, inside, view = _place(size, BLOCK)
    crop = crops + 6 * view
    source = tl.load(crop).to(tl.pointer_type(tl.uint8))
    following = tl.load(crop + 1).to(tl.pointer_type(tl.uint8))
    differs = (at >= 0) & (tl.load(crop + 1) != 0)
    pitch, height, width = tl.load(crop + 2), tl.load(crop + 3).to(tl.int32), tl.load(crop + 4).to(tl.int32)
    top, y, reach_y, taps_y = _axis(at // size, height, size)
    left, x, reach_x, taps_x = _axis(at % size, width, size)
    r, g, b, total = _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK)
    for j in range(taps_y):
        weight_y = tl.maximum(reach_y - tl.abs(top + j - y), 0.0)
        line = (top + j) * pitch
        for i in range(taps_x):
            weight = weight_y * tl.maximum(reach_x - tl.abs(left + i - x), 0.0)
            pixel = line + 3 * (left + i)
            r += weight * _level(source, following, pixel, differs)
            g += weight * _level(source, following, pixel + 1, differs)
            b += weight * _level(source, following, pixel + 2, differs)
            total += weight
    r, g, b = r / total, g / total, b / total
    for step in range(tl.load(crop + 5).to(tl.int32)):
        r, g, b = _step(r, g, b, rows + view * _NUMBERS + 7 * step, 0.0)
    _store(image, r, g, b, at, inside, view, size)
    grey = tl.where(inside, 0.299 * r + 0.587 * g + 0.114 * b, 0.0)
    tl.store(sums + view * tl.num_programs(0) + tl.program_id(0), tl.reduce(grey, 0, _add))


@triton.jit
def _colour(crops, rows, image, sums, size, blocks, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """Contrast and the colours after it, in place."""
    at, inside, view = _place(size, BLOCK)
    split = tl.load(crops + 6 * view + 5).to(tl.int32)
    if split < _STEPS:
        block = tl.arange(0, BLOCKS)
        mean = tl.reduce(tl.load(sums + view * blocks + block, mask=block < blocks, other=0.0), 0, _add) / (size * size)
        r, g, b = _load(image, at, view, size)
        for step in range(split, _STEPS):
            r, g, b = _step(r, g, b, rows + view * _NUMBERS + 7 * step, mean)
        _store(image, r, g, b, at, inside, view, size)


@triton.jit
def _blur_across(rows, image, blurred, size, BLOCK: tl.constexpr):
    at, inside, view = _place(size, BLOCK)
    sigma, radius = _window(rows + view * _NUMBERS)
    r, g, b, total = _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK)
    for k in range(-radius, radius + 1):
        weight = _gauss(k, sigma)
        near_r, near_g, near_b = _load(image, at // size * size + _mirrored(at % size + k, size), view, size)
        r, g, b, total = r + weight * near_r, g + weight * near_g, b + weight * near_b, total + weight
    _store(blurred, r / total, g / total, b / total, at, inside, view, size)


@triton.jit
def _blur_down(rows, blurred, out, size, BLOCK: tl.constexpr):
    """Blur down, solarize, normalise, flip, as channels-last pixels."""
    at, inside, view = _place(size, BLOCK)
    row = rows + view * _NUMBERS
    sigma, radius = _window(row)
    r, g, b, total = _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK), _nothing(BLOCK)
    for k in range(-radius, radius + 1):
        weight = _gauss(k, sigma)
        near_r, near_g, near_b = _load(blurred, _mirrored(at // size + k, size) * size + at % size, view, size)
        r, g, b, total = r + weight * near_r, g + weight * near_g, b + weight * near_b, total + weight
    x = at % size
    x = tl.where(tl.load(row + _FLIP) != 0, size - 1 - x, x)
    to = out + (view * size * size + at // size * size + x) * 3
    tl.store(to, _normalised(r / total, row, 0).to(out.dtype.element_ty), mask=inside)
    tl.store(to + 1, _normalised(g / total, row, 1).to(out.dtype.element_ty), mask=inside)
    tl.store(to + 2, _normalised(b / total, row, 2).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _place(size, BLOCK: tl.constexpr):
    """Pixels of this program (past the end, the last one), which of them exist, and their view."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return tl.minimum(at, size * size - 1), at < size * size, tl.program_id(1)


@triton.jit
def _nothing(BLOCK: tl.constexpr):
    return tl.full((BLOCK,), 0.0, tl.float32)


@triton.jit
def _axis(place, source, size):
    """First source pixel under the triangle filter, its centre, its reach, and the number of pixels under it."""
    step = tl.div_rn(source.to(tl.float32), size.to(tl.float32))  # `/` is 2 ulp off, 0.02 grey levels at an edge
    reach = tl.maximum(step, 1.0)
    taps = tl.minimum(tl.ceil(2 * reach).to(tl.int32), source)
    centre = (place.to(tl.float32) + 0.5) * step - 0.5
    first = tl.floor(centre - reach).to(tl.int32) + 1
    return tl.maximum(tl.minimum(first, source - taps), 0), centre, reach, taps


@triton.jit
def _level(source, following, at, differs):
    level = tl.load(source + at).to(tl.float32)
    return level - tl.load(following + at, mask=differs, other=0).to(tl.float32)


@triton.jit
def _step(r, g, b, step, mean):
    """A colour step, see `views.STEP`."""
    own, after, before = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    least, most = tl.minimum(r, tl.minimum(g, b)), tl.maximum(r, tl.maximum(g, b))
    shared = tl.load(step + 3) * (least + most) + tl.load(step + 4) * (0.299 * r + 0.587 * g + 0.114 * b)
    shared += tl.load(step + 5) * mean + tl.load(step + 6)
    turns = (after != 0) | (before != 0)
    least, most = tl.where(turns, least, 0.0), tl.where(turns, most, 255.0)
    new_r = tl.minimum(tl.maximum(own * r + after * g + before * b + shared, least), most)
    new_g = tl.minimum(tl.maximum(own * g + after * b + before * r + shared, least), most)
    new_b = tl.minimum(tl.maximum(own * b + after * r + before * g + shared, least), most)
    return new_r, new_g, new_b


@triton.jit
def _window(row):
    """Sigma and radius of the Gaussian of a view; without a blur, the radius is 0."""
    sigma = tl.load(row + _BLUR)
    return tl.maximum(sigma, 1e-3), tl.ceil(3 * sigma).to(tl.int32)


@triton.jit
def _gauss(k, sigma):
    return tl.exp(-0.5 * k * k / (sigma * sigma))


@triton.jit
def _mirrored(i, size):
    """Number i of a row or column, mirrored at the edges without repeating them."""
    i = tl.abs(i) % (2 * size - 2)
    return tl.minimum(i, 2 * size - 2 - i)


@triton.jit
def _normalised(level, row, channel):
    level = tl.minimum(level, tl.load(row + _FOLD) - level)
    return level * tl.load(row + _SCALE + channel) + tl.load(row + _OFFSET + channel)


@triton.jit
def _load(image, at, view, size):
    plane = image + view * 3 * size * size + at
    return tl.load(plane), tl.load(plane + size * size), tl.load(plane + 2 * size * size)


@triton.jit
def _store(image, r, g, b, at, inside, view, size):
    plane = image + view * 3 * size * size + at
    tl.store(plane, r, mask=inside)
    tl.store(plane + size * size, g, mask=inside)
    tl.store(plane + 2 * size * size, b, mask=inside)


@triton.jit
def _add(a, b):
    """For sums: `tl.sum` is compiled already if Triton was imported before its interpreter was asked for."""
    return a + b
