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
    """Finds the frames that begin a shot.

    Attributes:
        lag: frames after one that it may need to decide whether a shot begins there; known once it took the first.
    """

    lag: int

    def push(self, shown: Shown) -> Iterable[Begin]:
        """Take the next frame, as by `shots.small_frames`; returns the frames that are now known to begin a shot."""

    def finish(self) -> Iterable[Begin]:
        """End of the film; returns as `push`."""


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
