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
    """Iterator of (tag, images `[N, 3, size, size]` in channels-last memory) in the order of the requests.

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
        self._copier = torch.cuda.Stream(device) if device.type == "cuda" else None
        # Since 2.0 DALI counts who holds an output; on a GPU it cannot know when a kernel is done with it.
        self._owned = device.type == "cpu" and getattr(self._pipe, "exec_dynamic", False)

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
        return self._under_way.popleft().tag, _to_torch(pictures, self._device, self._copier, self._owned)

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


def _to_torch(pictures, device: torch.device, copier: torch.cuda.Stream | None, owned: bool) -> torch.Tensor:
    """A dense DALI output `[N, H, W, 3]` as a tensor `[N, 3, H, W]` in channels-last memory.

    Args:
        pictures: float32, or the bits of bfloat16 as int16.
        copier: CUDA stream to copy on; on the trainer's own the host would wait for the step under way.
        owned: DALI leaves an output alone while somebody holds it, so the tensor is that memory. Else it is a copy,
            for DALI writes its buffer anew two batches later.
    """
    source = pictures.as_tensor()
    if owned:
        images = torch.from_dlpack(source)
    elif copier is None:
        images = _copy(source, device)
    else:
        trainer = torch.cuda.current_stream(device)
        with torch.cuda.stream(copier):
            images = _copy(source, device, cuda_stream=copier)
        trainer.wait_stream(copier)
        images.record_stream(trainer)  # not to be allocated anew before the trainer is done with it
    if images.dtype == torch.int16:
        images = images.view(torch.bfloat16)
    return images.permute(0, 3, 1, 2)


def _copy(source, device: torch.device, **kwargs) -> torch.Tensor:
    from nvidia.dali.plugin.pytorch import feed_ndarray, to_torch_type

    target = torch.empty(source.shape(), dtype=to_torch_type[source.dtype], device=device)
    feed_ndarray(source, target, **kwargs)
    return target
