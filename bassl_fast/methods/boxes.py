"""Boxes that show the same content in two views of an image, and pooling of maps over them (SCRL, arXiv:2103.06122)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shard_tools.errors import ConfigError

_TRIES = 50


@dataclass(frozen=True)
class Boxes:
    """How boxes are drawn.

    Args:
        count: boxes K per image.
        least: minimum side of a box, in pixels of a view.
        overlap: a box whose IoU with an earlier one reaches this is redrawn, at most fifty times; 1 never redraws.
        grid: draw each box inside a cell of a random grid, so that small boxes are as likely as large ones.
        jitter: in the second view, move and scale each side of a box by up to this fraction of it.

    Raises:
        ConfigError: a value outside its range.
    """

    count: int = 10
    least: int = 32
    overlap: float = 0.5
    grid: bool = True
    jitter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("count", "least"):
            if getattr(self, name) < 1:
                raise ConfigError(f"boxes.{name} {getattr(self, name)}: must be at least 1")
        for name in ("overlap", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"boxes.{name} {getattr(self, name)}: must be within [0, 1]")


def draw_boxes(
    rng: np.random.Generator, recipe: Boxes, first: np.ndarray, second: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes `[N, 2, K, 4]` float32 (x1, y1, x2, y2) in pixels of both views, and which images have any, `[N]` bool.

    An image has none (its boxes are 0) if its views overlap by `recipe.least` pixels or less on either axis.

    Args:
        rng: asked, for all images at once and try by try, for: grid (columns, rows, column, row), width, height, x, y.
        recipe: see `Boxes`.
        first, second: `[N]` rows of `pipelines.views.VIEW`, the two views of each image.
        size: side of the views in pixels.
    """
    views = np.stack([first, second], 1)
    corner = np.stack([views["left"], views["top"]], -1).astype(np.float64)  # [N, view, axis] in source pixels
    side = np.stack([views["width"], views["height"]], -1).astype(np.float64)
    low, high = corner.max(1), (corner + side).min(1)
    scale = size / side
    least = scale.min(1)  # [N, axis]; boxes are drawn in whole pixels of the coarser view
    extent = np.rint((high - low) * least).astype(np.int64)
    common = (high > low).all(1) & (extent > recipe.least).all(1)

    low, corner, scale, least, extent = (a[common] for a in (low, corner, scale, least, extent))
    zoom, shift, flip = scale / least[:, None], (low[:, None] - corner) * scale, views["flip"][common]

    def to_view(boxes: np.ndarray, k: int, rows: np.ndarray) -> np.ndarray:
        return _in_view(boxes, zoom[rows, k], shift[rows, k], flip[rows, k], size)

    everyone = np.arange(len(extent))
    drawn = np.zeros((len(extent), recipe.count, 4))
    placed = np.zeros_like(drawn)
    for k in range(recipe.count):
        pending = everyone
        for _ in range(_TRIES):
            if not len(pending):
                break
            drawn[pending, k] = _draw(rng, recipe, extent[pending])
            candidate = to_view(drawn[pending, k], 0, pending)
            placed[pending, k] = candidate.clip(0, size)
            if k == 0 or recipe.overlap == 1:
                break
            pending = pending[(iou(candidate[:, None], placed[pending, :k]) >= recipe.overlap).any(1)]
    partner = to_view(drawn, 1, everyone)
    if recipe.jitter:
        partner = _jitter(partner, rng.uniform(1 - recipe.jitter, 1 + recipe.jitter, partner.shape))
    boxes = np.zeros((len(common), 2, recipe.count, 4), np.float32)
    boxes[common] = np.stack([placed, partner.clip(0, size)], 1)
    return boxes, common


