"""Which shots a sample takes from its film (BaSSL, section 3; arXiv:2201.05277)."""

from __future__ import annotations

import numpy as np


def dense_window(center: np.ndarray, shots: np.ndarray, radius: int = 8) -> np.ndarray:
    """Positions `[B, 2 * radius + 1]` of consecutive shots around `center`, for pretraining and for loops of your own.

    Near an end the window is shifted inside the film, not clipped; a film shorter than the window repeats its
    last shot.

    Args:
        center: `[B]` position of the centre shot in its film.
        shots: `[B]` number of shots of that film.
    """
    length = 2 * radius + 1
    start = np.clip(center - radius, 0, np.maximum(shots - length, 0))
    return np.minimum(start[:, None] + np.arange(length), shots[:, None] - 1)


def clipped_window(center: np.ndarray, shots: np.ndarray, radius: int = 8) -> np.ndarray:
    """Positions `[B, 2 * radius + 1]` around `center`, for fine-tuning; first or last shot repeated at an end."""
    positions = center[:, None] + np.arange(-radius, radius + 1)
    return np.clip(positions, 0, shots[:, None] - 1)
