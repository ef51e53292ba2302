"""The view table: one row per picture to produce. Everything random about a picture is in its row.

A group of pictures (the dense sequence of a window, or its sparse shots) shares crop, flip, colour and the decision to
blur; the strength of the blur is drawn per picture (spec: BaSSL, "Views"). The laws are those of SimCLR-style training
as torchvision words them: area and aspect of the crop with ten tries, then a centred fallback; or, for videos, a square
of a picture whose short side is drawn. A square of a resized picture is a crop of the source: one law more, and no
operation more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from shard_tools.errors import ConfigError

# Crop in pixels of the source picture, colour factors, blur sigma in pixels of the output (0: none); what is true of
# colours after jitter (grey) and after the blur (solarize); and whether the picture is the change to the next frame, as
# (grey level - that of the next + 255) / 2, before all colours.
VIEW = np.dtype(
    [
        ("frame", "<i8"),
        ("top", "<i4"),
        ("left", "<i4"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("flip", "?"),
        ("brightness", "<f4"),
        ("contrast", "<f4"),
        ("saturation", "<f4"),
        ("hue", "<f4"),
        ("order", "u1"),
        ("blur", "<f4"),
        ("grey", "?"),
        ("solarize", "?"),
        ("difference", "?"),
    ]
)
STEPS = ("brightness", "contrast", "saturation", "hue")
ORDERS = np.array(list(permutations(range(4))))
_TRIES = 10

# Of the three channels, as parts of 255.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# ITU-R BT.601 luma, and the chroma plane in which a hue turn is a rotation (YIQ).
GREY = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


@dataclass(frozen=True)
class TestViews:
    """The views of a picture at test time: short side resized (bicubic), then a square, or three along the long side.

    Args:
        short_side: pixels after resizing.
        size: side of the crop in pixels.
        crops: 1, in the middle; or 3, at both ends of the long side and in the middle.
        mean, std: of the three channels, subtracted and divided by, as parts of 255.

    Raises:
        ConfigError: a value outside its range.
    """

    __test__ = False  # not a test class, whatever pytest thinks of the name

    short_side: int = 256
    size: int = 224
    crops: int = 1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 8 <= self.size <= self.short_side:
            raise ConfigError(f"test views: size {self.size} must be within [8, short_side {self.short_side}]")
        if self.crops not in (1, 3):
            raise ConfigError(f"test views: crops {self.crops}: choose 1 or 3")
        _check_channels(self.mean, self.std)

    @property
    def places(self) -> np.ndarray:
        """Where each crop lies along the long side, 0 at its first end and 1 at its last; `[crops]`."""
        return np.array([0.5]) if self.crops == 1 else np.array([0, 0.5, 1])


@dataclass(frozen=True)
class TrainViews:
    """The laws that training views are drawn from.

    Args:
        size: side of the square view in pixels.
        area: least and greatest area of the crop, as a part of the picture.
        aspect: least and greatest width / height of the crop, drawn log-uniformly.
        short_side: instead of both: least and greatest pixels of the short side after resizing, of which a square of
            `size` is taken anywhere.
        inverse: draw 1 / short side uniformly, and not the short side.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness, contrast, saturation: factors lie in [1 - v, 1 + v].
        hue: turns lie in [-v, v].
        grayscale: probability of a grey view.
        blur: probability of a Gaussian blur.
        sigma: least and greatest sigma of the blur in pixels of the view.
        solarize: probability of turning the bright half over: level v becomes 255 - v from 128 on.
        mean, std: of the three channels, subtracted and divided by, as parts of 255.

    Raises:
        ConfigError: a value outside its range.
    """

    size: int = 224
    area: tuple[float, float] = (0.14, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[float, float] | None = None
    inverse: bool = False
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05
    grayscale: float = 0.0
    blur: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarize", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"views.{name} {getattr(self, name)}: must be within [0, 1]")
        if not 0 <= self.hue <= 0.5:
            raise ConfigError(f"views.hue {self.hue}: must be within [0, 0.5] turns")
        for name in ("area", "aspect", "sigma", *(["short_side"] if self.short_side else [])):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"views.{name} [{low}, {high}]: must be positive and in order")
        if self.area[1] > 1:
            raise ConfigError(f"views.area up to {self.area[1]}: a crop is at most the picture, 1.0")
        if self.size < 8:
            raise ConfigError(f"views.size {self.size}: must be at least 8 pixels")
        if self.short_side and self.short_side[0] < self.size:
            raise ConfigError(f"views.short_side from {self.short_side[0]}: must be at least the size, {self.size}")
        if self.inverse and not self.short_side:
            raise ConfigError("views.inverse: is a law of the short side; give views.short_side too")
        _check_channels(self.mean, self.std)

    def at_test(self) -> TestViews:
        """The test view that goes with these: a centred square of their size, of a short side 256 / 224 as long."""
        return TestViews(round(self.size * 256 / 224), self.size, mean=self.mean, std=self.std)


def _check_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not (len(mean) == len(std) == 3 and all(0 <= m <= 1 for m in mean) and all(0 < s <= 1 for s in std)):
        raise ConfigError(f"views.mean {mean}, views.std {std}: must be three parts of 255 each, std not 0")


def draw_groups(rng: np.random.Generator, laws: TrainViews, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Draw what a group of pictures shares: rows of `VIEW`, shape `[..., ]` as `height` and `width` (source pixels).

    `frame` is left at 0; `blur` is 1 where the group is to be blurred, see `spread`.
    """
    shape = height.shape
    rows = np.zeros(shape, VIEW)
    draw_crop = _draw_square if laws.short_side else _draw_crop
    draw_crop(rng, laws, height, width, rows)
    rows["flip"] = rng.random(shape) < laws.flip
    jitter = rng.random(shape) < laws.jitter
    for step in ("brightness", "contrast", "saturation"):
        spread = getattr(laws, step)
        rows[step] = np.where(jitter, rng.uniform(1 - spread, 1 + spread, shape), 1)
    rows["hue"] = np.where(jitter, rng.uniform(-laws.hue, laws.hue, shape), 0)
    rows["order"] = rng.integers(0, len(ORDERS), shape)
    rows["blur"] = rng.random(shape) < laws.blur
    # Recipes without these draw no numbers for them: their views are what they were before there were such laws.
    if laws.grayscale:
        rows["grey"] = rng.random(shape) < laws.grayscale
    if laws.solarize:
        rows["solarize"] = rng.random(shape) < laws.solarize
    return rows


