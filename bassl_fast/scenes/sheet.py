"""A contact sheet: the shots of a scene in one image."""

from __future__ import annotations

import io
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

from .film import Scene, SceneShot, clock

CELL = 240  # pixels, width of a shot
MOST = 100  # shots on a sheet; more would be too small to see, and take much memory
GAP, LINE = 8, 22  # pixels: between images, height of a line of text


def contact_sheet(scene: Scene) -> bytes:
    """JPEG of the middle key-frame of every shot in rows, with number and start; of a long scene, `MOST` shots."""
    total = len(scene.shots)
    shots = [scene.shots[i * total // MOST] for i in range(MOST)] if total > MOST else scene.shots
    columns = len(shots) if len(shots) <= 4 else max(4, ceil(sqrt(len(shots))))
    high = _picture(shots[0]).height  # key-frames of a film are of one size
    step_x, step_y = CELL + GAP, high + LINE
    size = GAP + columns * step_x, LINE + GAP + ceil(len(shots) / columns) * step_y
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    some = f"   {MOST} of {total} shots" * (total > MOST)
    draw.text((GAP, 5), f"scene {scene.number}   {clock(scene.start)} - {clock(scene.end)}{some}", "black", font)
    for i, shot in enumerate(shots):
        x, y = GAP + i % columns * step_x, LINE + GAP + i // columns * step_y
        sheet.paste(_picture(shot), (x, y))
        draw.text((x, y + high + 2), f"{shot.number}   {clock(shot.start)}", "#555555", font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()


def _picture(shot: SceneShot) -> Image.Image:
    with Image.open(io.BytesIO(shot.keyframes[len(shot.keyframes) // 2])) as image:
        return image.convert("RGB").resize((CELL, max(1, round(image.height * CELL / image.width))))
