"""Shot detectors by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from shard_tools.errors import ConfigError

from .cutter import Cutter, Paced
from .pyscenedetect import SceneDetect
from .transitions import Transitions
from .transnetv2 import TransNetV2

Detector = Literal["transitions", "adaptive", "content", "transnetv2"]


def make_cutter(detector: Detector = "transitions") -> Cutter:
    """A shot detector by name.

    Args:
        detector: "transitions" (cuts, fades and dissolves); "adaptive" (a cut stands out from the frames around it)
            or "content" (it exceeds a fixed threshold), both of PySceneDetect; or the network "transnetv2".

    Raises:
        ConfigError: unknown detector.
        MissingDependency: its package is not installed.
    """
    if detector not in DETECTORS:
        raise ConfigError(f"detector {detector!r}: unknown; use one of {', '.join(DETECTORS)}")
    return Paced(DETECTORS[detector]())


DETECTORS: dict[Detector, Callable[[], Cutter]] = {
    "transitions": Transitions,
    "adaptive": partial(SceneDetect, "AdaptiveDetector"),
    "content": partial(SceneDetect, "ContentDetector"),
    "transnetv2": TransNetV2,
}