def _draw_crop(
    rng: np.random.Generator, laws: TrainViews, height: np.ndarray, width: np.ndarray, rows: np.ndarray
) -> None:
    tries = (*height.shape, _TRIES)
    full_h, full_w = height[..., None], width[..., None]
    area = full_h * full_w * rng.uniform(*laws.area, tries)
    aspect = np.exp(rng.uniform(*np.log(laws.aspect), tries))
    h, w = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (h > 0) & (h <= full_h) & (w > 0) & (w <= full_w)
    first = fits.argmax(-1)[..., None]
    h, w = np.take_along_axis(h, first, -1)[..., 0], np.take_along_axis(w, first, -1)[..., 0]
    top = np.floor(rng.random(height.shape) * (height - h + 1))
    left = np.floor(rng.random(height.shape) * (width - w + 1))
    # No try fitted: the whole picture, cut in its middle to the nearest allowed aspect.
    low, high = laws.aspect
    fall_w = np.minimum(width, np.rint(height * high))
    fall_h = np.minimum(height, np.rint(width / low))
    ok = fits.any(-1)
    rows["height"], rows["width"] = np.where(ok, h, fall_h), np.where(ok, w, fall_w)
    rows["top"] = np.where(ok, top, (height - fall_h) // 2)
    rows["left"] = np.where(ok, left, (width - fall_w) // 2)


def _draw_square(
    rng: np.random.Generator, laws: TrainViews, height: np.ndarray, width: np.ndarray, rows: np.ndarray
) -> None:
    low, high = laws.short_side
    if laws.inverse:
        short_side = 1 / rng.uniform(1 / high, 1 / low, height.shape)
    else:
        short_side = rng.uniform(low, high, height.shape)
    side = np.maximum(1, np.rint(np.minimum(height, width) * laws.size / short_side))
    rows["height"] = rows["width"] = side
    rows["top"] = np.floor(rng.random(height.shape) * (height - side + 1))
    rows["left"] = np.floor(rng.random(height.shape) * (width - side + 1))


def spread(rng: np.random.Generator, laws: TrainViews, groups: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Rows `[B, V]` for the pictures `frames` `[B, V]` of one group `[B]` each, with a blur sigma of their own."""
    rows = np.repeat(groups[:, None], frames.shape[1], axis=1)
    rows["frame"] = frames
    rows["blur"] *= rng.uniform(*laws.sigma, frames.shape)
    return rows


def draw_clips(
    rng: np.random.Generator, laws: TrainViews, height: np.ndarray, width: np.ndarray, frames: np.ndarray
) -> np.ndarray:
    """Rows `[B, T]` for the pictures `frames` `[B, T]` of B clips, which share all, the sigma of the blur too.

    Args:
        rng: the numbers it is asked for are those of `draw_groups`, then of `spread` to one picture.
        height, width: `[B]` source pixels.
    """
    first = spread(rng, laws, draw_groups(rng, laws, height, width), frames[:, :1])
    rows = np.repeat(first, frames.shape[1], axis=1)
    rows["frame"] = frames
    return rows


def colour_matrices(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours of `rows` `[N]` as matrices A, C `[N, 3, 3]`: pixel -> A pixel + C (mean pixel of the picture).

    Every step of the jitter is linear in the pixel, and contrast is linear in the mean grey as well, so any order of
    the four, and grey after them, is one such pair. Hue turns the chroma plane of YIQ: HSV's hue to first order.
    """
    # Rows of one group stand side by side: nine of ten are as the row before them.
    new = np.ones(len(rows), bool)
    new[1:] = np.any([rows[name][1:] != rows[name][:-1] for name in (*STEPS, "order", "grey")], 0)
    pixel, mean = _compose(rows[new])
    group = np.cumsum(new) - 1
    return pixel.astype(np.float32)[group], mean.astype(np.float32)[group]


def colours(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`colour_matrices`, and a constant `[N, 3]`: pixel -> A pixel + C (mean pixel) + constant.

    Of a row with `difference`, pixels are those of the frame less those of the next one. Its grey, halving and shift
    are linear too, and so are part of the three.
    """
    pixel, mean = colour_matrices(rows)
    constant, at = np.zeros((len(rows), 3), np.float32), np.flatnonzero(rows["difference"])
    half_grey = np.tile(GREY / 2, (3, 1)).astype(np.float32)
    constant[at] = (pixel[at] + mean[at]).sum(-1) * 127.5
    pixel[at], mean[at] = pixel[at] @ half_grey, mean[at] @ half_grey
    return pixel, mean, constant


def following(rows: np.ndarray) -> np.ndarray:
    """The rows `[D]` of the next frames that are subtracted from those of `rows` `[N]` with `difference`."""
    found = rows[rows["difference"]]
    found["frame"] += 1
    return found


def _compose(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count = len(rows)
    eye = np.eye(3)
    pixel, mean = np.tile(eye, (count, 1, 1)), np.zeros((count, 3, 3))
    grey = np.tile(GREY, (3, 1))
    order = ORDERS[rows["order"]]
    for position in range(4):
        for step, name in enumerate(STEPS):
            at = np.flatnonzero(order[:, position] == step)
            f = rows[name][at].astype(np.float64)[:, None, None]
            if name == "brightness":
                pixel[at], mean[at] = f * pixel[at], f * mean[at]
            elif name == "contrast":
                mean[at] = f * mean[at] + (1 - f) * (grey @ (pixel[at] + mean[at]))
                pixel[at] = f * pixel[at]
            else:
                turn = f * eye + (1 - f) * grey if name == "saturation" else _hue_rotation(f[:, 0, 0])
                pixel[at], mean[at] = turn @ pixel[at], turn @ mean[at]
    at = np.flatnonzero(rows["grey"])
    pixel[at], mean[at] = grey @ pixel[at], grey @ mean[at]
    return pixel, mean


def _hue_rotation(turns: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    rotation = np.zeros((len(turns), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2] = cos, sin
    rotation[:, 2, 1], rotation[:, 2, 2] = -sin, cos
    return _FROM_YIQ @ rotation @ _TO_YIQ
