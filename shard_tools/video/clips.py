"""A video as a clip: its frames as JPEGs, at a constant rate and a size for training.

Frame k is the picture shown at k / fps seconds, so a video of another or a varying rate is resampled as by `ffmpeg -r`,
and the last frame is the one shown before the end.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from math import ceil
from pathlib import Path

from shard_tools.errors import SourceError

from .frames import EPSILON, Shown, decode
from .opening import load_library

QUALITY = 95  # of a frame's JPEG; the recipes of the data sets use ffmpeg's best, -q:v 1


def clip_frames(path: Path | str, fps: float, short_side: int) -> Iterator[bytes]:
    """JPEGs of a video's frames, `fps` a second, upright, the short side `short_side` pixels (0: unchanged).

    Raises:
        SourceError: the file cannot be read to its end, or holds no picture.
    """
    reformatter = load_library("av.video.reformatter").VideoReformatter()
    size: tuple[int, int] | None = None
    done = 0
    for shown in decode(path):
        until = ceil((shown.end - EPSILON) * fps)
        if until <= done:
            continue
        size = size or _size(shown, short_side)
        turned = shown.rotation
        width, height = size if turned % 180 == 0 else size[::-1]
        image = reformatter.reformat(shown.frame, width, height, "rgb24", interpolation="BICUBIC").to_image()
        buffer = io.BytesIO()
        (image.rotate(turned, expand=True) if turned else image).save(buffer, "JPEG", quality=QUALITY)
        for _ in range(done, until):
            yield buffer.getvalue()
        done = until
    if done == 0:
        raise SourceError(f"{path}: shorter than one frame at {fps:g} frames a second; remove it or fetch it again")


def _size(shown: Shown, short_side: int) -> tuple[int, int]:
    """Width and height of the upright picture in square pixels."""
    width, height = shown.frame.width * shown.pixel_aspect, shown.frame.height
    if shown.rotation % 180 == 90:
        width, height = height, width
    scale = short_side / min(width, height) if short_side else 1
    return max(1, round(width * scale)), max(1, round(height * scale))
