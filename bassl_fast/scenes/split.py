"""A film split into one file a scene, without re-encoding."""

from __future__ import annotations

from fractions import Fraction
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from shard_tools.errors import SourceError
from shard_tools.video.frames import EPSILON, load_library, open_video, video_stream
from shard_tools.video.listing import VIDEO_SUFFIXES

from .film import FilmScenes

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream


def split_film(film: FilmScenes, folder: Path) -> None:
    """Write `scene-001.mp4`, ... to `folder`, in the container of the film; video and sound are copied unchanged.

    A copied stream can only start at a key-frame of the video. So a clip holds the whole scene, preceded by the end of
    the scene before, back to the last key-frame: often a few seconds.

    Raises:
        SourceError: the streams cannot be copied to this container.
    """
    av = load_library("av")
    suffix = Path(film.source).suffix.lower()
    suffix = suffix if suffix in VIDEO_SUFFIXES else ".mkv"
    with open_video(film.source) as container:
        for scene in film.scenes:
            target = folder / f"scene-{scene.number:03d}{suffix}"
            try:
                _copy(container, scene.start, scene.end, target)
            except (av.FFmpegError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise SourceError(
                    f"{film.source}: cannot be copied to {target.name} ({reason}); leave out --split"
                ) from None


def _copy(container: InputContainer, start: float, end: float, target: Path) -> None:
    video = video_stream(container)
    sources = [video, *(stream for stream in container.streams.audio if stream.codec_context is not None)]
    zero = float((video.start_time or 0) * video.time_base)  # time 0 of the film, on the container's clock
    end = zero + end - EPSILON
    begin = _seek_key_frame(container, video, zero + start + EPSILON)
    with load_library("av").open(str(target), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in sources}
        begun, going_on = False, set(copies)
        for packet in container.demux(sources):
            if packet.dts is None or not going_on:
                break  # the end of the file, or of the scene
            of_video = packet.stream_index == video.index
            begun = begun or (of_video and packet.pts == begin)
            if float(packet.dts * packet.time_base) >= end:
                going_on.discard(packet.stream_index)
            elif begun and (of_video or _time(packet) >= begin * video.time_base):
                _shift(packet, begin * video.time_base)  # type: ignore[arg-type]
                packet.stream = copies[packet.stream_index]
                out.mux(packet)


def _seek_key_frame(container: InputContainer, video: VideoStream, time: float) -> int:
    """Seek to the last key-frame at or before `time`, or a little before it; its time in ticks of the stream.

    A seek in a container without an index (MPEG-TS) may go too far, so the packets are checked.
    """
    first = float((video.start_time or 0) * video.time_base)
    for back in (0, 2, 8, 32, 128, inf):
        target = max(first, time - back)
        container.seek(int(target / video.time_base), stream=video)
        found = None
        for packet in container.demux(video):
            if packet.dts is None or float(packet.dts * video.time_base) > time:
                break
            if packet.is_keyframe and packet.pts is not None and _time(packet) <= time:
                found = packet.pts
        if found is not None:
            container.seek(int(target / video.time_base), stream=video)
            return found
    raise ValueError("no key-frame at its start")


def _time(packet: Packet) -> float:
    return float((packet.dts if packet.pts is None else packet.pts) * packet.time_base)


def _shift(packet: Packet, seconds: Fraction) -> None:
    """Make the clip start at 0."""
    ticks = round(seconds / packet.time_base)
    packet.dts -= ticks
    if packet.pts is not None:
        packet.pts -= ticks
