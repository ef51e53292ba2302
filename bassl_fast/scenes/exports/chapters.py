"""Scenes as chapters, in the formats of ffmpeg, video sites, web players and Matroska."""

from __future__ import annotations

import re
from html import escape
from xml.etree import ElementTree

from ..film import FilmScenes, Scene
from ..text import clock, clock_ms, single_line
from .xml_text import to_text


def ffmetadata(film: FilmScenes) -> str:
    """Chapters as ffmpeg reads them; other tags and all streams stay as they are.

    ffmpeg -i FILM -i chapters.ffmetadata -map 0 -dn -map_metadata 0 -map_chapters 1 -codec copy NEW
    """
    lines = [";FFMETADATA1"]
    for scene, start, end in _chapters(film):
        lines += ["[CHAPTER]", "TIMEBASE=1/1000", f"START={round(1000 * start)}", f"END={round(1000 * end)}"]
        lines.append(f"title={_escaped(single_line(scene.title))}")
    return "\n".join(lines) + "\n"


def chapters(film: FilmScenes) -> str:
    """Chapters as video sites read them from a description: a line per scene, time and name; the first at 0:00."""
    found = _chapters(film)
    return "".join(
        f"{clock(start if number else 0)} {single_line(scene.title)}\n"
        for number, (scene, start, _) in enumerate(found)
    )


def webvtt(film: FilmScenes) -> str:
    """Chapters as web players read them, from `<track kind="chapters">` (WebVTT, W3C)."""
    cues = (
        f"{scene.number}\n{clock_ms(start)} --> {clock_ms(end)}\n{escape(single_line(scene.title), quote=False)}\n"
        for scene, start, end in _chapters(film)
    )
    return "\n".join(["WEBVTT\n", *cues])


def matroska(film: FilmScenes) -> str:
    """Chapters as MKVToolNix reads them: `mkvmerge -o NEW.mkv --no-chapters FILM --chapters chapters.xml`."""
    root = ElementTree.Element("Chapters")
    edition = ElementTree.SubElement(root, "EditionEntry")
    for scene, start, end in _chapters(film):
        atom = ElementTree.SubElement(edition, "ChapterAtom")
        for name, seconds in (("ChapterTimeStart", start), ("ChapterTimeEnd", end)):
            ElementTree.SubElement(atom, name).text = f"{clock_ms(seconds)}000000"  # nanoseconds
        display = ElementTree.SubElement(atom, "ChapterDisplay")
        ElementTree.SubElement(display, "ChapterString").text = single_line(scene.title)
        ElementTree.SubElement(display, "ChapterLanguage").text = "und"
    return to_text(root)


def _chapters(film: FilmScenes) -> list[tuple[Scene, float, float]]:
    """Scenes with start and end in seconds from the start of the file."""
    begin = film.timing.begin
    return [(scene, begin + scene.start, begin + scene.end) for scene in film.scenes]


def _escaped(text: str) -> str:
    """Text as ffmpeg's metadata files take it: special characters after a backslash."""
    return re.sub(r"([=;#\\\n])", r"\\\1", text)
