"""Features of colours: of every key-frame of a shot the histogram of hue, then of every one a small grey image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from pipelines.store import Store
from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT
from shard_tools.errors import PictureError
from shard_tools.shards.index import ShardIndex
from shard_tools.video.colours import BINS, LIGHT, hue_and_light

_HUES = KEYFRAMES_PER_SHOT * BINS  # also all that features of earlier versions have
DIM = _HUES + KEYFRAMES_PER_SHOT * LIGHT[0] * LIGHT[1]


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
            found = list(pool.map(partial(_of_keyframe, store), frames.tolist(), store.read(frames)))
            shots = range(0, len(found), KEYFRAMES_PER_SHOT)
            yield film, np.stack([_row(found[i : i + KEYFRAMES_PER_SHOT]) for i in shots])


def colours_of_shot(jpegs: Sequence[bytes]) -> np.ndarray:
    """Features `[DIM]` float32 of a shot, from its key-frames.

    Raises:
        PictureError: a key-frame is damaged.
    """
    return _row([hue_and_light(jpeg) for jpeg in jpegs])


def colour_kinds(features: np.ndarray) -> dict[str, np.ndarray]:
    """Two kinds from features of colours `[S, DIM]`: hue `[S, K, 256]` and light `[S, K, 144]`.

    Features of earlier versions have only hue.
    """
    shape = len(features), KEYFRAMES_PER_SHOT, -1
    found = {"hue": features[:, :_HUES].reshape(shape)}
    return found | {"light": features[:, _HUES:].reshape(shape)} if features.shape[1] > _HUES else found


def _row(keyframes: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([*(hue for hue, _ in keyframes), *(light for _, light in keyframes)])


def _of_keyframe(store: Store, frame: int, jpeg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        return hue_and_light(bytes(jpeg))
    except PictureError as error:
        raise PictureError(store.describe(frame, str(error))) from None
