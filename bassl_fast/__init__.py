"""Learning: encoders, pretext methods, training, evaluation, features, report and the command line.

Pictures come from `pipelines` as tensors; what is learned leaves as a checkpoint that carries its recipe.
Needs torch and Lightning. A new method or encoder is a file under `methods/` or `encoders/` and a config.
Door: the verbs of `cli` (`bassl-fast --help`); from Python, `SceneDetector`, `pretrain.pretrain` and its neighbours.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SceneDetector"]


def __getattr__(name: str) -> Any:
    """`SceneDetector`, imported when it is first asked for: it needs more packages than most of what is here."""
    if name == "SceneDetector":
        from .scenes import SceneDetector

        return SceneDetector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
