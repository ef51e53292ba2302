"""`bassl-fast info --model`: parameters and multiply-accumulates of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bassl_fast.encoders import Encoder


def cost(model: Callable[[], Encoder], classes: int | None = None, frames: int | None = None) -> None:
    """Print parameters, those outside batch normalisation, and multiply-accumulates at 224 and 256 pixels.

    Args:
        model: class and arguments of the encoder.
        classes: add a linear classifier with this many classes.
        frames: length of a clip; if left out, as published: 8 for ResNet3D, 16 for X3D and VoV3D.

    Raises:
        ConfigError: `frames` given for an image encoder, or below 1.
    """
    from .complexity import print_complexity  # here, so that `--help` does not wait for torch

    print_complexity(model, classes, frames)
