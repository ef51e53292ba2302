"""When somebody speaks: the times of the lines of subtitles, from a file or from a film's own stream.

Files are read by the same library as films, as it knows their formats, even damaged ones. Only times are read, so their
encoding does not matter. Streams of images, as on DVDs and Blu-rays, have times too.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shard_tools.errors import SourceError

from .listing import film_name
from .opening import load_library, open_video, video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.subtitles.stream import SubtitleStream

_IMAGES = "sup"  # of Blu-rays
# Suffix -> ffmpeg's name of the format. It is never guessed: a playlist, say, would make ffmpeg open other files.
FORMATS = {".srt": "srt", ".vtt": "webvtt", ".ass": "ass", ".ssa": "ass", ".sup": _IMAGES}
LONGEST = 10.0  # seconds that a line lasts at most; one without an end lasts until the next, or as long as this
_OPEN = 2**32 - 1  # milliseconds: until something else is shown
_LARGEST = 64 << 20  # bytes of a file; those with images have some 20 MiB


def read_subtitles(path: str | Path) -> np.ndarray:
    """`[L, 2]`, when each line of a file begins and ends, in seconds, in order; lines may overlap.

    Lines that do not end after they begin last until the next one.

    Raises:
        SourceError: no such file, of another format, or without a line.
    """
    path = Path(path)
    if (name := FORMATS.get(path.suffix.lower())) is None:
        raise SourceError(f"{path}: not a file of subtitles; give one of {', '.join(FORMATS)}")
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}; give a file of subtitles") from None
    if len(data) > _LARGEST:
        raise SourceError(f"{path}: over {_LARGEST >> 20} MiB, too large for subtitles; give a file of subtitles")
    av = load_library("av")
    try:
        with av.open(
            io.BytesIO(data if name == _IMAGES else _utf8(data)), format=name, metadata_errors="ignore"
        ) as container:
            lines = _lines(container, container.streams.subtitles[0])
    except av.FFmpegError as error:
        raise SourceError(f"{path}: cannot be read as subtitles ({error.strerror}); save it again") from None
    if not len(lines):
        raise SourceError(f"{path}: has no line of subtitles; give another file, or leave it out")
    return lines


def find_subtitles(folder: Path, films: Iterable[str]) -> dict[str, str]:
    """Name of a film (see `listing.film_name`) -> its file in a folder; films without one are left out.

    `Film.srt` belongs to the film, and if it is not there `Film.en.srt` or the like, the first by name.
    """
    found: dict[str, str] = {}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in FORMATS)
    for tag in ("", r"\.[A-Za-z-]{2,8}$"):  # a language, or "forced"
        for path in files:
            found.setdefault(film_name(re.sub(tag, "", path.stem)), str(path))
    return {film: found[film] for film in films if film in found}


def film_subtitles(film: str | Path) -> np.ndarray | None:
    """`read_subtitles` of a film's own stream, in seconds from its first image; None if it has none.

    Of several streams the default one is taken, but none of foreign parts alone. All of the file is read.

    Raises:
        SourceError: not a readable film. RemoteError: its address does not answer.
    """
    with open_video(film) as container:
        forced = load_library("av").stream.Disposition.forced
        streams = [stream for stream in container.streams.subtitles if stream.codec_context is not None]
        streams = [stream for stream in streams if not stream.disposition & forced] or streams
        if not streams:
            return None
        best, video = container.streams.best("subtitle"), video_stream(container)
        first = float((video.start_time or 0) * (video.time_base or 0))
        return _lines(container, best if best in streams else streams[0]) - first  # type: ignore[arg-type]


def _utf8(data: bytes) -> bytes:
    """Text of any encoding as UTF-8, which the decoders want; of other than Unicode the words may be wrong."""
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\0", "").encode()  # zeros are all that UTF-16 without a mark adds to ASCII


def _lines(container: InputContainer, stream: SubtitleStream) -> np.ndarray:
    shown = sorted(_shown(container, stream))  # ones that overlap may be stored out of order
    start, end, visible = np.array(shown, np.float64).reshape(-1, 3).T
    following = np.append(start[1:], np.inf)
    end = np.minimum(np.where(end > start, end, following), start + LONGEST)
    kept = (visible > 0) & (end > start)
    return np.stack([start, end], 1)[kept]


def _shown(container: InputContainer, stream: SubtitleStream) -> Iterator[tuple[float, float, bool]]:
    """Start and end of whatever is shown, end 0 if unknown, and whether it is a line: some formats have empty ones."""
    invalid = load_library("av").error.InvalidDataError
    for packet in container.demux(stream):
        if packet.pts is None or not packet.size:
            continue
        start, length = (float((ticks or 0) * packet.time_base) for ticks in (packet.pts, packet.duration))
        try:
            found = stream.codec_context.decode2(packet)
        except invalid:  # words in another encoding, say
            yield start, start + length, True
            continue
        if found is not None:
            of_images = 0 if found.end_display_time == _OPEN else found.end_display_time / 1000
            yield start, start + (length or of_images), len(found.rects) > 0
