"""A video file into which packets of a film are copied."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from shard_tools.video.timing import Timing

from .packets import AddVideo, copy_streams, create, mux, plain_text, tags

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream


class Clip:
    """A file that is made when its first packet is written.

    Attributes:
        lost: what the file cannot hold, for people, by the index of the stream.

    Args:
        timing: of the film.
        begin: where the file begins in the film, in seconds.
    """

    def __init__(self, timing: Timing, path: Path, begin: float) -> None:
        self.lost: dict[int, str] = {}
        self._timing, self._path, self._begin = timing, path, begin
        self._out: OutputContainer | None = None
        self._copies: dict[int, Stream] = {}
        self._as_text: set[int] = set()
        self._last: dict[int, int] = {}

    def open(self, source: InputContainer, add_video: AddVideo | None = None) -> OutputContainer:
        """The file, with copies of all streams of the film; `add_video` adds another picture than its own."""
        if self._out is None:
            self._out = create(self._path)
            self._out.metadata.update(tags(source.metadata))
            if self._timing.first:
                self._out.metadata["timecode"] = self._timing.timecode(max(0.0, self._begin))
            self._copies, self._as_text, self.lost = copy_streams(self._out, source, add_video)
        return self._out

    def picture(self, packet: Packet, stream: int, base: Fraction, pts: int, dts: int) -> None:
        """Write a packet of the picture, at times in ticks of `base` from the begin of the clip."""
        assert self._out is not None
        mux(self._out, self._copies[stream], packet, base, pts, dts)

    def other(self, packet: Packet, stream: int, base: Fraction, seconds: Fraction) -> None:
        """Write a packet of another stream at a time from the begin of the clip; none goes before the last."""
        found = plain_text(packet) if stream in self._as_text else packet
        if found is None or self._out is None or stream not in self._copies:
            return
        least = self._last.get(stream, -1) + (self._path.suffix not in (".mkv", ".webm"))
        self._last[stream] = time = max(least, round(seconds / base))
        mux(self._out, self._copies[stream], found, base, time, time)

    def close(self) -> None:
        """Finish the file."""
        if self._out is not None:
            out, self._out = self._out, None
            out.close()
