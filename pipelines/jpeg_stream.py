"""Test views of pictures given as JPEG bytes, without shards."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch

from shard_tools.shards.jpeg import picture_size

from .graph import default_decoder, test_graph, test_inputs
from .stream import Request, Stream
from .views import VIEW, TestViews


def view_jpegs(
    jpegs: Iterator[bytes], views: TestViews, batch: int, device: torch.device, threads: int
) -> Iterator[torch.Tensor]:
    """Test views `[n, 3, size, size]` of pictures of one size, given as JPEG bytes; n <= `batch`."""
    store = _Passing(keep=8 * batch)

    def requests() -> Iterator[Request]:
        while some := list(islice(jpegs, batch)):
            height, width = picture_size(some[0], "key-frame")
            regions = np.zeros(len(some), VIEW)
            regions["height"], regions["width"] = height, width
            yield Request(store.put(some), regions, partial(test_inputs, views, regions, np.full(len(some), 0.5)))

    decoder = default_decoder(device)
    make_graph = partial(test_graph, views=views, decoder=decoder)
    stream = Stream(
        store, requests(), make_graph, device, decoder, batch_size=batch, num_threads=threads, prefetch_queue_depth=2
    )
    for _, images in stream:
        yield images


class _Passing:
    """A store of a stream of pictures, which keeps the last `keep`."""

    def __init__(self, keep: int) -> None:
        self._pictures: deque[np.ndarray] = deque(maxlen=keep)
        self._seen = 0

    def put(self, jpegs: list[bytes]) -> np.ndarray:
        """Add pictures; returns their rows `[N]`."""
        self._pictures.extend(np.frombuffer(jpeg, np.uint8) for jpeg in jpegs)
        self._seen += len(jpegs)
        return np.arange(self._seen - len(jpegs), self._seen)

    def read(self, frames: np.ndarray) -> list[np.ndarray]:
        return [self._pictures[frame - self._seen] for frame in frames.tolist()]

    def describe(self, frame: int, fault: str) -> str:
        return f"key-frame {frame}: {fault}"
