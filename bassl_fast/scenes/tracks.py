"""Tracks of a film in another file: copied, or converted where that file cannot hold them as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, cast

from shard_tools.video.opening import load_library, video_stream

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

AddVideo = Callable[["OutputContainer"], "Stream"]
_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo", "6 channels": "5.1", "8 channels": "7.1"}  # if unsaid
_STALE = ("_statistics", "bps", "duration", "number_of_", "encoder", "timecode", "major_", "minor_", "compatible_")


class Track:
    """A stream of a new file that is copied from one of another."""

    def __init__(self, out: OutputContainer, stream: Stream) -> None:
        self.out, self.stream = out, stream

    def write(self, packet: Packet, base: Fraction, pts: int, dts: int, length: int) -> None:
        """Write a packet, which may be written to several files, at times in ticks of `base`."""
        packet.stream = self.stream
        packet.time_base, packet.pts, packet.dts, packet.duration = base, pts, dts, length
        self.out.mux(packet)

    def finish(self) -> None:
        """Write what was held back."""


class PlainText(Track):
    """Subtitles of MP4 (3GPP TS 26.245, section 5.17) without their style, as SubRip."""

    def write(self, packet: Packet, base: Fraction, pts: int, dts: int, length: int) -> None:
        data = bytes(packet)
        text = data[2 : 2 + int.from_bytes(data[:2], "big")]
        if not text:
            return  # a pause
        plain = load_library("av").Packet(text)
        super().write(plain, base, pts, dts, length)


class Encoded(Track):
    """Sound that is decoded and encoded again."""

    def write(self, packet: Packet, base: Fraction, pts: int, dts: int, length: int) -> None:
        stream = cast("AudioStream", self.stream)
        rate = stream.rate
        time = round(pts * base * rate)
        for frame in cast("list[AudioFrame]", packet.decode()):
            frame.pts, frame.time_base = time, Fraction(1, rate)
            time += frame.samples
            self.out.mux(stream.encode(frame))

    def finish(self) -> None:
        self.out.mux(cast("AudioStream", self.stream).encode())


class Tracks(NamedTuple):
    """Of a new file.

    Attributes:
        of: by the index of the stream that it is made from.
        lost: what the new file does not hold, for people, by the index of the stream.
    """

    of: dict[int, Track]
    lost: dict[int, str]


def add_tracks(out: OutputContainer, source: InputContainer, add_video: AddVideo | None = None) -> Tracks:
    """Add every stream of a film that `out` can hold, with its tags, in their order.

    Args:
        add_video: adds the picture, instead of a copy of it; sound that cannot be copied is encoded too.

    Raises:
        ValueError: `out` cannot hold the picture.
    """
    tracks, main = Tracks({}, {}), video_stream(source).index
    old_chapters = bool(source.chapters())
    for stream in source.streams:
        if stream.type == "data" and ("timecode" in stream.metadata or (stream.name == "bin_data" and old_chapters)):
            continue  # of MP4: made of the tag `timecode` of the file, and a second list of its chapters
        try:
            track = _add(out, stream, stream.index == main, add_video)
        except ValueError:
            if stream.index == main:
                raise
            codec = f" ({stream.codec_context.name})" if stream.codec_context else ""
            tracks.lost[stream.index] = f"{stream.type} track {stream.index}{codec}"
            continue
        track.stream.metadata.update(tags(stream.metadata))
        if stream.type != "attachment":
            track.stream.disposition = stream.disposition
            tracks.of[stream.index] = track
    return tracks


def _add(out: OutputContainer, stream: Stream, is_main: bool, add_video: AddVideo | None) -> Track:
    """Raises: ValueError: it cannot hold the stream."""
    if stream.type == "data" or (stream.type == "video" and not is_main):
        raise ValueError
    if is_main and add_video is not None:
        return Track(out, add_video(out))
    codec = stream.codec_context.name if stream.codec_context else ""
    if codec == "mov_text" and out.format.name == "matroska":
        return PlainText(out, out.add_mux_stream("subrip"))
    try:
        return Track(out, out.add_stream_from_template(stream, opaque=True))
    except ValueError:
        if stream.type != "audio" or add_video is None or stream.codec_context is None:
            raise
        sound = cast("AudioStream", stream)
        layout = _LAYOUTS.get(sound.layout.name, sound.layout.name)
        return Encoded(out, out.add_stream("aac", rate=sound.rate, layout=layout))


def tags(found: Mapping[str, str]) -> dict[str, str]:
    """Tags without those that say how a file was written."""
    return {name: value for name, value in found.items() if not name.lower().startswith(_STALE)}
