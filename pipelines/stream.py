"""Requests for pictures -> tensors, with a few requests always under way inside DALI."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakMethod

import numpy as np
import torch

from shard_tools.errors import PictureError

from .graph import decode_fault
from .store import Store


@dataclass(frozen=True)
class Request:
    """One DALI batch: the key-frame rows `[N]` it needs and how their JPEG bytes become inputs of the graph."""

    frames: np.ndarray
    inputs: Callable[[list[np.ndarray]], tuple]
    tag: Any = None


class Stream:
    """Iterator of (tag, images `[N, 3, size, size]` float32) in the order of the requests.

    Args:
        store: where bytes come from.
        requests: what to make; DALI asks for `prefetch` of them ahead.
        make_graph: given `source`, `device_id` and the pipeline's other arguments, returns the DALI pipeline.
        device: of the tensors.

    Raises:
        PictureError: a picture differs from the index or cannot be decoded. The stream is over then.
    """

    def __init__(
        self, store: Store, requests: Iterator[Request], make_graph: Callable, device: torch.device, **kwargs: int
    ) -> None:
        self._store, self._requests, self._device = store, requests, device
        self._under_way: deque[Request] = deque()
        device_id = (device.index or 0) if device.type == "cuda" else None
        feed = WeakMethod(self._feed)  # no cycle: threads and maps end with the stream, not at some garbage collection
        self._pipe = make_graph(source=lambda: feed()(), device_id=device_id, **kwargs)
        self._pipe.build()

    def restart(self, requests: Iterator[Request]) -> None:
        """Go on with other requests; what is under way is finished and thrown away."""
        self._requests = iter(())
        for _ in self:
            pass
        self._pipe.reset()
        self._requests = requests

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[Any, torch.Tensor]:
        try:
            (pictures,) = self._pipe.run()
        except RuntimeError as error:
            raise PictureError(self._blame(str(error))) from None
        return self._under_way.popleft().tag, _to_torch(pictures, self._device)

    def _feed(self) -> tuple:
        request = next(self._requests)  # StopIteration is how DALI learns that no more will come
        inputs = request.inputs(self._store.read(request.frames))
        self._under_way.append(request)
        return inputs

    def _blame(self, message: str) -> str:
        """Find the picture that cannot be decoded among those under way: DALI does not name it."""
        for request in self._under_way:
            for frame in np.unique(request.frames):
                (jpeg,) = self._store.read(frame[None])
                if fault := decode_fault(jpeg):
                    return self._store.describe(int(frame), f"cannot be decoded ({fault})")
        return f"DALI failed although every picture under way decodes alone: {message}"


def _to_torch(pictures, device: torch.device) -> torch.Tensor:
    """Copy a dense DALI output to a tensor of its own: DALI writes its buffer anew two batches later."""
    from nvidia.dali.plugin.pytorch import feed_ndarray

    source = pictures.as_tensor()
    target = torch.empty(source.shape(), dtype=torch.float32, device=device)
    feed_ndarray(source, target, cuda_stream=torch.cuda.current_stream(device) if device.type == "cuda" else None)
    return target
