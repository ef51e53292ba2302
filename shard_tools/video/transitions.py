"""Cuts, fades and dissolves of a film, cheap enough to find while decoding.

    cuts       frames that differ more from the one before than their neighbours do, unless the picture of before comes
               back (a flash)
    fades      a picture that darkens to black, or comes out of it, gradually; or a few black frames
    dissolves  frames that are mixtures of one before and one after, when these two differ

Black of more than `REACH` frames between cuts is a shot of its own. If a shot is cut to such black and the next one
comes out of it gradually, that one begins with the black.

Numbers of frames are for 18 to 35 frames a second; a film of more or fewer has them multiplied, see `frame_scale`. Half
of the clips of `benchmarks/shots.py` were used to choose the thresholds.
"""

from __future__ import annotations

from collections import deque
from math import log2

import numpy as np

from .cutter import APART, Begin, Spaced
from .frames import Shown
from .opening import load_library
from .pyscenedetect import Thumbnails

SIZE = 16, 9  # blocks whose mean colours are compared: coarse, so that motion within a shot changes little
REACH = 17  # frames on either side of one that are looked at
BLACK = 20  # of 255; a frame is black if no block is brighter, ...
UNIFORM = 5  # ... and its blocks differ by less: a dark shot does not count
NEAR = 10  # frames from black within which a change may be part of a fade
RETURN = 6  # frames before and after a cut, of which two alike make it a flash
SUDDEN = 0.5  # of the difference between `NEAR` frames before and after; in a fade one frame changes less
FLASH = 0.4  # of the difference at a cut; what changes less from before it to after it is no cut


