"""CMX3600 edit decision lists: an event for each scene or shot, with equal source and record times."""

from __future__ import annotations

import re
import unicodedata

from ..film import FilmScenes
from ..text import single_line
from .spans import Span, file_name, scene_spans, shot_spans

_REEL = 8  # characters of a reel name in CMX3600
_RESERVED = {"AX", "BL", "BLACK"}  # reels that are not one: any file, and no picture


def scenes_edl(film: FilmScenes) -> str:
    """An event a scene, with its name and note as comments."""
    return _edl(film, scene_spans(film))


def shots_edl(film: FilmScenes) -> str:
    """An event a shot, with its number and scene as comments."""
    return _edl(film, shot_spans(film))


def header(film: FilmScenes) -> list[str]:
    """Title, and how time codes are counted."""
    return [f"TITLE: {single_line(film.name)}", f"FCM: {'DROP' if film.timing.drop else 'NON-DROP'} FRAME", ""]


def reel(film: FilmScenes) -> str:
    """Name of the tape or card if the file has it, else from its name: eight capitals and digits; "AX" if none fits."""
    name = film.media.reel or file_name(film).rsplit(".", 1)[0]
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().upper()
    found = re.sub(r"[^A-Z0-9]", "", plain)[:_REEL]
    return f"{found}1" if found in _RESERVED else found or "AX"


def _edl(film: FilmScenes, spans: list[Span]) -> str:
    lines, tape, at = header(film), reel(film), film.timing.at
    for number, span in enumerate(spans, 1):
        start, end = at(span.start), at(span.end)
        lines.append(f"{number:03d}  {tape:8s} V     C        {start} {end} {start} {end}")
        lines.append(f"* FROM CLIP NAME: {file_name(film)}")
        lines += [f"* COMMENT: {text}" for text in (span.name, span.note) if text]
    return "\n".join(lines) + "\n"
