"""Films of the page: the data that `report.js` draws."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from bassl_fast.metrics.scenes import FilmScores
from shard_tools.annotations.labels import FPS
from shard_tools.errors import FeatureError, PictureError

HEIGHTS = ((2000, 180), (4000, 120), (math.inf, 90))  # images on the page, at most -> their height in pixels


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
        rate: frames a second, for timecodes.
    """

    film: str
    thumbnails: Sequence[bytes]
    scores: FilmScores
    shot_numbers: Sequence[int] | np.ndarray | None = None
    seconds: np.ndarray | None = None
    ends: Sequence[int] | None = None
    shortest: float = 0.0
    rate: Fraction = Fraction(FPS)


def thumbnail_height(films: Sequence[FilmPage]) -> int:
    """Pixels; less, the more images the page holds."""
    images = sum(len(film.thumbnails) for film in films)
    return next(height for most, height in HEIGHTS if images <= most)


def film_data(page: FilmPage, threshold: float, height: int) -> dict[str, object]:
    """What the script draws: arrays `[S]` (times in seconds, -1 unknown), and `pictures`, `per_shot` of each shot.

    Raises:
        FeatureError: the numbers of thumbnails, shot numbers and scored shots do not agree.
        PictureError: a thumbnail is not an image.
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
    per_shot = len(page.thumbnails) // count
    pictures = [_data_address(page, i // per_shot, jpeg, height) for i, jpeg in enumerate(page.thumbnails)]
    _, width, tall = pictures[0]
    return {
        "name": page.film,
        "aspect": f"{width} / {tall}",
        "rate": float(page.rate),
        "shortest": page.shortest,
        "number": numbers,
        "start": seconds[:, 0].tolist(),
        "end": seconds[:, 1].tolist(),
        "probability": scores.probability.tolist(),
        "label": scores.boundary.tolist(),
        "ends": [int(end) for end in ends],
        "per_shot": per_shot,
        "pictures": [data for data, _, _ in pictures],
    }


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
    image.save(out, "JPEG", quality=70, optimize=True)
    return out.getvalue(), *image.size


def _data_address(page: FilmPage, shot: int, jpeg: bytes, height: int) -> tuple[str, int, int]:
    """A thumbnail as a `data:` address, with its width and height."""
    try:
        small, width, tall = shrink(jpeg, height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(
            f"{page.film}: key-frame of shot {shot} is not an image ({error}); run `bassl-fast verify` on the shards"
        ) from None
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode('ascii')}", width, tall
