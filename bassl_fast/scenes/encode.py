"""Clips whose picture is encoded again, so that each has the frames of its scene and no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, cast

from shard_tools.annotations.labels import FPS
from shard_tools.video.frames import Shown, decode
from shard_tools.video.opening import load_library, open_video, video_stream

from .clip import Clip
from .film import Scene
from .packets import APART, Timed, VideoIndex, timed_packets, writing

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

_TICKS = 90_000  # a second: a multiple of most frame rates
_ENCODERS = {"libx264": {"crf": "18", "preset": "fast"}, "mpeg4": {"qmin": "2", "qmax": "2"}}  # the first there is


def encode_clips(source: str, scenes: Iterable[Scene], clips: Iterable[Clip], index: VideoIndex) -> None:
    """Write a clip of each scene of a film: pictures encoded, all else copied.

    Raises:
        SourceError: the film cannot be read.
        ValueError: a clip cannot be written.
    """
    frames = decode(source)
    with open_video(source) as container:
        others = _Others(container, index)
        for scene, clip in zip(scenes, clips, strict=True):
            encoder = None
            for shown in islice(frames, scene.shots[-1].last + 1 - scene.shots[0].first):
                if encoder is None:
                    encoder = _Encoder(shown, video_stream(container))
                    clip.open(container, encoder.add)
                encoder.write(shown, shown.start - scene.start)
                others.copy(clip, scene, min(shown.end, scene.end))
            if encoder is not None:
                encoder.finish()
            clip.close()


class _Others:
    """Packets that are no pictures, in the order of the file, which may lag behind the picture or run ahead."""

    def __init__(self, container: InputContainer, index: VideoIndex) -> None:
        self._index, self._video = index, video_stream(container).index
        self._packets: Iterator[Timed] | None = timed_packets(container, index)
        self._read, self._waiting = Fraction(0), list[Timed]()

    def copy(self, clip: Clip, scene: Scene, until: float) -> None:
        """Write those of the clip of a scene up to `until`, in seconds of the film."""
        begin, end, now = map(self._index.clock, (scene.start, scene.end, until))
        while self._packets and self._read < now + APART:
            timed = next(self._packets, None)
            if timed is None:
                self._packets = None
            elif timed.number is not None:
                self._read = timed.time
            elif timed.time >= begin:
                self._waiting.append(timed)
        for timed in self._waiting:
            if begin <= timed.time < now:
                clip.other(timed, begin, end)
        self._waiting = [timed for timed in self._waiting if timed.time >= now]


class _Encoder:
    """The video of a clip, as large and of the colours of the frame that it begins with."""

    def __init__(self, shown: Shown, source: VideoStream) -> None:
        self._shown, self._source = shown, source
        self._size = shown.frame.width // 2 * 2, shown.frame.height // 2 * 2
        self._format = shown.frame.format.name
        self._lengths: dict[int, int] = {}  # in ticks, of frames by their time
        self._out: OutputContainer
        self._stream: VideoStream

    def add(self, out: OutputContainer) -> VideoStream:
        """Add it to a file."""
        av = load_library("av")
        name = next(name for name in _ENCODERS if name in av.codecs_available)
        if self._format not in [known.name for known in av.Codec(name, "w").video_formats or ()]:
            self._format = "yuv420p"
        rate = self._source.average_rate or Fraction(FPS)
        stream = cast("VideoStream", out.add_stream(name, rate=rate, options=_ENCODERS[name]))
        codec = stream.codec_context
        codec.width, codec.height = self._size
        codec.pix_fmt, codec.time_base = self._format, Fraction(1, _TICKS)
        codec.sample_aspect_ratio = Fraction(self._shown.pixel_aspect).limit_denominator(1000)
        for key in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(codec, key, getattr(self._source.codec_context, key))
        if self._shown.rotation:
            stream.set_display_rotation(self._shown.rotation)
        self._out, self._stream = out, stream
        return stream

    @writing()
    def write(self, shown: Shown, start: float) -> None:
        """Encode a frame, shown from `start` in seconds of the clip."""
        frame: VideoFrame = shown.frame
        if (frame.format.name, frame.width, frame.height) != (self._format, *self._size):
            frame = frame.reformat(*self._size, self._format)
        frame.pts, frame.time_base = round(start * _TICKS), Fraction(1, _TICKS)
        frame.pict_type = 0  # free: not as it was encoded before
        self._lengths[frame.pts] = round((shown.end - shown.start) * _TICKS)
        self._mux(self._stream.encode(frame))

    @writing()
    def finish(self) -> None:
        """Encode what was held back."""
        self._mux(self._stream.encode())

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            if packet.pts in self._lengths:  # else a container could not say how long the last frame is shown
                packet.duration = self._lengths.pop(packet.pts)
            self._out.mux(packet)
