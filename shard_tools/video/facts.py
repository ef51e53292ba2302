"""What a file says of its video and sound, as editing programs ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .opening import open_video, video_stream


class MediaFacts(NamedTuple):
    """Of a video file; 0 or empty if unknown.

    Attributes:
        width, height: pixels.
        channels: of each sound track.
        sample_rate: samples a second of the first sound track.
        reel: name of the tape or card, as cameras and editing programs write it.
    """

    width: int = 0
    height: int = 0
    channels: tuple[int, ...] = ()
    sample_rate: int = 0
    reel: str = ""


def read_facts(film: Path | str) -> MediaFacts:
    """Read the header of a file.

    Raises:
        SourceError: not a readable file, or no video.
    """
    with open_video(film) as container:
        video = video_stream(container)
        sound = [stream.codec_context for stream in container.streams.audio if stream.codec_context is not None]
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        return MediaFacts(
            video.width,
            video.height,
            tuple(context.channels for context in sound),
            sound[0].sample_rate if sound else 0,
            next((found["reel_name"] for found in tags if "reel_name" in found), ""),
        )
