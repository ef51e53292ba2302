"""Features of colours: the histograms of hue of the key-frames of a shot, end to end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from pipelines.store import Store
from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT
from shard_tools.errors import PictureError
from shard_tools.shards.index import ShardIndex
from shard_tools.video.colours import BINS, hue_histogram

DIM = KEYFRAMES_PER_SHOT * BINS


def colours_of(index: ShardIndex, films: list[int], threads: int) -> Iterator[tuple[int, np.ndarray]]:
    """Number and features `[S, DIM]` float32 of each of `films`.

    Raises:
        PictureError: a key-frame is damaged.
    """
    store = Store(index)
    with ThreadPoolExecutor(threads) as pool:
        for film in films:
            row = index.sequences[film]
            frames = int(row["first_frame"]) + np.arange(int(row["shots"]) * KEYFRAMES_PER_SHOT)
            found = pool.map(partial(_histogram, store), frames.tolist(), store.read(frames))
            yield film, np.stack(list(found)).reshape(-1, DIM)


def histograms(features: np.ndarray) -> np.ndarray:
    """`[S, K, 256]`, a histogram of each key-frame, from features of colours `[S, DIM]`."""
    return features.reshape(len(features), KEYFRAMES_PER_SHOT, BINS)


def _histogram(store: Store, frame: int, jpeg: np.ndarray) -> np.ndarray:
    try:
        return hue_histogram(bytes(jpeg))
    except PictureError as error:
        raise PictureError(store.describe(frame, str(error))) from None
