"""Line plots of the page: geometry in pixels, which the template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .tables import number

WIDTH, HEIGHT = 320, 220  # pixels
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 10, 22, HEIGHT - 36  # of the area with the line


@dataclass(frozen=True)
class Plot:
    """A line with labelled axes.

    Attributes:
        x_ticks, y_ticks: (position in pixels, text).
        points: of the line, in pixels.
        dot: draw a dot that `report.js` moves to the threshold.
    """

    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: list[tuple[float, float]]
    dot: bool = False
    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, RIGHT, TOP, BOTTOM


def line_plot(
    points: Sequence[tuple[float, float]],
    x_label: str,
    y_label: str,
    span: tuple[float, float] | None = None,
    dot: bool = False,
) -> Plot:
    """A line through `points` (x, y). `span`: range of both axes; left out, that of the points."""
    (x0, x1), (y0, y1) = (span, span) if span else (_range(axis) for axis in zip(*points, strict=True))

    def x_of(x: float) -> float:
        return LEFT + (x - x0) / (x1 - x0) * (RIGHT - LEFT)

    def y_of(y: float) -> float:
        return BOTTOM - (y - y0) / (y1 - y0) * (BOTTOM - TOP)

    # Half a pixel is the finest one can see: points that round to the one before are left out.
    seen = [(round(2 * x_of(x)) / 2, round(2 * y_of(y)) / 2) for x, y in points]
    seen = [xy for i, xy in enumerate(seen) if i == 0 or xy != seen[i - 1]]
    x_ticks = [(x_of(tick), number(tick)) for tick in _ticks(x0, x1)]
    y_ticks = [(y_of(tick), number(tick)) for tick in _ticks(y0, y1)]
    return Plot(x_label, y_label, x_ticks, y_ticks, seen, dot)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values, widened where they are all equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _ticks(low: float, high: float, count: int = 4) -> list[float]:
    """At most `count` + 1 round numbers (1, 2 or 5 times a power of ten apart) between `low` and `high`."""
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if step * m * count >= (high - low) * 0.999)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