class Transitions:
    """A cutter for cuts, fades through black, and dissolves of half a second to two seconds at 24 frames a second."""

    def __init__(self) -> None:
        self._cv2, self._thumbnails = load_library("cv2"), Thumbnails()
        self._found: list[int] = []  # cuts whose surroundings are not seen yet
        self._faded: int | None = None  # first of the black frames; 0 if the film begins with them
        self._seen = 0
        self._at(1.0)

    def _at(self, scale: float) -> None:
        """Begin a film of this `frame_scale`."""
        self._scale, self._reach = scale, int(REACH * scale)
        self.lag = 2 * self._reach + 1
        apart = int(APART * min(1.0, scale))
        self._cuts, self._dissolves, self._spaced = Cuts(apart), Dissolves(scale), Spaced(apart)
        self._blocks = np.empty((self.lag, 3 * SIZE[0] * SIZE[1]), np.float32)  # of the last frames, in order
        self._black = np.zeros(self.lag, bool)

    def push(self, shown: Shown) -> list[Begin]:
        if self._seen == 0:
            self._at(frame_scale(shown.rate))
        pixels = self._thumbnails(shown)
        blocks = self._cv2.resize(pixels, SIZE, interpolation=self._cv2.INTER_AREA).ravel()
        return self._step(blocks, self._cuts.push(pixels))

    def finish(self) -> list[Begin]:
        begins: list[Begin] = []
        for _ in range(self._reach):  # as if the last frame went on
            begins += self._step(self._blocks[-1], [])
        return begins

    def _step(self, blocks: np.ndarray, cuts: list[int]) -> list[Begin]:
        """What is known now that frame `_seen` was seen; all is decided `_reach` frames later."""
        black = blocks.max() < BLACK and np.ptp(blocks) < UNIFORM
        if self._seen == 0:
            self._blocks[:], self._black[:] = blocks, black
        self._blocks[:-1], self._blocks[-1] = self._blocks[1:], blocks
        self._black[:-1], self._black[-1] = self._black[1:], black
        self._found += cuts
        centre = self._seen - self._reach
        self._seen += 1
        begins = []
        if centre in self._found:
            self._found.remove(centre)
            self._dissolves.forget()
            near = int(NEAR * self._scale)
            if not fades(self._blocks, self._black, near) and not returns(self._blocks, int(RETURN * self._scale)):
                begins.append(Begin(centre, "cut"))
                self._faded = None
        elif self._black.any():
            self._dissolves.forget()
        elif centre % 2 == 0:  # a dissolve is slow
            begins += [Begin(frame, "dissolve") for frame in self._dissolves.push(centre, self._blocks)]
        begins = self._spaced(begins)
        return begins + self._spaced(self._fade(centre))

    def _fade(self, centre: int) -> list[Begin]:
        """The middle of black frames, once they have ended, but at most `_reach` frames before the picture returns.

        None if the film began with them, or a shot was cut to them: then the next shot has begun already.
        """
        if self._black[self._reach] and self._faded is None:
            self._faded = max(0, centre)
        # After a frame that is not quite black, it may go on.
        if self._faded is None or self._black[self._reach :].any():
            return []
        first, self._faded = self._faded, None
        if first == 0 or self._spaced.last >= first - 1:
            return []
        return [Begin(max((first + centre) // 2, centre - self._reach), "fade")]


def frame_scale(rate: float) -> float:
    """Factor for numbers of frames chosen at 25 a second: a power of two from 1/2 to 8.

    Args:
        rate: frames a second.
    """
    return 2.0 ** min(3, max(-1, round(log2(rate / 25))))


class Cuts:
    """The rule of PySceneDetect's AdaptiveDetector, with its thresholds, in a tenth of its time.

    A frame is a cut if the mean difference of hue, saturation and value from the frame before is at least `LEAST`, and
    `RATIO` times its mean over two frames before and two after.
    """

    LEAST, RATIO, AROUND = 15.0, 3.0, 2

    def __init__(self, apart: int = APART) -> None:
        self._cv2, self._apart = load_library("cv2"), apart
        self._changes: deque[float] = deque(maxlen=2 * self.AROUND + 1)
        self._before: np.ndarray | None = None
        self._seen = self._last = 0

    def push(self, pixels: np.ndarray) -> list[int]:
        """Take the next frame, `[h, w, 3]` uint8 BGR; returns the frame `AROUND` before it if that is a cut."""
        hsv = self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2HSV)
        before = hsv if self._before is None else self._before
        self._changes.append(self._cv2.norm(hsv, before, self._cv2.NORM_L1) / hsv.size)
        self._before, number = hsv, self._seen - self.AROUND
        self._seen += 1
        if len(self._changes) < 2 * self.AROUND + 1 or number - self._last < self._apart:
            return []
        change = self._changes[self.AROUND]
        around = (sum(self._changes) - change) / (2 * self.AROUND)
        if change < max(self.LEAST, self.RATIO * around):
            return []
        self._last = number
        return [number]


def fades(blocks: np.ndarray, black: np.ndarray, near: int = NEAR) -> bool:
    """Whether a change at the middle frame is part of a fade: gradual, or at an edge of a few black frames.

    Args:
        blocks: `[2R + 1, D]`, the frame of the change in the middle.
        black: `[2R + 1]` bool, which of them are black.
    """
    middle = len(black) // 2
    if not black[middle - near : middle + near + 1].any():
        return False
    touching = int(black[middle - 1]) + int(black[middle])
    few = not black[:middle].all() and not black[middle:].all()
    step = np.abs(blocks[middle] - blocks[middle - 1]).mean()
    gradual = step < SUDDEN * np.abs(blocks[middle + near] - blocks[middle - 1 - near]).mean()
    return bool(touching == 2 or (touching == 1 and few) or gradual)


def returns(blocks: np.ndarray, soon: int = RETURN) -> bool:
    """Whether a frame soon after the middle one looks like one shortly before it.

    Args:
        blocks: `[2R + 1, D]`, the frame of the cut in the middle.
    """
    middle = len(blocks) // 2
    before, after = blocks[middle - soon : middle], blocks[middle : middle + soon]
    between = np.abs(before[:, None] - after[None]).mean(2)
    return bool(between.min() < FLASH * between[-1, 0])


class Dissolves:
    """Finds the middles of dissolves.

    A frame M half-way between A and B is compared with the mixture of these nearest to it, and so are the frames a
    quarter and three quarters of the way: in a dissolve they lie on the line from A to B, at about their share of
    it, while in a pan or with moving objects they are far off, and at a cut they are at one of its ends. A change of
    light also moves along the line, but then A and B are alike up to contrast.
    """

    HALVES = 6, 10, 16  # frames from A to M
    OFF = 0.25  # distance from the line, as a part of its length
    DIFFERENT = 20.0  # levels of 255 between A and B
    ALIKE = 0.5  # correlation of A and B
    SHARE = 0.18  # by which the share of B may differ from that of time
    WAIT = 10  # frames in which no better middle is found

    def __init__(self, scale: float = 1.0) -> None:
        self._halves, self._wait = (np.array(self.HALVES) * scale).astype(int), int(self.WAIT * scale)
        self._best: tuple[float, int] | None = None

    def forget(self) -> None:
        """Start again, after another kind of transition."""
        self._best = None

    def push(self, centre: int, blocks: np.ndarray) -> list[int]:
        """The middle of a dissolve that is known now.

        Args:
            centre: number of the middle one of the frames.
            blocks: `[2R + 1, D]` float32.
        """
        off = self._off(blocks)
        if off < self.OFF and (self._best is None or off < self._best[0]):
            self._best = off, centre
        if self._best is None or centre - self._best[1] < self._wait:
            return []
        middle, self._best = self._best[1], None
        return [middle]

    def _off(self, blocks: np.ndarray) -> float:
        """Distance of the inner frames from the line from A to B; infinite if this is no dissolve."""
        middle = len(blocks) // 2
        a, b = blocks[middle - self._halves], blocks[middle + self._halves]
        line = b - a
        length = np.einsum("hd,hd->h", line, line) + 1e-6
        inner = blocks[middle + np.outer([-1, 0, 1], self._halves // 2)] - a  # `[3, 3, D]`, a quarter of the way first
        share = np.einsum("qhd,hd->qh", inner, line) / length
        off = np.sqrt(np.maximum(0, np.einsum("qhd,qhd->qh", inner, inner) / length - share**2)).mean(0)
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
        alike = np.einsum("hd,hd->h", a, b) / np.sqrt((a**2).sum(1) * (b**2).sum(1) + 1e-6)
        fits = (np.abs(share - [[0.25], [0.5], [0.75]]) < self.SHARE).all(0)
        fits &= (length > self.DIFFERENT**2 * a.shape[1]) & (alike < self.ALIKE)
        return float(np.where(fits, off, np.inf).min())
