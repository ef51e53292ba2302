"""Test views of shots in order: of pictures, of clips, or of the key-frames of films.

video 0                                             video 1
clip 0             clip 1             ...           clip 0
left middle right  left middle right                left ...
|------ batch ------|------ batch ------|------ batch ------|
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from shard_tools.shards.index import ShardIndex

from . import graph
from .clip_sampling import Clips
from .loader import check_positive
from .samples import ShotTable
from .store import Store
from .stream import Request, Stream
from .views import VIEW, TestViews


class ShotLoader:
    """Iterable over the test views of every shot of chosen films, in order; a video or a picture is a film of one shot.

    Yields (film `[n]`, images `[n, T, 3, size, size]`), film numbers on the device. A shot has K clips of one or three
    crops each, consecutive in the output. Batches cross the boundaries of shots, whatever the sizes of their pictures.

    Args:
        index, films, device, threads, prefetch: as of `WindowLoader`; each process is given its own films.
        views: sizes, and crops per clip.
        clips: which frames make a clip; one for pictures.
        count: clips K per shot, see `Clips.spaced`.
        batch: views per batch.

    Raises:
        ConfigError: a number below 1, or several clips of the whole shot.
        ShardError: the clip sampling needs frames/s, and they are unknown.
        PictureError: while iterating, a picture is broken.
    """

    def __init__(
        self,
        index: ShardIndex,
        films: np.ndarray,
        views: TestViews,
        clips: Clips = Clips(frames=1),
        *,
        count: int = 1,
        batch: int = 32,
        device: str | torch.device = "cpu",
        threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        check_positive(count=count, batch=batch, threads=threads, prefetch=prefetch)
        self._table, self._device = ShotTable(index, films), torch.device(device)
        self._decoder = graph.default_decoder(self._device)
        self._store = Store(index, for_gpu=self._decoder != "cpu")
        self._views, self._clips, self._count, self._batch = views, clips, count, batch
        clips.spaced(self._table[np.empty(0, np.int64)], count)  # raises if it cannot work
        clips.check(index, films)
        self._kwargs: dict[str, Any] = {
            "batch_size": batch * clips.frames,
            "num_threads": threads,
            "prefetch_queue_depth": prefetch,
        }

    @property
    def views_a_shot(self) -> int:
        """Number of consecutive views of one shot."""
        return self._count * self._views.crops

    def __len__(self) -> int:
        """Batches."""
        return -(-len(self._table) * self.views_a_shot // self._batch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        make_graph = partial(graph.test_graph, views=self._views, decoder=self._decoder)
        stream = Stream(self._store, self._requests(), make_graph, self._device, self._decoder, **self._kwargs)
        for film, images in stream:
            yield torch.from_numpy(film).to(self._device), images.unflatten(0, (len(film), -1))

    def _requests(self) -> Iterator[Request]:
        views = len(self._table) * self.views_a_shot
        for first in range(0, views, self._batch):
            shot, view = np.divmod(np.arange(first, min(first + self._batch, views)), self.views_a_shot)
            clip, crop = np.divmod(view, self._views.crops)
            centers = self._table[shot]
            numbers = self._clips.spaced(centers, self._count)[np.arange(len(shot)), clip]
            regions: np.ndarray = np.zeros(numbers.shape, VIEW)
            regions["frame"] = centers.frames(centers.position[:, None], numbers)
            regions["height"], regions["width"] = centers.height[:, None], centers.width[:, None]
            regions, places = regions.ravel(), np.repeat(self._views.places[crop], self._clips.frames)
            inputs = partial(graph.test_inputs, self._views, regions, places)
            yield Request(regions["frame"], regions, inputs, centers.film)
