"""Films of the page: the data that `report.js` draws, and their images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image

from bassl_fast.metrics.scenes import FilmScores
from shard_tools.annotations.labels import FPS
from shard_tools.errors import FeatureError, PictureError
from shard_tools.video.timing import Timing

HEIGHTS = ((2000, 180), (4000, 120), (math.inf, 90))  # images on the page, at most -> their height in pixels
QUALITY = 70  # of their JPEGs
BLOCK = 240  # images in a block of text, which the browser takes apart when one of them is shown


_MOVIENET = Timing(Fraction(FPS))


@dataclass(frozen=True)
class Editing:
    """What makes the scenes of a film editable on the page; see `bassl_fast.scenes.page`.

    Attributes:
        state: what `editor.js` begins with, as plain values.
        texts: what `saving.js` puts files together from, as plain values: parsed only when a file is saved.
    """

    state: Mapping[str, Any]
    texts: Mapping[str, Any]


@dataclass
class FilmPage:
    """What the page shows of one film.

    Attributes:
        film: its heading.
        thumbnails: JPEG bytes of the key-frames of every shot in order, the same number for each, any size; empty for a
            film that is in the tables and the curve but is not drawn.
        scores: probability, truth and times of its `[S]` shots.
        shot_numbers: `[S]` numbers to print; left out, 0..S-1.
        seconds: `[S, 2]` start and end of each shot; left out, those of `scores`.
        ends: shots that end a scene; left out, all those of `threshold`.
        shortest: minimum length of a scene in seconds when the threshold is moved.
        timing: for time codes.
        editing: makes the scenes editable; left out, they are only shown.
        shrunk: the blocks of an earlier page with the same thumbnails, see `earlier_blocks`; left out, they are made.
    """

    film: str
    thumbnails: Sequence[bytes]
    scores: FilmScores
    shot_numbers: Sequence[int] | np.ndarray | None = None
    seconds: np.ndarray | None = None
    ends: Sequence[int] | None = None
    shortest: float = 0.0
    timing: Timing = _MOVIENET
    editing: Editing | None = None
    shrunk: Sequence[str] | None = None


def thumbnail_height(films: Sequence[FilmPage]) -> int:
    """Pixels; less, the more images the page holds."""
    images = sum(len(film.thumbnails) for film in films)
    return next(height for most, height in HEIGHTS if images <= most)


def made_as(height: int) -> str:
    """How the images of a page are made, to know those of an earlier page."""
    return f"{height}-{QUALITY}"


def film_data(page: FilmPage, threshold: float, height: int) -> dict[str, object]:
    """What the script draws: arrays `[S]` (times in seconds, -1 unknown), and `per_shot`, the images of each shot.

    Raises:
        FeatureError: the numbers of thumbnails, shot numbers and scored shots do not agree.
        PictureError: the first thumbnail is not an image.
    """
    scores = page.scores
    count = len(scores.boundary)
    numbers = list(range(count)) if page.shot_numbers is None else [int(number) for number in page.shot_numbers]
    if len(numbers) != count or len(page.thumbnails) % count:
        raise FeatureError(
            f"{page.film}: {len(page.thumbnails)} thumbnails and {len(numbers)} numbers for {count} scored shots; "
            "take them from the same shards"
        )
    seconds = page.seconds
    if seconds is None:
        seconds = np.stack([scores.start, np.where(scores.end < 0, -1, scores.end + 1)], 1) / FPS
    ends = np.flatnonzero(scores.predicted(threshold)) if page.ends is None else page.ends
    _, width, tall = _shrunk(page, 0, height)
    start, end = seconds[:, 0].tolist(), seconds[:, 1].tolist()
    timed = min(start, default=-1) >= 0
    return {
        "name": page.film,
        "aspect": f"{width} / {tall}",
        "shortest": page.shortest,
        "number": numbers,
        "start": start,
        "end": end,
        "timecode": [[page.timing.timecode(at) for at in times] for times in (start, end)] if timed else [[], []],
        "probability": scores.probability.tolist(),
        "label": scores.boundary.tolist(),
        "ends": [int(end) for end in ends],
        "per_shot": len(page.thumbnails) // count,
        "per_block": BLOCK,
        "editing": page.editing and page.editing.state,
    }


def image_blocks(page: FilmPage, height: int) -> Iterator[str]:
    """The images of a film as text, `BLOCK` a block, a line each, made when asked for.

    Raises:
        PictureError: a thumbnail is not an image.
    """
    if page.shrunk is not None:
        yield from page.shrunk
        return
    with ThreadPoolExecutor() as pool:  # which runs in parallel, as Pillow frees Python's lock
        for start in range(0, len(page.thumbnails), BLOCK):
            block = range(start, min(start + BLOCK, len(page.thumbnails)))
            images = pool.map(lambda i: _shrunk(page, i, height)[0], block)
            yield "\n".join(base64.b64encode(image).decode("ascii") for image in images)


def shrink(jpeg: bytes, height: int) -> tuple[bytes, int, int]:
    """A smaller JPEG at most `height` pixels high, with its width and height. Never enlarges."""
    with Image.open(io.BytesIO(jpeg)) as image:
        # Lets the decoder skip pixels nobody will see.
        image.draft("RGB", (max(1, round(image.width * height / image.height)), height))
        image = image.convert("RGB")
    if image.height > height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue(), *image.size


def _shrunk(page: FilmPage, index: int, height: int) -> tuple[bytes, int, int]:
    """A thumbnail made smaller, with its width and height."""
    try:
        return shrink(page.thumbnails[index], height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        shot = index // (len(page.thumbnails) // len(page.scores.boundary))
        raise PictureError(
            f"{page.film}: key-frame of shot {shot} is not an image ({error}); run `bassl-fast verify` on the shards"
        ) from None
