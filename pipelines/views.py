"""The view table: one row per picture to produce. Everything random about a picture is in its row.

A group of pictures (the dense sequence of a window, or its sparse shots) shares crop, flip, colour and the decision to
blur; the strength of the blur is drawn per picture (BaSSL, "Views"). The augmentation is that of SimCLR-style training
with torchvision's definitions: area and aspect of the crop with ten tries, then a centred fallback; or, for videos, a
square of a picture whose short side is drawn. A square of a resized picture is a crop of the source, so both kinds of
crop are the same operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from shard_tools.errors import ConfigError

# Crop in pixels of the source picture; colour factors; blur sigma in pixels of the output (0: none); grey, after the
# jitter; solarize, after the blur; difference: the picture is the change to the next frame, as
# (grey level - that of the next + 255) / 2, before the jitter.
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
# What a step blends the pixel with, besides black; a factor of 1 leaves the pixel as it is.
OTHER_END = {"contrast": "mean", "saturation": "grey"}
_TRIES = 10

# Of the three channels, as parts of 255.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma

# A colour step. A channel becomes the sum of these weights times: itself, the next channel (of blue: red), the previous
# one, the least plus the greatest channel of the pixel, its grey level, the mean grey level of the picture, and 1. It
# is clipped to 0..255, or if hue turns (`next` or `previous` is not 0) to the least and greatest channel of the pixel.
STEP = np.dtype([(name, "<f4") for name in ("own", "next", "previous", "extremes", "grey", "mean", "constant")])


@dataclass(frozen=True)
class TestViews:
    """Test-time views: the short side is resized (bicubic), then a square is cropped, or three along the long side.

    Args:
        short_side: pixels after resizing.
        size: side of the crop in pixels.
        crops: 1, in the middle; or 3, at both ends of the long side and in the middle.
        mean, std: of the three channels, as fractions of 255.

    Raises:
        ConfigError: a value outside its range.
    """

    __test__ = False  # for pytest: not a test class

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
        """Positions `[crops]` of the crops along the long side, from 0 to 1."""
        return np.array([0.5]) if self.crops == 1 else np.array([0, 0.5, 1])


@dataclass(frozen=True)
class TrainViews:
    """The augmentation of training views.

    Args:
        size: side of the square view in pixels.
        area: range of the area of the crop, as a fraction of the picture.
        aspect: range of width / height of the crop, drawn log-uniformly.
        short_side: instead of both: range of the short side after resizing, in pixels; a square of `size` is cropped
            at a random position.
        inverse: draw 1 / short side uniformly, instead of the short side.
        flip: probability of a horizontal flip.
        jitter: probability of colour jitter.
        brightness: the factor is in [1 - v, 1 + v].
        contrast: the factor is in [1 - v, 1 + v].
        saturation: the factor is in [1 - v, 1 + v].
        hue: the shift is in [-v, v] turns.
        grayscale: probability of a grey view.
        blur: probability of a Gaussian blur.
        sigma: range of the sigma of the blur, in pixels of the view.
        solarize: probability of inverting the bright half: levels v from 128 on become 255 - v.
        mean: of the three channels, subtracted; fractions of 255.
        std: of the three channels, divided by; fractions of 255.

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
            raise ConfigError("views.inverse needs views.short_side; give both")
        _check_channels(self.mean, self.std)

    def at_test(self) -> TestViews:
        """The matching test views: a centred square of this size after resizing the short side to 256 / 224 of it."""
        return TestViews(round(self.size * 256 / 224), self.size, mean=self.mean, std=self.std)


def _check_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if not (len(mean) == len(std) == 3 and all(0 <= m <= 1 for m in mean) and all(0 < s <= 1 for s in std)):
        raise ConfigError(f"views.mean {mean}, views.std {std}: must be three fractions of 255 each, std not 0")


