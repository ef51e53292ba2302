"""A copy of a film with its scenes as chapters."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from shard_tools.errors import SourceError
from shard_tools.video.opening import load_library, open_video

from .clip import Clip
from .film import FilmScenes
from .packets import VideoIndex, decoding_times, read_index, timed_packets

if TYPE_CHECKING:
    from av.container.core import Chapter

_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
_TICKS = 1000  # a second, of chapters


def write_with_chapters(film: FilmScenes, path: Path, index: VideoIndex | None = None) -> list[str]:
    """Write a film to a Matroska file with its scenes as the only chapters; nothing is encoded again.

    All streams are kept that Matroska can hold, with their tags; covers become attachments.

    Args:
        index: of the film, if it was read already.

    Returns:
        What the file lacks, for people.

    Raises:
        SourceError: the film cannot be read, or the file not be written.
    """
    index = index or read_index(film.source)
    clip = Clip(film.timing, path, 0.0)
    try:
        try:
            _copy(film, clip, index)
        finally:
            clip.close()
    except ValueError as error:
        raise SourceError(
            f"{film.source}: cannot be copied to {path.name} ({error}); leave out --chapters, use chapters.ffmetadata"
        ) from None
    return [f"{path.name} lacks {', '.join(clip.lost.values())}"] if clip.lost else []


def _copy(film: FilmScenes, clip: Clip, index: VideoIndex) -> None:
    begin, dts = round(index.start / index.base), decoding_times(index.pts)
    with open_video(film.source) as container:
        out = clip.open(container)
        for stream, cover in _covers(film.source).items():
            out.add_attachment(*cover)
            del clip.lost[stream]
        out.set_chapters(_chapters(film, index))
        for timed in timed_packets(container, index):
            if timed.number is None:
                clip.other(timed, index.start, timed.time + timed.length)
            else:
                clip.picture(timed, int(index.pts[timed.number]) - begin, int(dts[timed.number]) - begin)


def _chapters(film: FilmScenes, index: VideoIndex) -> list[Chapter]:
    zero = float(index.first * index.base - index.start)
    return [
        {
            "id": scene.number,
            "start": round(_TICKS * (zero + scene.start)),
            "end": round(_TICKS * (zero + scene.end)),
            "time_base": Fraction(1, _TICKS),
            "metadata": {"title": scene.title},
        }
        for scene in film.scenes
    ]


def _covers(source: str) -> dict[int, tuple[str, str, bytes]]:
    """Name, type and bytes of the cover pictures of a film, by the index of their stream."""
    attached = load_library("av").stream.Disposition.attached_pic
    found = {}
    with open_video(source) as container:
        for stream in container.streams.video:
            codec = stream.codec_context.name if stream.codec_context else ""
            if stream.disposition & attached and codec in _COVERS:
                found[stream.index] = (*_COVERS[codec], bytes(next(container.demux(stream))))
    return found
