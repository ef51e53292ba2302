"""Markers for a timeline that holds the film and starts at its time code."""

from __future__ import annotations

from ..film import FilmScenes
from .edl import header
from .spans import scene_spans


def resolve_markers(film: FilmScenes) -> str:
    """DaVinci Resolve's marker EDL: an event of a frame, then note, colour, name and length in frames."""
    lines, at = header(film), film.timing.at
    for number, span in enumerate(scene_spans(film), 1):
        start, after = at(span.start), at(span.start + 1)
        name, note = (text.replace("|", "/") for text in (span.name, span.note))
        lines.append(f"{number:03d}  001      V     C        {start} {after} {start} {after}  ")
        lines += [f"{note} |C:ResolveColorBlue |M:{name} |D:{span.end - span.start}", ""]
    return "\n".join(lines)


def avid_markers(film: FilmScenes) -> str:
    """Markers of Avid Media Composer: a line each, fields between tabs: who, time code, track, colour, text, 1."""
    return "".join(
        f"bassl-fast\t{film.timing.at(span.start)}\tV1\tblue\t{': '.join(filter(None, (span.name, span.note)))}\t1\n"
        for span in scene_spans(film)
    )
