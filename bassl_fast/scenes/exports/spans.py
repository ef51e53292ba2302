"""What all exports share: spans of frames, and texts that fit on a line."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from shard_tools.errors import masked
from shard_tools.storage.remote import is_remote

from ..film import FilmScenes, Scene, SceneShot
from ..text import single_line


class Span(NamedTuple):
    """A scene or a shot at the rate of the film.

    Attributes:
        number: as in the other files: scenes from 1, shots from 0.
        name, note: on one line.
        start, end: frames [start, end), from 0 for the first picture.
    """

    number: int
    name: str
    note: str
    start: int
    end: int


def scene_spans(film: FilmScenes) -> list[Span]:
    """Its scenes."""
    return _spans(film, ((scene, scene.number, scene.title, scene.note) for scene in film.scenes))


def shot_spans(film: FilmScenes) -> list[Span]:
    """Its shots, each with the name of its scene as note."""
    return _spans(
        film,
        ((shot, shot.number, f"Shot {shot.number}", scene.title) for scene in film.scenes for shot in scene.shots),
    )


def _spans(film: FilmScenes, parts: Iterable[tuple[Scene | SceneShot, int, str, str]]) -> list[Span]:
    """Without parts that are shorter than a frame, as in a film of 240 frames a second that is counted at 60."""
    frame = film.timing.frame
    found = (
        Span(number, single_line(name), single_line(note), frame(part.start), frame(part.end))
        for part, number, name, note in parts
    )
    return [span for span in found if span.end > span.start]


def length(film: FilmScenes) -> int:
    """Frames of the film."""
    return film.timing.frame(film.duration)


def is_ntsc(rate: Fraction) -> bool:
    """Whether it is 1000/1001 of the whole rate that it is named by."""
    return rate.denominator != 1


def file_name(film: FilmScenes) -> str:
    """Of the source, on one line."""
    return single_line(film.source.rstrip("/").rsplit("/", 1)[-1])


def address(film: FilmScenes) -> str:
    """Of the source: file:///..., or as given."""
    return masked(film.source) if is_remote(film.source) else Path(film.source).resolve().as_uri()
