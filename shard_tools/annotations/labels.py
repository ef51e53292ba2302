"""Labels of the shots of a film, whatever data set they come from.

A boundary label is 1 for the last shot of a scene, 0 for any other shot, -1 for an unlabelled shot. The last shot of a
film is labelled 0, as in MovieNet: the end of a film is not a boundary to find.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 24.0  # frames a second in which the times of shots are counted


@dataclass(frozen=True)
class ShotLabels:
    """Annotations of the shots of one film. Arrays have one row per shot, in order.

    Attributes:
        shot: `[S]` int, shot numbers as in the file names.
        boundary: `[S]` int8, 1 = last shot of its scene, 0 = not, -1 = unlabelled.
        scene: `[S]` int32, index of the scene in its film, -1 = unlabelled.
        start, end: `[S]` int32, first and last frame of the shot at 24 frames a second, -1 = unknown.
        split: "train", "val", "test", or "" for none.
    """

    shot: np.ndarray
    boundary: np.ndarray
    scene: np.ndarray
    start: np.ndarray
    end: np.ndarray
    split: str = ""


def scenes_from_boundaries(boundary: np.ndarray) -> np.ndarray:
    """Scene index `[S]` of every shot from boundary labels `[S]`; all -1 if a label is missing."""
    if len(boundary) == 0 or (boundary < 0).any():
        return np.full(len(boundary), -1, np.int32)
    return np.concatenate([[0], np.cumsum(boundary[:-1])]).astype(np.int32)
