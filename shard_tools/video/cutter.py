"""What a shot detector, or a shot list, tells: the frames at which shots begin, and how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

from .frames import Shown

Transition = Literal["cut", "fade", "dissolve"]  # how one shot turns into the next; a fade is one through black


APART = 15  # frames between two shots at least, as PySceneDetect's


class Begin(NamedTuple):
    """A frame, from 0, that begins a shot, and how; of a gradual transition it is the middle, if nothing is said."""

    frame: int
    kind: Transition | None


class Cutter(Protocol):
    """Finds the frames that begin a shot."""

    @property
    def lag(self) -> int:
        """Frames after one that it may need to decide whether a shot begins there; known once it took the first."""

    def push(self, shown: Shown) -> Iterable[Begin]:
        """Take the next frame, as by `shots.small_frames`; returns the frames that are now known to begin a shot."""

    def finish(self) -> Iterable[Begin]:
        """End of the film; returns as `push`."""


class Paced:
    """A cutter that is shown a picture again while it stays, as in recordings of screens that leave out equal frames.

    Cutters count in frames, so a shot of two still pictures would be too short for them, however long it is shown.
    """

    STILL, MOST = 4, 40  # times as long as a frame from which a picture is shown again, and as often at most

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._numbers: list[int] = []  # of the frames shown to the cutter
        self._seen = 0

    @property
    def lag(self) -> int:
        return self._cutter.lag

    def push(self, shown: Shown) -> list[Begin]:
        times = min(round((shown.end - shown.start) * shown.rate), self.MOST)
        found: list[Begin] = []
        for _ in range(times if times >= self.STILL else 1):
            self._numbers.append(self._seen)
            found += self._numbered(self._cutter.push(shown))
        self._seen += 1
        return found

    def finish(self) -> list[Begin]:
        return self._numbered(self._cutter.finish())

    def _numbered(self, begins: Iterable[Begin]) -> list[Begin]:
        return [begin._replace(frame=self._numbers[begin.frame]) for begin in begins]


class Spaced:
    """Leaves out what begins less than `apart` frames after the shot before.

    Attributes:
        last: frame at which the last shot began.
    """

    def __init__(self, apart: int = APART) -> None:
        self.last, self._apart = 0, apart

    def __call__(self, begins: Iterable[Begin]) -> list[Begin]:
        kept = []
        for begin in begins:
            if begin.frame - self.last >= self._apart:
                kept.append(begin)
                self.last = begin.frame
        return kept
