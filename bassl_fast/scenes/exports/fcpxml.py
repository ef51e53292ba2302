"""FCPXML 1.10, of Final Cut Pro."""

from __future__ import annotations

from fractions import Fraction
from xml.etree import ElementTree

from ..film import FilmScenes
from ..text import single_line
from .spans import address, length, scene_spans
from .xml_text import to_text

_FORMAT, _ASSET = "r1", "r2"


def fcpxml(film: FilmScenes) -> str:
    """A project of a clip per scene, each with a chapter marker.

    Times are whole frames as fractions of a second. Those of the sequence start at the time code of the first picture,
    those of the file at its own (Apple, FCPXML Reference).
    """
    timing, media = film.timing, film.media

    def time(frames: int) -> str:
        seconds = frames / timing.rate
        return f"{seconds}s" if isinstance(seconds, Fraction) else f"{Fraction(seconds)}s"

    def add(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
        return ElementTree.SubElement(parent, tag, attributes)

    name, first, frames = single_line(film.name), timing.first, length(film)
    shown = timing.file_first + timing.lead  # the first picture in the file
    size = {"width": str(media.width), "height": str(media.height)} if media.width else {}
    sound = {}
    if media.channels:
        sound = {"hasAudio": "1", "audioSources": str(len(media.channels)), "audioChannels": str(media.channels[0])}
        sound |= {"audioRate": str(media.sample_rate)} if media.sample_rate else {}
    count = {"tcFormat": "DF" if timing.drop else "NDF"}
    root = ElementTree.Element("fcpxml", version="1.10")
    resources = add(root, "resources")
    add(resources, "format", id=_FORMAT, frameDuration=time(1), **size)
    file = {"start": time(timing.file_first), "duration": time(timing.lead + frames)}
    whole = {**file, "hasVideo": "1", "format": _FORMAT}
    asset = add(resources, "asset", id=_ASSET, name=name, **whole, **sound)
    add(asset, "media-rep", kind="original-media", src=address(film))
    project = add(add(add(root, "library"), "event", name=name), "project", name=name)
    sequence = add(project, "sequence", format=_FORMAT, duration=time(frames), tcStart=time(first), **count)
    spine = add(sequence, "spine")
    for span in scene_spans(film):
        start = time(shown + span.start)
        place = {"offset": time(first + span.start), "start": start, "duration": time(span.end - span.start)}
        clip = add(spine, "asset-clip", ref=_ASSET, name=span.name, format=_FORMAT, **place, **count)
        if span.note:
            add(clip, "note").text = span.note
        add(clip, "chapter-marker", start=start, duration=time(1), value=span.name, posterOffset="0s")
    return to_text(root, "<!DOCTYPE fcpxml>\n")
