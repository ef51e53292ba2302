"""Shots of a film with their key-frames, in order, from decoding it once.

    decode -> cutter: does a shot begin here? ------------> shots
           -> frame of 240 pixels, a key-frame candidate ---^

A detector decides some frames late, and only then is the end of a shot known, so candidates are kept, at most
`CANDIDATES` per shot: every second, fourth, ... frame of a longer shot. Memory does not grow with the film.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shard_tools.annotations.labels import FPS
from shard_tools.annotations.movienet import keyframe_positions
from shard_tools.progress import Progress

from .detectors import Cutter
from .frames import EPSILON, Shown, decode, load_library

if TYPE_CHECKING:
    from av import VideoFrame
    from PIL.Image import Image

HEIGHT = 240  # of a key-frame, in pixels
CANDIDATES = 256  # frames kept of a shot: all of 10 seconds, 40 MB


class Shot(NamedTuple):
    """A shot of a film.

    Attributes:
        start, end: seconds, [start, end).
        first, last: numbers of its frames as decoded, from 0, `last` included.
        keyframes: three images, upright, 240 pixels high, of one size throughout the film.
    """

    start: float
    end: float
    first: int
    last: int
    keyframes: tuple[Image, ...]


def cut_shots(film: Path | str, cutter: Cutter, progress: Progress | None = None) -> Iterator[Shot]:
    """The shots of a film, contiguous from 0; a film without cuts is one shot.

    Args:
        film: path or address of the file.
        progress: counts seconds of film.

    Raises:
        SourceError: the file cannot be read to its end.
    """
    draw = _Pictures()
    waiting: deque[_Candidate] = deque()
    cuts: set[int] = set()
    shot: _OpenShot | None = None

    def settled(count: int) -> Iterator[Shot]:
        nonlocal shot
        for _ in range(count):
            candidate = waiting.popleft()
            if shot is None or candidate.number in cuts:
                if shot is not None:
                    yield shot.close(candidate.start, draw)
                shot = _OpenShot(candidate)
            shot.add(candidate)

    for number, shown in enumerate(decode(film, progress)):
        cuts.update(cutter.push(shown))
        waiting.append(_Candidate(number, shown.start, draw.small(shown), shown.frame.rotation))
        yield from settled(max(0, len(waiting) - 1 - cutter.lag))
    cuts.update(cutter.finish())
    yield from settled(len(waiting))
    yield shot.close(shown.end, draw)  # type: ignore[union-attr]  # there is one, as a film has frames


def ticks(start: float, end: float) -> tuple[int, int]:
    """First and last frame, at 24 a second, of a shot given in seconds: a frame belongs to the shot shown at its time.

    A shot too short to hold a frame (the end of a 120-fps clip) has last < first; its neighbours leave no gap.
    """
    return ceil((start - EPSILON) * FPS), ceil((end - EPSILON) * FPS) - 1


def keyframe_times(start: float, end: float) -> list[float]:
    """Seconds of the key-frames of a shot, at frames of 24 a second; see `movienet.keyframe_positions`."""
    first, last = ticks(start, end)
    return [number / FPS for number in keyframe_positions(first, max(first, last))]


class _Candidate(NamedTuple):
    number: int
    start: float
    picture: VideoFrame
    rotation: int


class _OpenShot:
    """A shot whose end is not known yet: its candidates, thinned out as it grows."""

    def __init__(self, first: _Candidate) -> None:
        self._first, self._last = first, first
        self._kept: list[_Candidate] = []
        self._stride = 1

    def add(self, candidate: _Candidate) -> None:
        self._last = candidate
        if (candidate.number - self._first.number) % self._stride == 0:
            self._kept.append(candidate)
        if len(self._kept) > CANDIDATES:
            del self._kept[1::2]
            self._stride *= 2

    def close(self, end: float, draw: _Pictures) -> Shot:
        starts = [candidate.start for candidate in self._kept]
        shown = [max(0, bisect_right(starts, t + EPSILON) - 1) for t in keyframe_times(self._first.start, end)]
        pictures = tuple(draw.final(self._kept[at]) for at in shown)
        return Shot(self._first.start, end, self._first.number, self._last.number, pictures)


class _Pictures:
    """Makes frames upright, 240 pixels high, of even width and the right aspect, all of one size."""

    def __init__(self) -> None:
        # One for the whole film: setting one up takes longer than converting a frame.
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        self._width: int | None = None

    def small(self, shown: Shown) -> VideoFrame:
        frame, width, height = shown.frame, picture_width(shown), HEIGHT
        if _lies(frame):
            width, height = height, width
        return self._reformatter.reformat(frame, width, height, "yuv420p", interpolation="BICUBIC")

    def final(self, candidate: _Candidate) -> Image:
        image = candidate.picture.to_image()
        image = image.rotate(candidate.rotation, expand=True) if candidate.rotation else image
        self._width = self._width or image.width
        return fit_width(image, self._width)


def picture_width(shown: Shown) -> int:
    """Width of a frame as a key-frame, in pixels."""
    aspect = shown.frame.width * shown.pixel_aspect / shown.frame.height
    return max(2, 2 * round(HEIGHT * (1 / aspect if _lies(shown.frame) else aspect) / 2))


def _lies(frame: VideoFrame) -> bool:
    """Whether a frame is stored on its side, as phones do."""
    return frame.rotation % 180 == 90


def fit_width(image: Image, width: int) -> Image:
    """The middle `width` pixels of an image, with bars if it is narrower."""
    left = (image.width - width) // 2
    return image if left == 0 else image.crop((left, 0, left + width, image.height))
