"""Features of shots as a film is decoded: of colours, of an encoder, or of both side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from bassl_fast.segmentation.colours import DIM, histograms
from shard_tools.video.colours import hue_histogram

Encode = Callable[[Iterator[tuple[bytes, ...]]], Iterator[np.ndarray]]  # key-frames of shots -> `[D]` of each


def shot_features(shots: Iterator[tuple[bytes, ...]], encode: Encode | None, colours: bool) -> Iterator[np.ndarray]:
    """`[K * 256]`, histograms of hue of the K key-frames, and after them `[D]` of `encode`, for each shot.

    Args:
        shots: JPEG bytes of the key-frames of each.
        encode: None for colours alone.
        colours: False for features of `encode` alone.
    """
    if encode is None:
        yield from map(_of_shot, shots)
        return
    if not colours:
        yield from encode(shots)
        return
    waiting: deque[np.ndarray] = deque()  # of shots that the encoder still has

    def passing() -> Iterator[tuple[bytes, ...]]:
        for jpegs in shots:
            waiting.append(_of_shot(jpegs))
            yield jpegs

    for found in encode(passing()):
        yield np.concatenate([waiting.popleft(), found.astype(np.float32)])


def kinds_of(features: np.ndarray, colours: bool) -> list[np.ndarray]:
    """The parts of `shot_features`: `[S, K, 256]` if colours are in it, then `[S, D]` of the encoder."""
    if not colours:
        return [features]
    found = [histograms(features[:, :DIM])]
    return [*found, features[:, DIM:]] if features.shape[1] > DIM else found


def _of_shot(jpegs: tuple[bytes, ...]) -> np.ndarray:
    return np.concatenate([hue_histogram(jpeg) for jpeg in jpegs])
