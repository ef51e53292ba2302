"""FFCV: its file format, decoder with random crop, and flip, compiled by Numba; the rest in torch.

Crop and flip are drawn by the library; jitter and blur follow the rows.

    apt-get install libturbojpeg0-dev libopencv-dev pkg-config && pip install ffcv
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from ffcv.fields.rgb_image import IMAGE_MODES, RandomResizedCropRGBImageDecoder, RGBImageField, get_random_crop
from ffcv.loader import Loader
from ffcv.transforms import RandomHorizontalFlip, ToTensor
from ffcv.traversal_order.base import TraversalOrder
from ffcv.writer import DatasetWriter
from torch import Tensor

from benchmarks.peers.steps import colour_and_blur
from pipelines.store import Store
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.jpeg import picture_size

from . import Work


class AsFound(RGBImageField):
    """JPEGs unchanged; the library's own field would decode and re-encode them."""

    def encode(self, destination: np.ndarray, jpeg: np.ndarray, malloc: Callable) -> None:
        destination["mode"] = IMAGE_MODES["jpg"]
        destination["height"], destination["width"] = picture_size(bytes(jpeg), "key-frame")
        destination["data_ptr"], storage = malloc(jpeg.nbytes)
        storage[:] = jpeg


class KeyFrames:
    """Data set for the writer: every key-frame, in the order of the index."""

    def __init__(self, index: ShardIndex) -> None:
        self.store = Store(index)

    def __len__(self) -> int:
        return len(self.store.index.frames)

    def __getitem__(self, frame: int) -> tuple[np.ndarray]:
        return (self.store.read(np.array([frame]))[0],)


class Asked(TraversalOrder):
    """The key-frames of a round, set by the contestant."""

    def __init__(self, count: int) -> None:
        self.frames = np.zeros(count, np.uint64)

    def __call__(self, loader: Loader) -> Asked:
        return self

    def sample_order(self, epoch: int) -> np.ndarray:
        return self.frames


class Ffcv:
    name = "FFCV + torch"
    includes = "read, decode, view steps, normalise; not: writing its file, compiling, drawing the jitter and blur rows"
    stretch = 1

    def __init__(self, work: Work) -> None:
        self.torch_threads = work.threads
        self._views = work.views
        self._film = work.index.sequences[0]
        self._path = str(work.scratch / "keyframes.beton")
        self._kwargs = {"num_workers": work.threads, "os_cache": True}
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            DatasetWriter(self._path, {"image": AsFound()}, num_workers=work.threads).from_indexed_dataset(
                KeyFrames(work.index)
            )
        self._loader: Loader | None = None
        self._pool = ThreadPoolExecutor(work.threads, initializer=torch.set_num_threads, initargs=(1,))

    def round(self, number: int, rows: np.ndarray) -> Iterator[tuple[Tensor, None]]:
        if self._loader is None:
            self._asked = Asked(rows.size)
            self._loader = self._open(rows[0].size)
        self._asked.frames = rows["frame"].ravel().astype(np.uint64)
        for (pictures,), step in zip(self._loader, rows, strict=True):
            images = torch.empty(*step.shape, 3, *pictures.shape[1:3])
            windows = pictures.view(*step.shape, *pictures.shape[1:])
            # A window a thread, so that no thread waits for another inside torch.
            for _ in self._pool.map(colour_and_blur, windows, step, images):
                pass
            yield images, None

    def _open(self, batch: int) -> Loader:
        size, views = (self._views.size,) * 2, self._views
        steps = [
            RandomResizedCropRGBImageDecoder(size, scale=views.area, ratio=views.aspect),
            RandomHorizontalFlip(views.flip),
            ToTensor(),
        ]
        return Loader(
            self._path,
            batch_size=batch,
            order=self._asked,
            pipelines={"image": steps},
            custom_fields={"image": RGBImageField},
            **self._kwargs,
        )

    def crop_area(self) -> float:
        """Mean share of an image in the library's own crops."""
        height, width = int(self._film["height"]), int(self._film["width"])
        ranges = np.array(self._views.area), np.array(self._views.aspect)
        areas = [h * w for _, _, h, w in (get_random_crop(height, width, *ranges) for _ in range(1000))]
        return float(np.mean(areas)) / (height * width)
