"""Colours and light of a key-frame."""

from __future__ import annotations

import numpy as np

from shard_tools.errors import PictureError

from .opening import load_library

BINS = 256  # of OpenCV's hue, 0 to 179; the rest stays empty
LIGHT = (16, 9)  # columns and rows of the small grey image


def hue_and_light(jpeg: bytes) -> tuple[np.ndarray, np.ndarray]:
    """What colours an image has, and where it is light.

    Returns:
        hue: `[256]` float32, shares of the hues as OpenCV computes them (0 to 179); they sum to 1.
        light: `[144]` float32 in 0..1, the image in grey, shrunk to 16 x 9 whatever its shape, row by row.

    Raises:
        PictureError: not an image that OpenCV can decode.
        MissingDependency: OpenCV is not installed.
    """
    cv2 = load_library("cv2")
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise PictureError("cannot be decoded by OpenCV")
    hue = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[..., 0]
    shares = (np.bincount(hue.ravel(), minlength=BINS) / hue.size).astype(np.float32)
    small = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), LIGHT, interpolation=cv2.INTER_AREA)
    return shares, small.ravel().astype(np.float32) / 255
