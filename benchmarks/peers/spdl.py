"""SPDL: decode, crop and resize by FFmpeg in the threads of its pipeline, the rest in torch in the same threads.

apt-get install ffmpeg && pip install spdl-io spdl-core          (FFmpeg's shared libraries, 4 to 9)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import spdl.io
import torch
from spdl.pipeline import PipelineBuilder
from torch import Tensor

from benchmarks.peers.steps import colour_and_blur
from pipelines.store import Store

from . import Work

spdl.io.demux_config()  # loads FFmpeg; fails here without it

FILTER = (
    "crop={width}:{height}:{left}:{top}:exact=1,"  # without exact, chroma planes move the crop to even pixels
    "scale={size}:{size}:flags=bilinear,format=pix_fmts=rgb24"
)


class Spdl:
    name = "SPDL + torch"
    includes = "read, decode, view steps, normalise, starting its threads; not: drawing the rows"
    torch_threads = 1  # torch is called by the threads of the pipeline
    stretch = 1

    def __init__(self, work: Work) -> None:
        self._store, self._batch, self._size, self._threads = (
            Store(work.index),
            work.batch,
            work.views.size,
            work.threads,
        )
        self._config = spdl.io.demux_config(format="jpeg_pipe")  # so that it is not guessed for each image

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
        pipeline = (
            PipelineBuilder()
            .add_source(self._windows(rows))
            .pipe(self._make, concurrency=self._threads, output_order="input")
            .aggregate(self._batch)
            .add_sink(2)
            .build(num_threads=self._threads)
        )
        with pipeline.auto_stop():
            for windows, made_by in zip(pipeline.get_iterator(), rows, strict=True):
                yield windows[0], made_by

    def _windows(self, rows: np.ndarray) -> Iterator[tuple[Tensor, int, np.ndarray]]:
        """For each window: its batch, its place in it, its rows."""
        for step in rows:
            images = torch.empty(*step.shape, 3, self._size, self._size)
            for place, views in enumerate(step):
                yield images, place, views

    def _make(self, window: tuple[Tensor, int, np.ndarray]) -> Tensor:
        images, place, rows = window
        pictures = np.empty((len(rows), self._size, self._size, 3), np.uint8)
        for picture, row, jpeg in zip(pictures, rows, self._store.read(rows["frame"]), strict=True):
            region = {side: int(row[side]) for side in ("width", "height", "left", "top")}
            packets = spdl.io.demux_image(bytes(jpeg), demux_config=self._config)
            frames = spdl.io.decode_packets(packets, filter_desc=FILTER.format(size=self._size, **region))
            made = spdl.io.to_numpy(spdl.io.convert_frames(frames))
            picture[:] = made[:, ::-1] if row["flip"] else made
        colour_and_blur(torch.from_numpy(pictures), rows, images[place])
        return images
