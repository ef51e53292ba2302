"""Shots of a film with their key-frames, in order, from decoding it once.

    decode -> frame of 240 pixels -> cutter: does a shot begin here? -> shots
                                  -> a key-frame candidate -------------^

A detector decides some frames late, and only then is the end of a shot known, so candidates are kept, at most
`CANDIDATES` per shot: every second, fourth, ... frame of a longer shot. Memory does not grow with the film.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shard_tools.annotations.labels import FPS
from shard_tools.annotations.movienet import keyframe_positions
from shard_tools.progress import Progress

from .cutter import Cutter, Transition
from .frames import EPSILON, Shown, decode
from .hdr import HLG, PQ, to_sdr
from .opening import load_library

if TYPE_CHECKING:
    from PIL.Image import Image

HEIGHT = 240  # of a key-frame, in pixels
AHEAD = 32  # frames decoded at a time; two such batches are held, 10 MB
CANDIDATES = 256  # frames kept of a shot: all of 10 seconds, 40 MB


class Shot(NamedTuple):
    """A shot of a film.

    Attributes:
        start, end: seconds, [start, end).
        first, last: numbers of its frames as decoded, from 0, `last` included.
        keyframes: three images, upright, 240 pixels high, of one size throughout the film.
        transition: how it begins; None if unknown, as of the first shot.
        damaged: sum of `Shown.damaged`.
    """

    start: float
    end: float
    first: int
    last: int
    keyframes: tuple[Image, ...]
    transition: Transition | None = None
    damaged: int = 0


def cut_shots(film: Path | str, cutter: Cutter, progress: Progress | None = None) -> Iterator[Shot]:
    """The shots of a film, contiguous from 0; a film without cuts is one shot.

    Args:
        film: path or address of the file.
        progress: counts seconds of film.

    Raises:
        SourceError: the file cannot be read to its end.
    """
    waiting: deque[_Candidate] = deque()
    begins: dict[int, Transition | None] = {}
    shot: _OpenShot | None = None
    width = 0

    def settled(count: int) -> Iterator[Shot]:
        nonlocal shot
        for _ in range(count):
            candidate = waiting.popleft()
            if shot is None or candidate.number in begins:
                if shot is not None:
                    yield shot.close(candidate.shown.start, width)
                shot = _OpenShot(candidate, begins.pop(candidate.number, None))
            shot.add(candidate)

    for number, shown in enumerate(_ahead(small_frames(film, progress))):
        width = width or (shown.frame.height if _lies(shown) else shown.frame.width)
        begins.update(cutter.push(shown))
        waiting.append(_Candidate(number, shown))
        yield from settled(max(0, len(waiting) - 1 - cutter.lag))
    begins.update(cutter.finish())
    yield from settled(len(waiting))
    yield shot.close(shown.end, width)  # type: ignore[union-attr]  # there is one, as a film has frames


def small_frames(film: Path | str, progress: Progress | None = None) -> Iterator[Shown]:
    """Every frame of a film as yuv420p, 240 pixels high once upright, its pixels square; see `decode`.

    A film of high dynamic range gets the colours of a standard display.
    """
    # One for the whole film: setting one up takes longer than converting a frame. One thread: more would wait for each
    # other longer than they work, and decoding has others.
    reformatter = load_library("av.video.reformatter").VideoReformatter()
    VideoFrame = load_library("av").VideoFrame
    for shown in decode(film, progress):
        width, height = picture_width(shown), HEIGHT
        if _lies(shown):
            width, height = height, width
        # To half the size or less, means of areas look like bicubic interpolation and take half its time.
        way = "AREA" if shown.frame.height >= 2 * height else "BICUBIC"
        hdr = shown.frame.color_trc in (PQ, HLG)
        layout = "rgb48le" if hdr else "yuv420p"
        small = reformatter.reformat(shown.frame, width, height, layout, interpolation=way, threads=1)
        if hdr:
            standard = VideoFrame.from_ndarray(to_sdr(small.to_ndarray(), shown.frame.color_trc), "rgb24")
            small = standard.reformat(format="yuv420p")
        yield shown._replace(frame=small, pixel_aspect=1.0)


def _ahead(frames: Iterator[Shown]) -> Iterator[Shown]:
    """The same frames, decoded in a thread while those before are in use: detectors and JPEGs need not wait for it."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(list, islice(frames, AHEAD))
        while now := coming.result():
            coming = thread.submit(list, islice(frames, AHEAD))
            yield from now


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
    shown: Shown


class _OpenShot:
    """A shot whose end is not known yet: its candidates, thinned out as it grows."""

    def __init__(self, first: _Candidate, transition: Transition | None) -> None:
        self._first, self._last = first, first
        self._transition = transition
        self._kept: list[_Candidate] = []
        self._stride = 1
        self._damaged = 0

    def add(self, candidate: _Candidate) -> None:
        self._last = candidate
        self._damaged += candidate.shown.damaged
        if (candidate.number - self._first.number) % self._stride == 0:
            self._kept.append(candidate)
        if len(self._kept) > CANDIDATES:
            del self._kept[1::2]
            self._stride *= 2

    def close(self, end: float, width: int) -> Shot:
        start, starts = self._first.shown.start, [candidate.shown.start for candidate in self._kept]
        at = [max(0, bisect_right(starts, t + EPSILON) - 1) for t in keyframe_times(start, end)]
        pictures = tuple(fit_width(_upright(self._kept[i].shown), width) for i in at)
        return Shot(start, end, self._first.number, self._last.number, pictures, self._transition, self._damaged)


def _upright(shown: Shown) -> Image:
    image = shown.frame.to_image()
    return image.rotate(shown.rotation, expand=True) if shown.rotation else image


def picture_width(shown: Shown) -> int:
    """Width of a frame as a key-frame, in pixels."""
    aspect = shown.frame.width * shown.pixel_aspect / shown.frame.height
    return max(2, 2 * round(HEIGHT * (1 / aspect if _lies(shown) else aspect) / 2))


def _lies(shown: Shown) -> bool:
    """Whether a frame is stored on its side, as phones do."""
    return shown.rotation % 180 == 90


def fit_width(image: Image, width: int) -> Image:
    """The middle `width` pixels of an image, with bars if it is narrower."""
    left = (image.width - width) // 2
    return image if left == 0 else image.crop((left, 0, left + width, image.height))
