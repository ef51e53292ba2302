"""Contact sheets: the shots of a scene in one image, or in several pages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

from shard_tools.video.timing import Timing

from .film import Scene, SceneShot

CELL = 240  # pixels, width of a shot
MOST = 100  # shots on a page; more would be too small to see
GAP, LINE = 8, 22  # pixels: between images, height of a line of text


def contact_sheets(scene: Scene, timing: Timing) -> Iterator[tuple[str, bytes]]:
    """File name and JPEG of each page: `scene-001.jpg`, or `scene-001-1.jpg`, ... for more than `MOST` shots.

    A sheet shows the scene's number and not its name, which may be in letters that the font of Pillow lacks.
    """
    title = f"scene {scene.number}   {timing.timecode(scene.start)} - {timing.timecode(scene.end)}"
    pages = [scene.shots[i : i + MOST] for i in range(0, len(scene.shots), MOST)]
    for page, shots in enumerate(pages, 1):
        several = len(pages) > 1
        yield (
            f"scene-{scene.number:03d}{f'-{page}' * several}.jpg",
            _page(shots, f"{title}{f'   page {page} of {len(pages)}' * several}", timing),
        )


def _page(shots: tuple[SceneShot, ...], title: str, timing: Timing) -> bytes:
    """The middle key-frame of every shot in rows, with number and time code of its start."""
    columns = len(shots) if len(shots) <= 4 else max(4, ceil(sqrt(len(shots))))
    high = _picture(shots[0]).height  # key-frames of a film are of one size
    step_x, step_y = CELL + GAP, high + LINE
    size = GAP + columns * step_x, LINE + GAP + ceil(len(shots) / columns) * step_y
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, 5), title, "black", font)
    for i, shot in enumerate(shots):
        x, y = GAP + i % columns * step_x, LINE + GAP + i // columns * step_y
        sheet.paste(_picture(shot), (x, y))
        draw.text((x, y + high + 2), f"{shot.number}   {timing.timecode(shot.start)}", "#555555", font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()


def _picture(shot: SceneShot) -> Image.Image:
    with Image.open(io.BytesIO(shot.keyframes[len(shot.keyframes) // 2])) as image:
        return image.convert("RGB").resize((CELL, max(1, round(image.height * CELL / image.width))))
