"""Colours of a key-frame."""

from __future__ import annotations

import numpy as np

from shard_tools.errors import PictureError

from .frames import load_library

BINS = 256  # of OpenCV's hue, 0 to 179; the rest stays empty


def hue_histogram(jpeg: bytes) -> np.ndarray:
    """Shares `[256]` float32 of the hues of an image, as OpenCV computes them (0 to 179); they sum to 1.

    Raises:
        PictureError: not an image that OpenCV can decode.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = load_library("cv2")
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise PictureError("cannot be decoded by OpenCV")
    hue = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[..., 0]
    return (np.bincount(hue.ravel(), minlength=BINS) / hue.size).astype(np.float32)
