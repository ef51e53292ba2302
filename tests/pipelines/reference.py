"""The views by PIL and numpy, one row at a time: a reference for the DALI graphs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image, ImageEnhance, ImageOps

from pipelines.views import ORDERS, STEPS, TestViews


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two pictures within 0..255."""
    error = np.square(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64)).mean()
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def decode(jpeg: np.ndarray) -> Image.Image:
    return Image.open(io.BytesIO(np.asarray(jpeg).tobytes())).convert("RGB")


def train_view(jpeg: np.ndarray, row: np.void, size: int, following: np.ndarray | None = None) -> np.ndarray:
    """`[size, size, 3]` uint8 of one row of `VIEW`; hue turns in HSV and every colour step rounds, as PIL has it.

    `following` is the JPEG of the next frame, which a row with `difference` shows the change to.
    """
    left, top = int(row["left"]), int(row["top"])
    picture = decode(jpeg)
    if row["difference"]:
        grey, next_grey = (np.asarray(each.convert("L"), float) for each in (picture, decode(following)))
        picture = Image.fromarray(np.rint((grey - next_grey + 255) / 2).astype(np.uint8)).convert("RGB")
    picture = picture.crop((left, top, left + int(row["width"]), top + int(row["height"])))
    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    if row["flip"]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = coloured(picture, row)
    if row["grey"]:
        picture = picture.convert("L").convert("RGB")
    picture = Image.fromarray(blurred(np.asarray(picture), float(row["blur"])))
    return np.asarray(ImageOps.solarize(picture, 128) if row["solarize"] else picture)


def coloured(picture: Image.Image, row: np.void) -> Image.Image:
    """The four steps of jitter in the row's order."""
    for step in ORDERS[row["order"]]:
        picture = COLOUR[STEPS[step]](picture, float(row[STEPS[step]]))
    return picture


def turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([round(level + turns * 256) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB") if turns else picture


COLOUR: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda picture, factor: ImageEnhance.Brightness(picture).enhance(factor),
    "contrast": lambda picture, factor: ImageEnhance.Contrast(picture).enhance(factor),
    "saturation": lambda picture, factor: ImageEnhance.Color(picture).enhance(factor),
    "hue": turn_hue,
}


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A true Gaussian; beyond its edge the picture is mirrored."""
    if sigma == 0:
        return picture
    radius = int(np.ceil(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    smooth = picture.astype(np.float64)
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(smooth, pad, "reflect"), len(taps), axis)
        smooth = windows @ taps
    return np.rint(smooth).astype(np.uint8)


def eval_view(jpeg: np.ndarray, views: TestViews, place: float = 0.5) -> np.ndarray:
    """Short side to `short_side`, bicubic, then the square at `place` along the long side."""
    picture = decode(jpeg)
    width, height = (side * views.short_side // min(picture.size) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    along, across = (0.5 if side == views.short_side else place for side in (width, height))
    left, top = round((width - views.size) * along), round((height - views.size) * across)
    return np.asarray(picture.crop((left, top, left + views.size, top + views.size)))


def fused_view(crop: np.ndarray, row: np.void, size: int, following: np.ndarray | None = None) -> np.ndarray:
    """`[size, size, 3]` in grey levels of a crop and its row, by dense matrices in float64: the arithmetic alone.

    `following` is the crop of the next frame, subtracted before anything else is done.
    """
    if row["difference"]:
        crop = np.repeat((_grey(crop.astype(float) - following) + 255) / 2, 3, axis=2)
    down, across = _triangle(crop.shape[0], size), _triangle(crop.shape[1], size)
    view = np.einsum("yh,xw,hwc->yxc", down, across, crop, optimize=True)
    for step in ORDERS[row["order"]]:
        view = np.clip(ARITHMETIC[STEPS[step]](view, float(row[STEPS[step]])), 0, 255)
    if row["grey"]:
        view = np.repeat(_grey(view), 3, axis=2)
    if row["blur"]:
        radius = int(np.ceil(3 * row["blur"]))
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / float(row["blur"])) ** 2)
        for axis in (0, 1):
            pad = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(view, pad, "reflect"), len(taps), axis)
            view = windows @ (taps / taps.sum())
    if row["solarize"]:
        view = np.where(view < 127.5, view, 255 - view)
    return view[:, ::-1] if row["flip"] else view


def _grey(view: np.ndarray) -> np.ndarray:
    return view @ [[0.299], [0.587], [0.114]]


def _turned(view: np.ndarray, turns: float) -> np.ndarray:
    hsv = rgb_to_hsv((view / 255).clip(0, 1))  # rounding may leave 1 + 2e-16
    hsv[..., 0] = (hsv[..., 0] + turns) % 1
    return 255 * hsv_to_rgb(hsv)


ARITHMETIC: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "brightness": lambda view, factor: factor * view,
    "contrast": lambda view, factor: factor * view + (1 - factor) * _grey(view).mean(),
    "saturation": lambda view, factor: factor * view + (1 - factor) * _grey(view),
    "hue": _turned,
}


def _triangle(source: int, size: int) -> np.ndarray:
    """`[size, source]`: weights of the antialiased bilinear filter, cut at the edges."""
    step = source / size
    centre = (np.arange(size) + 0.5) * step - 0.5
    weight = np.maximum(1 - np.abs(np.arange(source) - centre[:, None]) / max(step, 1), 0)
    return weight / weight.sum(1, keepdims=True)