def _in_view(boxes: np.ndarray, zoom: np.ndarray, shift: np.ndarray, flip: np.ndarray, size: int) -> np.ndarray:
    """Boxes (x, y, w, h) of the common part `[n, ..., 4]` as (x1, y1, x2, y2) in pixels of a view of `size`.

    Args:
        zoom, shift: `[n, 2]` per axis, from the common part to the view.
        flip: `[n]` whether the view is flipped.
    """
    wide = (len(boxes), *[1] * (boxes.ndim - 2), 2)
    start = boxes[..., :2] * zoom.reshape(wide) + shift.reshape(wide)
    end = start + boxes[..., 2:] * zoom.reshape(wide)
    turned = flip.reshape(wide[:-1])
    start[..., 0], end[..., 0] = (
        np.where(turned, size - end[..., 0], start[..., 0]),
        np.where(turned, size - start[..., 0], end[..., 0]),
    )
    return np.concatenate([start, end], -1)


def _draw(rng: np.random.Generator, recipe: Boxes, extent: np.ndarray) -> np.ndarray:
    """One box (x, y, w, h) `[n, 4]` within each `extent` `[n, 2]`; at most as large as its grid cell."""
    offset: list[np.ndarray] | list[int]
    if recipe.grid:
        lines = [rng.integers(1, extent[:, axis] // recipe.least + 1) for axis in (0, 1)]
        cell = [extent[:, axis] / lines[axis] for axis in (0, 1)]
        offset = [np.floor(rng.integers(0, lines[axis]) * cell[axis]) for axis in (0, 1)]
        room = [side + 1 for side in cell]
    else:
        room, offset = list(extent.T), [0, 0]
    sides = [rng.integers(recipe.least, room[axis].astype(np.int64)) for axis in (0, 1)]
    start = [rng.integers(0, (room[axis] - sides[axis]).astype(np.int64)) + offset[axis] for axis in (0, 1)]
    return np.stack([*start, *sides], 1).astype(np.float64)


def _jitter(boxes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Boxes `[..., 4]` moved (first two `factors` `[..., 4]`) and scaled (last two); a factor of 1 changes nothing."""
    side = boxes[..., 2:] - boxes[..., :2]
    start = boxes[..., :2] + side * (factors[..., :2] - 1)
    return np.concatenate([start, start + side * factors[..., 2:]], -1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union `[...]` of boxes `[..., 4]` (x1, y1, x2, y2)."""
    inner = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None).prod(-1)
    area_a, area_b = ((box[..., 2:] - box[..., :2]).prod(-1) for box in (a, b))
    return inner / (area_a + area_b - inner)


def roi_align(maps: Tensor, boxes: Tensor, stride: int) -> Tensor:
    """Mean `[N, K, C]` of `maps` `[N, C, H, W]` over each of the boxes `[N, K, 4]` (RoIAlign, arXiv:1703.06870).

    Bilinear samples, about one per cell, not shifted by half a cell; boxes are at least one cell wide and high. The
    weights factor over the two axes, so pooling is one matrix product.

    Args:
        boxes: (x1, y1, x2, y2) in pixels of the image, inside it.
        stride: pixels per cell of the map.
    """
    across = _coverage(boxes[..., 0] / stride, boxes[..., 2] / stride, maps.shape[3])
    down = _coverage(boxes[..., 1] / stride, boxes[..., 3] / stride, maps.shape[2])
    weights = (down[..., :, None] * across[..., None, :]).flatten(2)
    return weights.to(maps.dtype) @ maps.flatten(2).transpose(1, 2)


def _coverage(start: Tensor, end: Tensor, cells: int) -> Tensor:
    """Weights `[N, K, cells]` of the mean over samples between `start` and `end` `[N, K]`, in cells."""
    extent = (end - start).clamp(min=1)
    samples = extent.ceil()
    number = torch.arange(cells + 1, device=start.device)
    at = start[..., None] + (number + 0.5) * (extent / samples)[..., None]
    counts = (number < samples[..., None]) & (at >= -1) & (at <= cells)
    distance = at.clamp(0, cells - 1)[..., None] - torch.arange(cells, device=start.device)
    hat = (1 - distance.abs()).clamp(min=0) * counts[..., None]
    return hat.sum(-2) / samples[..., None]
