"""NVIDIA DALI as in its manual: decode, random_resized_crop, color_twist, gaussian_blur, crop_mirror_normalize.

Every view draws its own numbers; in a window, views must share them. The bytes are read as in ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pipelines.dali import fn, pipeline_def, types
from pipelines.graph import MEAN, STD
from pipelines.store import Store
from pipelines.stream import Request, Stream
from pipelines.views import TrainViews

from . import Work


@pipeline_def(enable_conditionals=True)
def graph(source: Callable, views: TrainViews):
    (jpegs,) = fn.external_source(source=source, num_outputs=1, dtype=types.UINT8, ndim=1)
    pictures = fn.decoders.image(jpegs)
    size = (views.size, views.size)
    pictures = fn.random_resized_crop(pictures, size=size, random_area=views.area, random_aspect_ratio=views.aspect)
    if fn.random.coin_flip(probability=views.jitter, dtype=types.BOOL):
        pictures = fn.color_twist(
            pictures,
            brightness=fn.random.uniform(range=(1 - views.brightness, 1 + views.brightness)),
            contrast=fn.random.uniform(range=(1 - views.contrast, 1 + views.contrast)),
            saturation=fn.random.uniform(range=(1 - views.saturation, 1 + views.saturation)),
            hue=fn.random.uniform(range=(-360 * views.hue, 360 * views.hue)),
        )
    if fn.random.coin_flip(probability=views.blur, dtype=types.BOOL):
        pictures = fn.gaussian_blur(pictures, sigma=fn.random.uniform(range=views.sigma))
    mirror = fn.random.coin_flip(probability=views.flip)
    return fn.crop_mirror_normalize(
        pictures, dtype=types.FLOAT, output_layout="HWC", mirror=mirror, mean=MEAN.tolist(), std=STD.tolist()
    )


@pipeline_def(batch_size=1000, num_threads=1, device_id=None)
def crops(height: int, width: int, views: TrainViews):
    shape = types.Constant([height, width], dtype=types.INT64)
    _, shape = fn.random_crop_generator(shape, random_area=views.area, random_aspect_ratio=views.aspect)
    return shape


class NaiveDali:
    name = "DALI, naive graph"
    includes = "read, decode, view steps with their draws, normalise; not: building the graph"
    stretch = 1

    def __init__(self, work: Work) -> None:
        self.torch_threads = work.threads
        self._work = work
        self._stream: Stream | None = None

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, None]]:
        requests = (Request(step["frame"].ravel(), step.ravel(), lambda jpegs: (jpegs,)) for step in rows)
        if self._stream is None:
            work = self._work
            kwargs = {"num_threads": work.threads, "prefetch_queue_depth": 2, "seed": work.seed}
            self._stream = Stream(
                Store(work.index),
                requests,
                lambda **kw: graph(views=work.views, **kw),
                torch.device("cpu"),
                batch_size=rows[0].size,
                **kwargs,
            )
        else:
            self._stream.restart(requests)
        for _, images in self._stream:
            yield images.view(*rows.shape[1:], *images.shape[1:]), None

    def crop_area(self) -> float:
        """Mean share of an image in the library's own crops."""
        film = self._work.index.sequences[0]
        height, width = int(film["height"]), int(film["width"])
        pipe = crops(height, width, self._work.views, seed=self._work.seed)
        pipe.build()
        (shapes,) = pipe.run()
        return float(np.mean([np.prod(np.array(shape)[:2]) for shape in shapes])) / (height * width)
