"""Features of shots as a film is decoded: of colours, of an encoder, or of both side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT
from shard_tools.video.colours import BINS, hue_histogram

_COLOURS = KEYFRAMES_PER_SHOT * BINS  # values of a shot

Encode = Callable[[Iterator[tuple[bytes, ...]]], Iterator[np.ndarray]]  # key-frames of shots -> `[D]` of each


def shot_features(shots: Iterator[tuple[bytes, ...]], encode: Encode | None, colours: bool) -> Iterator[np.ndarray]:
    """`[K * 256]`, histograms of hue of the K key-frames, and after them `[D]` of `encode`, for each shot.

    Args:
        shots: JPEG bytes of the key-frames of each.
        encode: None for colours alone.
        colours: False for features of `encode` alone.
    """
    if encode is None:
        yield from map(_histograms, shots)
        return
    if not colours:
        yield from encode(shots)
        return
    waiting: deque[np.ndarray] = deque()  # of shots that the encoder still has

    def passing() -> Iterator[tuple[bytes, ...]]:
        for jpegs in shots:
            waiting.append(_histograms(jpegs))
            yield jpegs

    for found in encode(passing()):
        yield np.concatenate([waiting.popleft(), found.astype(np.float32)])


def kinds_of(features: np.ndarray, colours: bool) -> list[np.ndarray]:
    """The parts of `shot_features`: `[S, K, 256]` if colours are in it, then `[S, D]` of the encoder."""
    if not colours:
        return [features]
    found = [features[:, :_COLOURS].reshape(len(features), KEYFRAMES_PER_SHOT, BINS)]
    return [*found, features[:, _COLOURS:]] if features.shape[1] > _COLOURS else found


def _histograms(jpegs: tuple[bytes, ...]) -> np.ndarray:
    return np.concatenate([hue_histogram(jpeg) for jpeg in jpegs])
