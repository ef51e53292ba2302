"""Ours, in float32 and bfloat16; and decoding alone, the limit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import numpy as np
import torch
from torch import Tensor

from pipelines.dali import fn, pipeline_def, types
from pipelines.loader import WindowLoader
from pipelines.store import Store

from . import Work


class Ours:
    name = "ours, float32"
    includes = "building the loader and its graph, drawing the rows, read with checksums, decode, view steps, normalise"
    stretch = 4
    dtype = torch.float32

    def __init__(self, work: Work) -> None:
        self.torch_threads, self._work = work.threads, work

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        loader = open_loader(self._work, dtype=self.dtype)
        first = number * len(rows)
        loader.load_state_dict({"epoch": first // len(loader), "step": first % len(loader)})
        # Iterating again continues with the next epoch. It also works ahead of the last batch asked for.
        for made_by, batch in zip(rows, chain.from_iterable(repeat(loader)), strict=False):
            yield batch["images"], made_by


class OursBfloat16(Ours):
    name = "ours, bfloat16"
    dtype = torch.bfloat16


def open_loader(work: Work, **kwargs) -> WindowLoader:
    films = work.index.select(None)
    kwargs = {"global_batch": work.batch, "seed": work.seed, "threads": work.threads, **kwargs}
    return WindowLoader(work.index, films, work.sampler, work.views.size, **kwargs)


@pipeline_def
def regions(source: Callable):
    jpeg, anchor, shape = fn.external_source(
        source=source, num_outputs=3, dtype=[types.UINT8, types.INT32, types.INT32], ndim=[1, 1, 1]
    )
    # As `pipelines.graph` decodes.
    return fn.decoders.image_slice(
        jpeg,
        anchor,
        shape,
        axis_names="HW",
        normalized_anchor=False,
        normalized_shape=False,
        jpeg_fancy_upsampling=True,
    )


class Decode:
    name = "decoding alone"
    includes = "read and decode of the crop regions by DALI, nothing else; not: drawing the rows, building the graph"
    stretch = 4

    def __init__(self, work: Work) -> None:
        self.torch_threads, self._threads, self._store = work.threads, work.threads, Store(work.index)
        self._pipe, self._rows = None, iter(())

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, None]]:
        self._rows = iter(rows)
        if self._pipe is None:
            kwargs = {"batch_size": rows[0].size, "num_threads": self._threads, "device_id": None}
            self._pipe = regions(self._feed, prefetch_queue_depth=2, **kwargs)
            self._pipe.build()
        with contextlib.suppress(StopIteration):
            while True:
                (crops,) = self._pipe.run()
                yield torch.from_numpy(np.array(crops[len(crops) - 1])), None
        self._pipe.reset()

    def _feed(self) -> tuple:
        rows = next(self._rows).ravel()
        anchor, shape = (np.stack([rows[a], rows[b]], 1) for a, b in (("top", "left"), ("height", "width")))
        return self._store.read(rows["frame"]), anchor, shape