def draw_groups(
    rng: np.random.Generator, augmentation: TrainViews, height: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Draw what groups of pictures share: rows of `VIEW`, shaped as `height` and `width` `[...]` (source pixels).

    `frame` is 0; `blur` is 1 for groups to be blurred, see `spread`.
    """
    shape = height.shape
    rows = np.zeros(shape, VIEW)
    draw_crop = _draw_square if augmentation.short_side else _draw_crop
    draw_crop(rng, augmentation, height, width, rows)
    rows["flip"] = rng.random(shape) < augmentation.flip
    jitter = rng.random(shape) < augmentation.jitter
    for step in ("brightness", "contrast", "saturation"):
        spread = getattr(augmentation, step)
        rows[step] = np.where(jitter, rng.uniform(1 - spread, 1 + spread, shape), 1)
    rows["hue"] = np.where(jitter, rng.uniform(-augmentation.hue, augmentation.hue, shape), 0)
    rows["order"] = rng.integers(0, len(ORDERS), shape)
    rows["blur"] = rng.random(shape) < augmentation.blur
    # Drawn only if used, so that other recipes draw the same numbers as before these were added.
    if augmentation.grayscale:
        rows["grey"] = rng.random(shape) < augmentation.grayscale
    if augmentation.solarize:
        rows["solarize"] = rng.random(shape) < augmentation.solarize
    return rows


def _draw_crop(
    rng: np.random.Generator, augmentation: TrainViews, height: np.ndarray, width: np.ndarray, rows: np.ndarray
) -> None:
    tries = (*height.shape, _TRIES)
    full_h, full_w = height[..., None], width[..., None]
    area = full_h * full_w * rng.uniform(*augmentation.area, tries)
    low, high = np.log(augmentation.aspect)
    aspect = np.exp(rng.uniform(low, high, tries))
    h, w = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (h > 0) & (h <= full_h) & (w > 0) & (w <= full_w)
    first = fits.argmax(-1)[..., None]
    h, w = np.take_along_axis(h, first, -1)[..., 0], np.take_along_axis(w, first, -1)[..., 0]
    top = np.floor(rng.random(height.shape) * (height - h + 1))
    left = np.floor(rng.random(height.shape) * (width - w + 1))
    # No try fitted: a centred crop of the whole picture with the nearest allowed aspect.
    low, high = augmentation.aspect
    fall_w = np.minimum(width, np.rint(height * high))
    fall_h = np.minimum(height, np.rint(width / low))
    ok = fits.any(-1)
    rows["height"], rows["width"] = np.where(ok, h, fall_h), np.where(ok, w, fall_w)
    rows["top"] = np.where(ok, top, (height - fall_h) // 2)
    rows["left"] = np.where(ok, left, (width - fall_w) // 2)


def _draw_square(
    rng: np.random.Generator, augmentation: TrainViews, height: np.ndarray, width: np.ndarray, rows: np.ndarray
) -> None:
    low, high = augmentation.short_side  # type: ignore[misc]  # not None here
    if augmentation.inverse:
        short_side = 1 / rng.uniform(1 / high, 1 / low, height.shape)
    else:
        short_side = rng.uniform(low, high, height.shape)
    side = np.maximum(1, np.rint(np.minimum(height, width) * augmentation.size / short_side))
    rows["height"] = rows["width"] = side
    rows["top"] = np.floor(rng.random(height.shape) * (height - side + 1))
    rows["left"] = np.floor(rng.random(height.shape) * (width - side + 1))


def spread(rng: np.random.Generator, augmentation: TrainViews, groups: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Rows `[B, V]` for the pictures `frames` `[B, V]` of groups `[B]`, each picture with its own blur sigma."""
    rows = np.repeat(groups[:, None], frames.shape[1], axis=1)
    rows["frame"] = frames
    rows["blur"] *= rng.uniform(*augmentation.sigma, frames.shape)
    return rows


def draw_clips(
    rng: np.random.Generator, augmentation: TrainViews, height: np.ndarray, width: np.ndarray, frames: np.ndarray
) -> np.ndarray:
    """Rows `[B, T]` for the pictures `frames` `[B, T]` of B clips; a clip shares everything, including the blur sigma.

    Args:
        rng: used as by `draw_groups`, then by `spread` for one picture.
        height, width: `[B]` source pixels.
    """
    first = spread(rng, augmentation, draw_groups(rng, augmentation, height, width), frames[:, :1])
    rows = np.repeat(first, frames.shape[1], axis=1)
    rows["frame"] = frames
    return rows


def colour_steps(rows: np.ndarray) -> np.ndarray:
    """Colours of `rows` `[N]` as `[N, 6]` of `STEP`: difference, the four steps of jitter in their order, grey.

    Steps that a row does not have leave pixels as they are. For a row with `difference`, pixels come in as those of the
    frame minus those of the next one.
    """
    steps = np.zeros((len(rows), 6), STEP)
    steps["own"] = 1
    steps[rows["difference"], 0] = (0, 0, 0, 0, 0.5, 0, 127.5)
    steps[rows["grey"], 5] = (0, 0, 0, 0, 1, 0, 0)
    places = 1 + np.argsort(ORDERS, 1)[rows["order"]]
    for name, place in zip(STEPS, places.T, strict=True):
        factor, found = rows[name].astype(float), np.zeros(len(rows), STEP)
        if name == "hue":
            found["own"], found["next"], found["previous"], found["extremes"] = _turn(factor)
        else:
            found["own"] = factor
        if name in OTHER_END:
            found[OTHER_END[name]] = 1 - factor
        steps[np.arange(len(rows)), place] = found
    return steps


def following(rows: np.ndarray) -> np.ndarray:
    """Rows `[D]` of the next frames, which are subtracted from those of `rows` `[N]` with `difference`."""
    found = rows[rows["difference"]]
    found["frame"] += 1
    return found


def _turn(turns: np.ndarray) -> np.ndarray:
    """Weights `[4, N]` of itself, the next, the previous and the extreme channels that turn a channel's hue in HSV.

    A turn keeps a pixel's least and greatest channel, and moves the middle one in proportion to their difference, until
    it reaches one of them; then the next channel moves. Up to a sixth of a turn either way, that is
    own + sixths * (previous - next) + (1 - |sixths|) * (own - middle), clipped to the extremes. Thirds of a turn
    exchange channels.
    """
    thirds = np.rint(3 * turns)
    sixths = 6 * turns - 2 * thirds
    rest = 1 - abs(sixths)
    # The middle channel is the sum of the three less the extremes, so `own` cancels in own - middle.
    channels = np.stack([np.ones_like(turns), -sixths - rest, sixths - rest])
    moved = np.take_along_axis(channels, (np.arange(3)[:, None] + thirds.astype(int)) % 3, 0)
    still = np.array([[1.0], [0], [0], [0]])
    return np.where(turns == 0, still, np.vstack([moved, rest]))
