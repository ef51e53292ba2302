"""Features of shots as a film is decoded: of colours, of an encoder, or of both side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from bassl_fast.segmentation.colours import DIM, colour_kinds, colours_of_shot

Encode = Callable[[Iterator[tuple[bytes, ...]]], Iterator[np.ndarray]]  # key-frames of shots -> `[D]` of each


def shot_features(shots: Iterator[tuple[bytes, ...]], encode: Encode | None, colours: bool) -> Iterator[np.ndarray]:
    """`[DIM]` of colours, and after them `[D]` of `encode`, for each shot.

    Args:
        shots: JPEG bytes of the key-frames of each.
        encode: None for colours alone.
        colours: False for features of `encode` alone.
    """
    if encode is None:
        yield from map(colours_of_shot, shots)
        return
    if not colours:
        yield from encode(shots)
        return
    waiting: deque[np.ndarray] = deque()  # of shots that the encoder still has

    def passing() -> Iterator[tuple[bytes, ...]]:
        for jpegs in shots:
            waiting.append(colours_of_shot(jpegs))
            yield jpegs

    for found in encode(passing()):
        yield np.concatenate([waiting.popleft(), found.astype(np.float32)])


def kinds_of(features: np.ndarray, colours: bool) -> list[np.ndarray]:
    """The kinds in `shot_features`: hue and light `[S, K, D]` if colours are in it, then `[S, D]` of the encoder."""
    if not colours:
        return [features]
    found = list(colour_kinds(features[:, :DIM]).values())
    return [*found, features[:, DIM:]] if features.shape[1] > DIM else found
