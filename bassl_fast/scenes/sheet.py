"""A contact sheet: the shots of a scene in one image."""

from __future__ import annotations

import io
from math import ceil, sqrt

from PIL import Image, ImageDraw, ImageFont

from .film import Scene, clock

CELL = 240  # pixels, width of a shot
GAP, LINE = 8, 22  # pixels: between images, height of a line of text


def contact_sheet(scene: Scene) -> bytes:
    """JPEG of the middle key-frame of every shot in rows, with number and start."""
    count = len(scene.shots)
    columns = count if count <= 4 else max(4, ceil(sqrt(count)))
    pictures = [_picture(shot.keyframes[len(shot.keyframes) // 2]) for shot in scene.shots]
    step_x, step_y = CELL + GAP, pictures[0].height + LINE
    width, height = GAP + columns * step_x, LINE + GAP + ceil(count / columns) * step_y
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    title = f"scene {scene.number}   {clock(scene.start)} - {clock(scene.end)}"
    draw.text((GAP, 5), title, "black", font)
    for i, (shot, picture) in enumerate(zip(scene.shots, pictures, strict=True)):
        x, y = GAP + i % columns * step_x, LINE + GAP + i // columns * step_y
        sheet.paste(picture, (x, y))
        draw.text((x, y + picture.height + 2), f"{shot.number}   {clock(shot.start)}", "#555555", font)
    out = io.BytesIO()
    sheet.save(out, "JPEG", quality=85)
    return out.getvalue()


def _picture(jpeg: bytes) -> Image.Image:
    with Image.open(io.BytesIO(jpeg)) as image:
        return image.convert("RGB").resize((CELL, max(1, round(image.height * CELL / image.width))))
