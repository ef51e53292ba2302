"""Packets of a film and when they are shown.

A container may give a packet a time for decoding and one for showing; B-frames are decoded in another order than
shown. Only the latter counts here: scenes are made of pictures as shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shard_tools.video.frames import BACK, GAP, decode, first_frame
from shard_tools.video.opening import load_library, open_video, video_stream

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer

APART = 5  # seconds by which picture and sound of one time may be apart in a file
_SAME = -(1 << 62)  # time of a packet that has none: it follows the one before


class VideoIndex(NamedTuple):
    """The video of a file, packet by packet in the order of the file.

    Attributes:
        pts: `[N]` int64, when each is shown, in ticks of `base` on a clock that never starts again.
        key: `[N]` bool, decodable on its own.
        base: seconds of a tick.
        first: when the first picture that can be decoded is shown, in ticks.
        start: when the first packet of picture or sound is shown, in seconds.
        shifts: seconds to add to the clock of the file; a second one and more where recordings were joined.
    """

    pts: np.ndarray
    key: np.ndarray
    base: Fraction
    first: int
    start: Fraction
    shifts: tuple[Fraction, ...]

    def tick(self, seconds: float) -> int:
        """Of a time in the film, which counts from the first picture."""
        return self.first + round(seconds / self.base)

    def clock(self, seconds: float) -> Fraction:
        """Of a time in the film: the same on the clock of the file."""
        return self.tick(seconds) * self.base

    def seconds(self, tick: int) -> float:
        """In the film, from the first picture."""
        return float((tick - self.first) * self.base)


class Timed(NamedTuple):
    """A packet, which is changed when it is written, and what it was.

    Attributes:
        stream: index of its stream.
        base: seconds of a tick of it.
        time: when it is shown, in seconds of the clock of `VideoIndex`.
        length: how long, in seconds; 0 if unknown.
        number: of a packet of the video, from 0; None of another.
    """

    packet: Packet
    stream: int
    base: Fraction
    time: Fraction
    length: Fraction
    number: int | None


def read_index(film: str) -> VideoIndex:
    """Read all packets of a file.

    Raises:
        SourceError: it cannot be read.
    """
    with open_video(film) as container:
        frame = first_frame(film, container)
    pts: list[int] = []
    key: list[bool] = []
    starts: list[Fraction] = []
    seen: set[int] = set()
    with open_video(film) as container:
        video = video_stream(container)
        for packet in _packets(container):
            time = packet.dts if packet.pts is None else packet.pts
            if packet.stream.type == "audio" and packet.stream_index not in seen and time is not None:
                starts.append(time * packet.time_base)
                seen.add(packet.stream_index)
            if packet.stream_index == video.index:
                pts.append(_SAME if time is None else time)
                key.append(packet.is_keyframe)
        base = Fraction(video.time_base or 0)
        gap = GAP if container.format.name == "mpegts" else inf
        guessed = container.format.name == "avi" and bool(video.codec_context.has_b_frames)
    shown, shifts = _continuous(_in_order_of_decoder(film, pts) if guessed else pts, base, gap)
    first = min(shown) if frame.pts is None else round(frame.pts * Fraction(frame.time_base or base) / base)
    start = min(*starts, min(shown) * base) if starts else min(shown) * base
    return VideoIndex(np.array(shown, np.int64), np.array(key, bool), base, first, start, tuple(shifts))


def _packets(container: InputContainer) -> Iterator[Packet]:
    """Without the empty ones at the end, which only flush decoders."""
    return (packet for packet in container.demux() if packet.size and packet.stream is not None)


def _continuous(pts: list[int], base: Fraction, gap: float) -> tuple[list[int], list[Fraction]]:
    """Times on one clock, as `shard_tools.video.frames.decode` gives them, and the shifts to it in seconds."""
    back, gap_ticks = BACK / base, gap / float(base)
    shift, highest, step = 0, None, 1
    shifts, found = [Fraction(0)], []
    for time in pts:
        if highest is None:
            highest = time
        elif time == _SAME:
            time = highest + step - shift
        elif not highest - back <= time + shift <= highest + step + gap_ticks:
            shift = highest + step - time
            shifts.append(shift * base)
        step = abs(time + shift - highest) or step
        highest = max(highest, time + shift)
        found.append(time + shift)
    return found, shifts


def _in_order_of_decoder(film: str, pts: list[int]) -> list[int]:
    """Times of an AVI file, which has none: what ffmpeg gives its packets says nothing about when they are shown.

    The decoder knows the order. It hands every picture out with the time that its packet came with.
    """
    shown = (one.frame.pts for one in decode(film))
    order = {time: i for i, time in enumerate(time for time in shown if time is not None)}
    ascending = sorted(pts)
    last = len(ascending) - 1
    return [ascending[min(order.get(time, i), last)] for i, time in enumerate(pts)]


def timed_packets(container: InputContainer, index: VideoIndex) -> Iterator[Timed]:
    """All packets of a file in its order; those without a time are left out, but for the video."""
    video, number, now = video_stream(container), 0, index.first * index.base
    for packet in _packets(container):
        if packet.stream_index == video.index:
            now = int(index.pts[number]) * index.base
            length = (packet.duration or 0) * Fraction(packet.time_base)
            yield Timed(packet, video.index, index.base, now, length, number)
            number += 1
            continue
        ticks, base = packet.dts if packet.pts is None else packet.pts, Fraction(packet.time_base)
        if ticks is not None:
            times = [ticks * base + shift for shift in index.shifts]
            near = min(times, key=lambda time: abs(time - now))
            yield Timed(packet, packet.stream_index, base, near, (packet.duration or 0) * base, None)


def decoding_times(pts: np.ndarray) -> np.ndarray:
    """`[N]` times to decode packets at, which rise and are never after they are shown.

    >>> decoding_times(np.array([0, 3, 1, 2])).tolist()
    [-1, 0, 1, 2]
    """
    ascending = np.sort(pts)
    return ascending - (ascending - pts).max(initial=0)


@contextmanager
def writing() -> Iterator[None]:
    """Errors of PyAV become ValueError, so that those of a file that is written are not taken for the film's."""
    try:
        yield
    except load_library("av").FFmpegError as error:
        raise ValueError(error.strerror or str(error)) from None
