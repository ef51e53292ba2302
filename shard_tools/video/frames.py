"""Decode a video, local or remote: its frames in order of time, for any container, frame rate or rotation.

Times are those of the frames themselves (the frame rate may vary), in seconds from 0 at the first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shard_tools.annotations.labels import FPS
from shard_tools.errors import SourceError
from shard_tools.progress import Progress

from .opening import load_library, open_video, video_stream

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

EPSILON = 1e-3  # seconds; containers round times to a millisecond
BACK = 1.0  # seconds; a frame as long before the last is the first of another recording
GAP = 10.0  # seconds; a longer pause in a transport stream is one between recordings
_CUT = "{}: cut short; fetch it again, or re-encode what is there with ffmpeg"


class Shown(NamedTuple):
    """A decoded frame and how to show it.

    Attributes:
        start, end: seconds [start, end) that it is shown for.
        pixel_aspect: width / height of its pixels.
        rotation: degrees, counterclockwise, by which to turn it upright; a multiple of 90.
        rate: frames a second of the film, on average.
        damaged: packets and pictures found damaged since the frame before, this one included.
    """

    start: float
    end: float
    frame: VideoFrame
    pixel_aspect: float
    rotation: int
    rate: float
    damaged: int = 0


class Header(NamedTuple):
    """From the header of a file: seconds of film (0 unknown), frames a second, codec."""

    duration: float
    rate: Fraction
    codec: str


def read_header(film: Path | str) -> Header:
    """Open a film and read its header.

    Raises:
        SourceError: not a readable file, or no video stream that can be decoded.
    """
    with open_video(film) as container:
        stream = video_stream(container)
        return Header((container.duration or 0) / 1e6, average_rate(stream), stream.codec_context.name)


def decode(film: Path | str, progress: Progress | None = None) -> Iterator[Shown]:
    """Every frame of the film in order of time, each shown until the next begins.

    A frame without a time, or with one before the last (as in joined recordings), follows the last at the frame rate.
    What is damaged is counted in `Shown.damaged` and decoded on.

    Args:
        film: path or address of the file.
        progress: counts seconds of film.

    Raises:
        SourceError: the file cannot be read, is cut short, or holds no picture.
    """
    held: Shown | None = None
    with open_video(film) as container:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        rate = float(average_rate(stream))
        shape = _PixelAspect(stream)
        gap = GAP if container.format.name == "mpegts" else inf
        offset = 0.0  # of the clock of the container when `held` is shown; joined recordings start it again
        for frame, time, damaged in _frames(film, container, stream):
            if held is None:
                offset = time or 0.0
                start = 0.0
            else:
                start = held.end if time is None else time - offset
                if start < held.start - BACK or start > held.end + gap:
                    offset = (time or 0.0) - held.end  # the clock was set again
                    start = held.end
                start = start if start > held.start else held.end
                yield _ended(held, start, progress)
            length = float((frame.duration or 0) * frame.time_base) or 1 / rate
            held = Shown(start, start + length, frame, shape.now(), frame.rotation, rate, damaged)
    if held is None:
        raise SourceError(f"{film}: a video stream without pictures; remove the file or fetch it again")
    yield _ended(held, held.end, progress)


def average_rate(stream: VideoStream) -> Fraction:
    """Frames a second, on average."""
    average, guessed = stream.average_rate, stream.guessed_rate
    unknown = average is None or average * (stream.time_base or 0) == 1  # some demuxers give ticks a second
    return Fraction((unknown and guessed) or average or FPS)


def first_frame(film: Path | str, container: InputContainer) -> VideoFrame:
    """The first picture that can be decoded.

    Raises:
        SourceError: there is none.
    """
    for frame, _, _ in _frames(film, container, video_stream(container)):
        return frame
    raise SourceError(f"{film}: a video stream without pictures; remove the file or fetch it again")


def _ended(shown: Shown, end: float, progress: Progress | None) -> Shown:
    if progress:
        progress(end - shown.start)
    return shown._replace(end=end)


class _PixelAspect:
    """Of the frame decoded last: what the container says, until the video itself changes it, as between programmes."""

    def __init__(self, stream: VideoStream) -> None:
        self._codec = stream.codec_context
        self._given, self._first = stream.sample_aspect_ratio, self._codec.sample_aspect_ratio

    def now(self) -> float:
        coded = self._codec.sample_aspect_ratio
        self._first = self._first or coded  # unknown before the first frame
        return float((self._given if coded == self._first else coded) or coded or 1)


def _frames(
    film: Path | str, container: InputContainer, stream: VideoStream
) -> Iterator[tuple[VideoFrame, float | None, int]]:
    """Decoded frames of a stream, their times in seconds, and the damaged packets and pictures since the frame before.

    Raises:
        SourceError: the file is cut short.
    """
    invalid = load_library("av").error.InvalidDataError
    end, damaged = _End(container, stream), 0
    last: VideoFrame | None = None
    repeated: deque[float] = deque()  # times of packets without data: the picture before is shown again
    for packet in container.demux():
        end.saw(packet)
        if packet.stream is not stream:
            continue
        damaged += packet.is_corrupt
        if packet.size == 0 and packet.dts is not None:
            repeated.append(float(packet.dts * packet.time_base))
            continue
        try:
            frames: list[VideoFrame] = packet.decode()  # type: ignore[assignment]  # only frames of video
        except invalid:
            damaged += 1
            continue
        for frame in frames:
            ticks = frame.pts if has_times(container) else frame.dts
            time = None if ticks is None else float(ticks * frame.time_base)
            while last and time is not None and repeated and repeated[0] < time:
                yield last, repeated.popleft(), 0
            last = frame
            yield frame, time, damaged + frame.is_corrupt
            damaged = 0
    if last:
        yield from ((last, time, 0) for time in repeated)
    if end.is_early():
        raise SourceError(_CUT.format(film))


def has_times(container: InputContainer) -> bool:
    """Whether the container gives times of pictures; AVI only gives their order of decoding."""
    return container.format.name != "avi"


class _End:
    """Whether a file ends before the time that its header gives: a container cut between packets shows nothing else."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream, self._own, self._reached = stream, bool(stream.duration), 0.0
        start, length = (Fraction(ticks or 0, 10**6) for ticks in (container.start_time, container.duration))
        if stream.duration:
            start, length = (
                Fraction((ticks or 0) * stream.time_base) for ticks in (stream.start_time, stream.duration)
            )
        # Some count the length from their start, others, as Matroska, from 0.
        self._end = float(min(start, 0) + length)

    def saw(self, packet: Packet) -> None:
        if packet.pts is not None and (packet.stream is self._stream or not self._own):
            self._reached = max(self._reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def is_early(self) -> bool:
        return 0 < self._reached < self._end - max(1.0, 0.01 * self._end)
