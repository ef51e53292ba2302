"""Turn requests for pictures into tensors, with a few requests always in flight inside DALI."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol
from weakref import WeakMethod

import numpy as np
import torch

from shard_tools.errors import PictureError

from .dali import backend
from .graph import Decoder
from .substitutes import Substitutes, decoder_fault, undecodable


@dataclass(frozen=True)
class Request:
    """One DALI batch.

    Attributes:
        frames: `[N]` key-frame rows that it needs.
        regions: `[N]` rows with `top`, `left`, `height`, `width`: the pixels that the graph decodes of each.
        inputs: turns their JPEG bytes into inputs of the graph.
        tag: returned with the batch.
        finish: makes images `[N, H, W, 3]` of what the graph returns, on the current stream; None if the graph does.
    """

    frames: np.ndarray
    regions: np.ndarray
    inputs: Callable[[list[np.ndarray]], tuple]
    tag: Any = None
    finish: Callable[[Any], torch.Tensor] | None = None


class Pictures(Protocol):
    """What a stream reads from, see `Store`."""

    def read(self, frames: np.ndarray) -> list[np.ndarray]: ...

    def describe(self, frame: int, fault: str) -> str: ...


class Stream:
    """Iterator of (tag, images `[N, 3, size, size]` in channels-last memory) in the order of the requests.

    Args:
        store: reads the bytes.
        requests: the batches to make; DALI takes `prefetch` of them ahead.
        make_graph: returns the DALI pipeline, given `source`, `device_id` and the other arguments of a pipeline.
        device: of the tensors.
        decoder: of the graph.
        substitutes: replaces broken key-frames by others; None raises.

    Attributes:
        replaced: views returned that show a substitute.

    Raises:
        PictureError: a picture differs from the index or cannot be decoded, and there is no substitute. The stream is
            unusable afterwards, as after any other error.
        DeviceError: the GPU has no memory left, or CUDA failed.
    """

    def __init__(
        self,
        store: Pictures,
        requests: Iterator[Request],
        make_graph: Callable,
        device: torch.device,
        decoder: Decoder = "cpu",
        substitutes: Substitutes | None = None,
        **kwargs: int,
    ) -> None:
        self._store, self._requests, self._device, self._substitutes = store, requests, device, substitutes
        self._decoder: Decoder = decoder
        self._device_id = device_id(device)
        self._make_graph = partial(make_graph, device_id=self._device_id, **kwargs)
        self._copier = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.replaced = 0
        self._build()

    def _build(self) -> None:
        """Build a pipeline with nothing in flight."""
        self._in_flight: deque[tuple[Request, np.ndarray]] = deque()  # with the key-frames shown
        self._feeding = False
        feed = WeakMethod(self._feed)  # no cycle, so that threads and maps end with the stream, without the collector
        self._pipe = self._make_graph(source=lambda: feed()())  # type: ignore[misc]  # called while the stream lives
        self._pipe.build()
        # DALI 2 counts references to an output; on a GPU it cannot know when a kernel is done with it.
        self._owned = self._device.type == "cpu" and getattr(self._pipe, "exec_dynamic", False)

    def restart(self, requests: Iterator[Request]) -> None:
        """Continue with other requests; what is in flight is finished and dropped."""
        self._requests = iter(())
        broken = False
        try:
            while True:
                self._pipe.run()
        except StopIteration:
            self._pipe.reset()
            self._in_flight.clear()
        except RuntimeError:  # a broken picture in a dropped batch
            broken = True
        if broken:
            self._discard()
            self._build()
        self._requests = requests

    def _discard(self) -> None:
        """Free a pipeline that failed, and its memory, which what comes next may need.

        Not within `except`: the error's traceback refers to the pipeline.
        """
        self._pipe = None
        if self._device_id is not None:
            backend.ReleaseUnusedMemory()

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[Any, torch.Tensor]:
        while True:
            try:
                (pictures,) = self._pipe.run()
                break
            except RuntimeError as error:
                if self._feeding:  # not an error of DALI
                    raise
                failed = error.with_traceback(None)
            self._discard()
            self._recover(failed)
        request, shown = self._in_flight.popleft()
        self.replaced += int(np.count_nonzero(request.frames != shown))
        if request.finish is None:
            return request.tag, _to_torch(pictures, self._device, self._copier, self._owned)
        return request.tag, self._finished(pictures, request.finish).permute(0, 3, 1, 2)

    def _finished(self, pictures: Any, finish: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        if self._copier is None:
            return finish(pictures)
        with torch.cuda.stream(self._copier):
            images = finish(pictures)
        self._copier.synchronize()  # before DALI uses the memory of `pictures` again
        images.record_stream(torch.cuda.current_stream(self._device))
        return images

    def _feed(self) -> tuple:
        self._feeding = True
        if (request := next(self._requests, None)) is None:
            self._feeding = False
            raise StopIteration  # tells DALI that there are no more
        if self._substitutes:
            shown, jpegs = self._substitutes.read(request.frames, request.regions)
        else:
            shown, jpegs = request.frames, self._store.read(request.frames)
        inputs = request.inputs(jpegs)
        self._in_flight.append((request, shown))
        self._feeding = False
        return inputs

    def _recover(self, error: RuntimeError) -> None:
        """Find what cannot be decoded of what is in flight, and make all of it again with substitutes.

        A pipeline that failed is not used again: DALI would return what it made of the other pictures.
        """
        decoder_fault(error)  # raises what is not of a decoder
        for request, shown in self._in_flight:
            faults = undecodable(self._store.read(shown), request.regions, self._decoder, self._device_id)
            broken = {int(shown[at]): f"cannot be decoded ({fault})" for at, fault in faults.items()}
            if not broken:
                continue
            if self._substitutes is None:
                raise PictureError(self._store.describe(*next(iter(broken.items())))) from None
            if self._substitutes.add_undecodable(broken):
                break
        else:
            raise error
        self._requests = chain([request for request, _ in self._in_flight], self._requests)
        self._build()


def device_id(device: torch.device) -> int | None:
    """DALI's number of a GPU; None for a CPU."""
    return (device.index or 0) if device.type == "cuda" else None


def _to_torch(pictures, device: torch.device, copier: torch.cuda.Stream | None, owned: bool) -> torch.Tensor:
    """A dense DALI output `[N, H, W, 3]` as a tensor `[N, 3, H, W]` in channels-last memory.

    Args:
        pictures: float32, or the bits of bfloat16 as int16.
        copier: CUDA stream to copy on; on the stream of training the host would wait for the current step.
        owned: DALI keeps an output while it is referenced, so the tensor is that memory. Otherwise it is a copy, as
            DALI overwrites its buffer two batches later.
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
        images.record_stream(trainer)  # its memory is not reused before training is done with it
    if images.dtype == torch.int16:
        images = images.view(torch.bfloat16)
    return images.permute(0, 3, 1, 2)


def _copy(source, device: torch.device, **kwargs) -> torch.Tensor:
    from nvidia.dali.plugin.pytorch import feed_ndarray, to_torch_type

    target = torch.empty(source.shape(), dtype=to_torch_type[source.dtype], device=device)
    feed_ndarray(source, target, **kwargs)
    return target
