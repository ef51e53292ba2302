"""Contact sheets: the shots of a scene in one image, or in several pages.

A sheet shows its shots and their time codes, and not the number of the scene, which changes with every boundary before
it: so most sheets of a corrected film are those of before under another name. `title_of` says which.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from math import ceil, sqrt
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from shard_tools.video.timing import Timing

from .film import Scene, SceneShot

CELL = 240  # pixels, width of a shot
MOST = 100  # shots on a page; more would be too small to see
GAP, LINE = 8, 22  # pixels: between images, height of a line of text


class Sheet(NamedTuple):
    """A page of shots.

    Attributes:
        name: of its file.
        title: its first line; sheets of one film and title are equal.
    """

    name: str
    title: str
    shots: tuple[SceneShot, ...]


def sheets_of(scene: Scene, timing: Timing) -> Iterator[Sheet]:
    """`scene-001.jpg`, or `scene-001-1.jpg`, ... for more than `MOST` shots."""
    pages = [scene.shots[i : i + MOST] for i in range(0, len(scene.shots), MOST)]
    for page, shots in enumerate(pages, 1):
        numbers = f"shots {shots[0].number} - {shots[-1].number}" if len(shots) > 1 else f"shot {shots[0].number}"
        times = f"{timing.timecode(shots[0].start)} - {timing.timecode(shots[-1].end)}"
        name = f"scene-{scene.number:03d}{f'-{page}' * (len(pages) > 1)}.jpg"
        yield Sheet(name, f"{numbers}   {times}", shots)


def title_of(file: Path) -> str:
    """The title of a sheet that `draw` made, or ""."""
    try:
        with Image.open(file) as image:
            return bytes(image.info.get("comment", b"")).decode(errors="replace")
    except (OSError, Image.DecompressionBombError):
        return ""


def draw(sheet: Sheet, timing: Timing) -> bytes:
    """A JPEG of the middle key-frame of every shot in rows, with number and time code of its start."""
    shots = sheet.shots
    columns = len(shots) if len(shots) <= 4 else max(4, ceil(sqrt(len(shots))))
    high = _picture(shots[0]).height  # key-frames of a film are of one size
    step_x, step_y = CELL + GAP, high + LINE
    size = GAP + columns * step_x, LINE + GAP + ceil(len(shots) / columns) * step_y
    image = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    pen.text((GAP, 5), sheet.title, "black", font)
    for i, shot in enumerate(shots):
        x, y = GAP + i % columns * step_x, LINE + GAP + i // columns * step_y
        image.paste(_picture(shot), (x, y))
        pen.text((x, y + high + 2), f"{shot.number}   {timing.timecode(shot.start)}", "#555555", font)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85, comment=sheet.title)
    return out.getvalue()


def _picture(shot: SceneShot) -> Image.Image:
    with Image.open(io.BytesIO(shot.keyframes[len(shot.keyframes) // 2])) as image:
        return image.convert("RGB").resize((CELL, max(1, round(image.height * CELL / image.width))))
