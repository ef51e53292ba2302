"""When somebody speaks, and what: the lines of subtitles, from a file or from a film's own stream.

Files are read by the same library as films, as it knows their formats, even damaged ones. Text is UTF-8, or UTF-16 with
a byte-order mark; anything else is taken for Windows-1252 (`cp1252`), of which times are right whatever the encoding.
Streams of images, as on DVDs and Blu-rays, have times but no words.
"""

from __future__ import annotations

import codecs
import html
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shard_tools.errors import SourceError

from .listing import film_name
from .opening import load_library, open_video, video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.subtitles.stream import SubtitleStream
    from av.subtitles.subtitle import SubtitleSet

_IMAGES = "sup"  # of Blu-rays
# Suffix -> ffmpeg's name of the format. It is never guessed: a playlist, say, would make ffmpeg open other files.
FORMATS = {".srt": "srt", ".vtt": "webvtt", ".ass": "ass", ".ssa": "ass", ".sup": _IMAGES}
LONGEST = 10.0  # seconds that a line lasts at most; one without an end lasts until the next, or as long as this
_OPEN = 2**32 - 1  # milliseconds: until something else is shown
_LARGEST = 64 << 20  # bytes of a file; those with images have some 20 MiB
_BLOCK = re.compile(r"(\{[^{}]*\})")  # of ASS: styles of what follows, or a comment
_SCALE = re.compile(r"\\p([0-9])")  # in a block: other than 0, what follows are points of a drawing
_BREAK = re.compile(r"\\[Nnh]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|[\\{}]")


class Lines(NamedTuple):
    """Lines of subtitles, in order of their begin; they may overlap.

    Attributes:
        times: `[L, 2]`, when each begins and ends, in seconds.
        words: the text of each, without tags and breaks; "" where it is an image or cannot be decoded.
    """

    times: np.ndarray
    words: tuple[str, ...]


def read_subtitles(path: str | Path) -> Lines:
    """The lines of a file.

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
    if not lines.words:
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


def film_subtitles(film: str | Path) -> Lines | None:
    """The lines of a film's own stream, in seconds from its first image; None if it has no such stream.

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
        found = _lines(container, best if best in streams else streams[0])  # type: ignore[arg-type]
        return found._replace(times=found.times - first)


def _utf8(data: bytes) -> bytes:
    """Text of any encoding as UTF-8, which the decoders want; see the module for which are read right."""
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-16" if marked else "cp1252", "replace")
    return text.replace("\0", "").encode()  # zeros are all that UTF-16 without a mark adds to ASCII


def _lines(container: InputContainer, stream: SubtitleStream) -> Lines:
    shown = sorted(_shown(container, stream), key=lambda line: line[:3])  # overlapping ones may be stored out of order
    start, end, visible = np.array([line[:3] for line in shown], np.float64).reshape(-1, 3).T
    following = np.append(start[1:], np.inf)
    end = np.minimum(np.where(end > start, end, following), start + LONGEST)
    kept = (visible > 0) & (end > start)
    return Lines(np.stack([start, end], 1)[kept], tuple(shown[i][3] for i in np.flatnonzero(kept)))


def _shown(container: InputContainer, stream: SubtitleStream) -> Iterator[tuple[float, float, bool, str]]:
    """Of what is shown: start, end (0 if unknown), whether it is a line, as some formats have empty ones, and words."""
    invalid = load_library("av").error.InvalidDataError
    for packet in container.demux(stream):
        if packet.pts is None or not packet.size:
            continue
        start, length = (float((ticks or 0) * packet.time_base) for ticks in (packet.pts, packet.duration))
        try:
            found = stream.codec_context.decode2(packet)
        except invalid:  # words in another encoding, say
            yield start, start + length, True, ""
            continue
        if found is not None:
            of_images = 0 if found.end_display_time == _OPEN else found.end_display_time / 1000
            yield start, start + (length or of_images), len(found.rects) > 0, _words(found)


def _words(found: SubtitleSet) -> str:
    """The text of what is shown at once. The decoders write all text as events of ASS, with eight fields before it."""
    events = [getattr(rect, "ass", b"").decode("utf-8", "replace").split(",", 8) for rect in found.rects]
    return " ".join(filter(None, (_plain(event[-1]) for event in events)))


def _plain(text: str) -> str:
    """Text of ASS in one line, without styles, comments, drawings and tags of HTML."""
    kept, draws = [], False
    for part in _BLOCK.split(text):
        if not _BLOCK.fullmatch(part):
            kept += [] if draws else [part]
        elif scale := _SCALE.findall(part):
            draws = scale[-1] != "0"
    return " ".join(html.unescape(_TAG.sub("", _BREAK.sub(" ", "".join(kept)))).split())
