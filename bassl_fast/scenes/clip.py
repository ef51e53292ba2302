"""A video file into which packets of a film are written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from shard_tools.video.opening import load_library
from shard_tools.video.timing import Timing

from .packets import Timed, writing
from .tracks import AddVideo, Tracks, add_tracks, tags

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer

_FORMATS = {".m4v": "mp4"}  # where ffmpeg would take another by the name


class Clip:
    """A file that is made when it is opened. What cannot be written raises ValueError.

    Attributes:
        lost: what the file does not hold, for people, by the index of the stream.

    Args:
        timing: of the film.
        begin: where the file begins in the film, in seconds.
    """

    def __init__(self, timing: Timing, path: Path, begin: float) -> None:
        self.lost: dict[int, str] = {}
        self._timing, self._path, self._begin = timing, path, begin
        self._out: OutputContainer | None = None
        self._tracks = Tracks({}, {})
        self._last: dict[int, int] = {}

    @writing()
    def open(self, source: InputContainer, add_video: AddVideo | None = None) -> OutputContainer:
        """The file, with all streams of the film; `add_video` adds another picture than its own."""
        out = load_library("av").open(str(self._path), "w", format=_FORMATS.get(self._path.suffix))
        self._out = out
        out.metadata.update(tags(source.metadata))
        if self._timing.first:
            out.metadata["timecode"] = self._timing.timecode(max(0.0, self._begin))
        self._tracks = add_tracks(out, source, add_video)
        self.lost = self._tracks.lost
        return out

    @writing()
    def picture(self, timed: Timed, pts: int, dts: int) -> None:
        """Write a packet of the picture, at times in ticks from the start of the clip."""
        self._tracks.of[timed.stream].write(timed.packet, timed.base, pts, dts, round(timed.length / timed.base))

    @writing()
    def other(self, timed: Timed, begin: Fraction, end: Fraction) -> None:
        """Write a packet of another stream of a clip from `begin` to `end`, on the clock of the film.

        None goes before the last of its stream, and no subtitle stays after the end.
        """
        track = self._tracks.of.get(timed.stream)
        if track is None:
            return
        length = min(timed.length, end - timed.time) if track.stream.type == "subtitle" else timed.length
        least = self._last.get(timed.stream, -1) + (self._path.suffix not in (".mkv", ".webm"))
        self._last[timed.stream] = time = max(least, round((timed.time - begin) / timed.base))
        track.write(timed.packet, timed.base, time, time, round(length / timed.base))

    @writing()
    def close(self) -> None:
        """Finish the file."""
        if self._out is not None:
            out, self._out = self._out, None
            try:
                for track in self._tracks.of.values():
                    track.finish()
            finally:
                out.close()
