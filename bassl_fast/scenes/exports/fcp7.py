"""Final Cut Pro 7 XML (xmeml 5), which Premiere Pro and DaVinci Resolve import too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from ..film import FilmScenes
from ..text import single_line
from .spans import Span, address, file_name, is_ntsc, length, scene_spans
from .xml_text import to_text

_Element = ElementTree.Element
_FILE, _SEQUENCE = "file-1", "sequence-1"


def fcp7(film: FilmScenes) -> str:
    """A sequence of a clip per scene, on a video track and a linked audio track for every channel of the film.

    A sequence and a file each have their time code. `start` and `end` are frames of the sequence, from the first
    picture, `in` and `out` of the file, from its begin (Apple, Final Cut Pro XML Interchange Format).
    """
    spans, channels = scene_spans(film), range(1, sum(film.media.channels) + 1)
    video = _part("video", _part("format", _picture(film)), _track(film, spans, "video", 1))
    audio = [
        _part("audio", _text("numOutputChannels", len(channels)), *(_track(film, spans, "audio", i) for i in channels))
    ]
    sequence = _part(
        "sequence",
        *(_text("name", single_line(film.name)), _text("duration", length(film)), _rate(film)),
        _timecode(film, film.timing.first),
        _part("media", video, *(audio if channels else [])),
        *(_marker(span) for span in spans),
        id=_SEQUENCE,
    )
    return to_text(_part("xmeml", sequence, version="5"), "<!DOCTYPE xmeml>\n")


def _track(film: FilmScenes, spans: list[Span], kind: str, index: int) -> _Element:
    clips = (_clip(film, span, i, kind, index) for i, span in enumerate(spans, 1))
    ends = [_text("outputchannelindex", index)] if kind == "audio" else []
    return _part("track", *clips, *ends)


def _clip(film: FilmScenes, span: Span, number: int, kind: str, track: int) -> _Element:
    source, lead = [], film.timing.lead
    if kind == "audio":
        source = [_part("sourcetrack", _text("mediatype", kind), _text("trackindex", track))]
    return _part(
        "clipitem",
        *(_text("name", span.name), _text("enabled", "TRUE"), _text("duration", lead + length(film)), _rate(film)),
        *(_text("start", span.start), _text("end", span.end)),
        *(_text("in", lead + span.start), _text("out", lead + span.end)),
        _file(film) if (kind, number) == ("video", 1) else _part("file", id=_FILE),
        *source,
        *(_links(film, number) if film.media.channels else []),
        *([_part("comments", _text("mastercomment1", span.note))] if span.note else []),
        id=_clip_id(kind, track, number),
    )


def _file(film: FilmScenes) -> _Element:
    """The film: described once, then referred to by its id."""
    channels = sum(film.media.channels)
    rate = [_text("samplerate", film.media.sample_rate)] if film.media.sample_rate else []
    sound = _part("audio", _part("samplecharacteristics", *rate), _text("channelcount", channels))
    return _part(
        "file",
        *(_text("name", file_name(film)), _text("pathurl", address(film)), _rate(film)),
        *(_text("duration", film.timing.lead + length(film)), _timecode(film, film.timing.file_first)),
        _part("media", _part("video", _picture(film)), *([sound] if channels else [])),
        id=_FILE,
    )


def _links(film: FilmScenes, number: int) -> Iterator[_Element]:
    """Picture and sound of a scene stay together when it is moved."""
    for kind, tracks in (("video", 1), ("audio", sum(film.media.channels))):
        for track in range(1, tracks + 1):
            yield _part(
                "link",
                *(_text("linkclipref", _clip_id(kind, track, number)), _text("mediatype", kind)),
                *(_text("trackindex", track), _text("clipindex", number)),
            )


def _clip_id(kind: str, track: int, number: int) -> str:
    return f"{kind}-{track}-{number}"


def _picture(film: FilmScenes) -> _Element:
    size = [_text("width", film.media.width), _text("height", film.media.height)] if film.media.width else []
    return _part("samplecharacteristics", _rate(film), *size)


def _rate(film: FilmScenes) -> _Element:
    ntsc = "TRUE" if is_ntsc(film.rate) else "FALSE"
    return _part("rate", _text("timebase", film.timing.base), _text("ntsc", ntsc))


def _timecode(film: FilmScenes, first: int) -> _Element:
    """Of the frame that something begins with."""
    shown = "DF" if film.timing.drop else "NDF"
    return _part(
        "timecode",
        *(_rate(film), _text("string", film.timing.at(first - film.timing.first))),
        *(_text("frame", first), _text("displayformat", shown)),
    )


def _marker(span: Span) -> _Element:
    texts = [_text("name", span.name), _text("comment", span.note)]
    return _part("marker", *texts, _text("in", span.start), _text("out", -1))


def _part(tag: str, *children: _Element, **attributes: str) -> _Element:
    element = _Element(tag, attributes)
    element.extend(children)
    return element


def _text(tag: str, value: Any) -> _Element:
    element = _Element(tag)
    element.text = str(value)
    return element
