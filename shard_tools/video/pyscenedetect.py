"""The shot detectors of PySceneDetect."""

from __future__ import annotations

import numpy as np

from shard_tools.annotations.labels import FPS

from .cutter import Begin
from .frames import Shown
from .opening import load_library

DETECTION_WIDTH = 256  # pixels; the width to which PySceneDetect shrinks frames


class SceneDetect:
    """A detector of PySceneDetect, by the name of its class."""

    def __init__(self, name: str) -> None:
        self._library, self._thumbnails = load_library("scenedetect"), Thumbnails()
        self._finder = getattr(self._library, name)()
        self.lag = self._finder.event_buffer_length
        self._seen = 0

    def push(self, shown: Shown) -> list[Begin]:
        pixels = self._thumbnails(shown)
        # The timecode is only the number of the frame, at a nominal rate: `Shot` has the real times.
        found = self._finder.process_frame(self._library.FrameTimecode(self._seen, FPS), pixels)
        self._seen += 1
        return [Begin(cut.frame_num, "cut") for cut in found]

    def finish(self) -> list[Begin]:
        return []


class Thumbnails:
    """Frames as PySceneDetect's detectors take them: `[h, w, 3]` uint8 BGR, at most `DETECTION_WIDTH` wide."""

    def __init__(self) -> None:
        self._cv2 = load_library("cv2")
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        self._size: tuple[int, ...] | None = None

    def __call__(self, shown: Shown) -> np.ndarray:
        pixels = self._reformatter.reformat(shown.frame, format="bgr24", threads=1).to_ndarray()
        if self._size is None:  # kept if the size of the film changes
            scale = min(1.0, DETECTION_WIDTH / pixels.shape[1])
            self._size = tuple(max(1, round(side * scale)) for side in pixels.shape[1::-1])
        # First to BGR at one size, then shrunk. PyAV dithers what it does in one step, so that the black bars of a film
        # flicker between (1, 0, 1) and (0, 0, 0): invisible, but a cut for a detector that compares hue.
        return self._cv2.resize(pixels, self._size, interpolation=self._cv2.INTER_LINEAR)
