"""Batches on the device in the order of the plan, for one of any number of processes.

    plan -> centres -> sampler -> view rows -> [slice of this process] -> bytes -> DALI -> tensor

Everything before the slice is drawn for the global batch, so a sample does not depend on the number of processes. The
stream of requests continues from epoch to epoch, so there is no end of data inside DALI. All this runs in a thread of
the loader, one batch ahead of training.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple
from weakref import finalize, proxy, ref

import numpy as np
import torch
import torch.distributed as dist

from shard_tools.counters import count
from shard_tools.errors import ConfigError, PictureError, masked
from shard_tools.shards.index import ShardIndex

from . import graph, rng
from .ahead import Ahead, end
from .mixing import JoinedIndex, part_of, plan_of
from .plan import process_slice
from .samples import Drawn, Sampler, ShotTable
from .store import MAPPED, Store
from .stream import Request, Stream, device_id
from .substitutes import Substitutes
from .views import IMAGENET_MEAN, IMAGENET_STD, VIEW, TestViews, following

_AHEAD = 4  # steps by which remote shards are downloaded ahead of DALI; with pools, a whole pool
_COUNTED = 50  # steps after which the processes add up their broken pictures

_log = logging.getLogger(__name__)


class _Made(NamedTuple):
    """A batch, and how many of its views show a substitute; on a GPU also when its copies are done."""

    batch: dict[str, Any]
    views: int
    replaced: int
    copied: torch.cuda.Event | None


class WindowLoader:
    """Iterable over the training batches of one epoch; iterating again yields the next epoch.

    A batch is a dictionary, with b = global_batch / world_size: `images` `[b, V, 3, size, size]`, or
    `[b, V, T, 3, size, size]` for clips, in channels-last memory; views of other sizes, if the sampler draws any, as
    `images_96`; the sampler's extras `[b, ...]`; `film` and `position` `[b]` of the centre shots; and `label` `[b]` for
    pictures and clips. All are tensors on the device, but extras in `Drawn.on_host`, which are numpy arrays.

    Args:
        index: of the shards, or of several sets by weight, see `mixing.join`.
        films: `[N]` film numbers to take, see `ShardIndex.select`.
        sampler: draws the views of a global batch.
        size: side of the views in pixels.
        smaller: views are smaller at first: (side, until), with `until` the number of steps, over all epochs, after
            which the next one holds, and at last `size`. Sigmas of blurs are scaled with the side.
        global_batch: samples per step over all processes; runs of samples, if `run_length` is above 1.
        run_length: number of consecutive shots in a run, see `ShotTable`. `film` and `position` are of the first one.
        seed: of the run.
        rank, world_size: number of this process, and of all processes.
        device: of the batches.
        decoder: where JPEGs are decoded and views are made: "cpu" (for a GPU they are then copied), or for a GPU "cuda"
            or "hardware", its JPEG engines. None is "cuda" for a GPU.
        triton: the GPU makes views by kernels of Triton (`triton_views`) instead of DALI's operators.
        threads: CPU threads of DALI.
        prefetch: batches in flight.
        dtype: of the images, torch.float32 or torch.bfloat16.
        mean, std: of the channels, as in `TrainViews`.
        pool: films (shards, for pictures and clips) of a set that are shuffled together, see `plan.Pools`; None for
            all. If the cache holds only a part of the remote shards, each is then downloaded once an epoch, a pool in
            advance.
        max_broken: largest fraction of views that may show a substitute, the nearest key-frame of the film, because
            theirs is broken. Every 50 steps and at the end of an epoch the processes add up theirs and stop together
            above it. 0 raises at the first broken picture, in the process that meets it.

    Raises:
        ConfigError: no samples, another dtype, a decoder or Triton without its GPU, or a batch that does not divide
            among the processes; while iterating, the process was forked with batches in flight.
        MissingDependency: Triton is not installed, or cannot start.
        PictureError: while iterating, a picture differs from the index or cannot be decoded, or too many are broken.
        DeviceError: while iterating, the GPU has no memory left, or CUDA failed.
    """

    def __init__(
        self,
        index: ShardIndex,
        films: np.ndarray,
        sampler: Sampler,
        size: int,
        *,
        global_batch: int,
        smaller: Sequence[tuple[int, int]] = (),
        run_length: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device = "cpu",
        decoder: graph.Decoder | None = None,
        triton: bool = False,
        threads: int = 2,
        prefetch: int = 2,
        dtype: torch.dtype = torch.float32,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        pool: int | None = None,
        max_broken: float = 0.0,
    ) -> None:
        check_positive(threads=threads, prefetch=prefetch)
        if dtype not in (torch.float32, torch.bfloat16):
            raise ConfigError(f"dtype {dtype}: choose torch.float32 or torch.bfloat16")
        if not 0 <= max_broken <= 1:
            raise ConfigError(f"max_broken {max_broken}: must be within [0, 1]")
        self.index, self._table = index, ShotTable(index, films, run_length)
        self._device, self._dtype = torch.device(device), dtype
        self._decoder: graph.Decoder = decoder or graph.default_decoder(self._device)
        if self._decoder != "cpu" and self._device.type != "cuda":
            raise ConfigError(f"decoder {decoder}: needs a GPU, and the batches go to {device}; choose cpu")
        self._of_images = _of_images(self._device, self._decoder) if triton else None
        self._sampler = sampler
        sets = len(index.parts) if isinstance(index, JoinedIndex) else 1
        self._store = Store(index, min(sets * (pool or MAPPED), MAPPED), for_gpu=self._decoder != "cpu")
        self.plan = plan_of(index, films, run_length, global_batch, seed, pool)
        self._ahead = _AHEAD if pool is None else self.plan.pool_steps
        _warn_of_small_cache(index, films, pool)
        self.epoch = self.step = 0  # of the next batch
        self._mine: slice | np.ndarray = process_slice(global_batch, rank, world_size)
        self._world_size = world_size
        self._size, self._smaller, self._mean, self._std = size, tuple(smaller), mean, std
        self._max_broken = max_broken
        number = device_id(self._device)
        self._substitutes = Substitutes(self._store, self._decoder, number) if max_broken else None
        self._views = self._replaced = 0  # since the processes last added up
        self._kwargs: dict[str, Any] = {"num_threads": threads, "prefetch_queue_depth": prefetch}
        self._streams: dict[int, Stream] | None = None  # by the size that the sampler drew their views for
        self._stream_at, self._stream_side, self._process = (0, 0), size, 0
        self._copier = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._ahead_of_use: Ahead[_Made] | None = None

    def __len__(self) -> int:
        """Steps per epoch, the same for every process."""
        return self.plan.steps

    def side(self, epoch: int, step: int) -> int:
        """Side in pixels of the views at (epoch, step)."""
        at = epoch * len(self) + step
        return next((side for side, until in self._smaller if at < until), self._size)

    def draw(self, epoch: int, step: int) -> tuple[np.ndarray, Drawn]:
        """Sample numbers `[B]` of the global batch at (epoch, step), and what the sampler draws for them."""
        samples = self.plan.batch(epoch, step)
        return samples, self._sampler(self._table[samples], rng.generator(self.plan.seed, rng.SAMPLE, epoch, step))

    def state_dict(self) -> dict[str, int]:
        """Epoch and step of the next batch; all that a resume needs."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in range(self.step, len(self)):
            batch = self._take(self.epoch, step)
            if self._max_broken and (step % _COUNTED == _COUNTED - 1 or step == len(self) - 1):
                self._stop_above_max_broken()
            # Advanced before the batch is used, so that a checkpoint saved meanwhile resumes with the next one.
            self.epoch, self.step = self._after(self.epoch, step)
            if step == len(self) - 1:
                self._settle()
            try:
                yield batch
            except GeneratorExit:  # the caller stops here
                self._settle()
                raise

    def _settle(self) -> None:
        """Leave the thread idle, so that it ends with the loader."""
        if self._ahead_of_use is not None:
            self._ahead_of_use.settle()

    def _take(self, epoch: int, step: int) -> dict[str, Any]:
        """The batch at (epoch, step), for use on the current stream of this thread."""
        if self._ahead_of_use is None:
            self._process, self._ahead_of_use = os.getpid(), Ahead(partial(_make, ref(self)))
            finalize(self, end, self._ahead_of_use)
        elif self._process != os.getpid():
            raise ConfigError("this process was forked from one that uses the loader; make a loader in each process")
        made = self._ahead_of_use.take((epoch, step), self._after(epoch, step))
        if made.replaced:
            count("replaced_pictures", made.replaced)
        self._views, self._replaced = self._views + made.views, self._replaced + made.replaced
        if made.copied is not None:
            trainer = torch.cuda.current_stream(self._device)
            trainer.wait_event(made.copied)
            for rows in made.batch.values():
                if isinstance(rows, torch.Tensor):
                    rows.record_stream(trainer)  # its memory is not reused before training is done with it
        return made.batch

    def _stop_above_max_broken(self) -> None:
        """Called at the same step by all processes, so all of them decide the same."""
        counts = torch.tensor([self._views, self._replaced])  # summed between CPUs
        self._views = self._replaced = 0
        if self._world_size > 1 and dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        views, replaced = counts.tolist()
        if replaced > self._max_broken * views:
            raise PictureError(
                f"{self.index.address}: {replaced} of the last {views} views show a substitute because theirs is "
                f"broken, more than max_broken {self._max_broken:g} allows; run `bassl-fast verify` on the shards"
            )

    def _after(self, epoch: int, step: int) -> tuple[int, int]:
        return (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)

    def _at(self, epoch: int, step: int) -> _Made:
        """The batch at (epoch, step); runs in the loader's thread."""
        if self._copier is None:
            return self._made(epoch, step)
        with torch.cuda.device(self._device), torch.cuda.stream(self._copier):
            made = self._made(epoch, step)
            return made._replace(copied=self._copier.record_event())

    def _made(self, epoch: int, step: int) -> _Made:
        streams, self._streams = self._streams, None  # after an error none is left half read
        if streams is None or self.side(epoch, step) != self._stream_side:
            streams = self._open(epoch, step)
        elif self._stream_at != (epoch, step):
            for size, stream in streams.items():
                stream.restart(self._requests(epoch, step, size))
        images, made_views, made_replaced = {}, 0, 0
        for size, stream in streams.items():
            replaced = stream.replaced
            (samples, drawn), pictures = next(stream)
            rows = self._by_size(drawn)[size]
            name = "images" if size == self._size else f"images_{size}"
            images[name] = pictures.view(*rows.shape, *pictures.shape[1:]).to(self._dtype)
            made_views, made_replaced = made_views + rows.size, made_replaced + stream.replaced - replaced
        self._stream_at, self._streams = self._after(epoch, step), streams
        centers = self._table[samples]
        rest = {"film": centers.film, "position": centers.position, **drawn.extras}
        if "label" in (self.index.sequences.dtype.names or ()):
            rest["label"] = self.index.sequences["label"][centers.film].astype(np.int64)
        rest = {name: rows if name in drawn.on_host else self._copy(rows) for name, rows in rest.items()}
        return _Made(images | rest, made_views, made_replaced, None)

    def _copy(self, rows: np.ndarray) -> torch.Tensor:
        """`rows` on the device; not waited for, as their memory is pinned."""
        copied = torch.from_numpy(np.ascontiguousarray(rows))
        return copied if self._copier is None else copied.pin_memory().to(self._device, non_blocking=True)

    def _by_size(self, drawn: Drawn) -> dict[int, np.ndarray]:
        return {self._size: drawn.views, **drawn.small}

    def _requests(self, epoch: int, step: int, size: int) -> Iterator[Request]:
        return _requests(proxy(self), epoch, step, size)

    def _fetch_ahead(self, epoch: int, step: int) -> None:
        """Start to download the remote shards that this process needs at (epoch, step)."""
        if self.index.cache is not None:
            samples, _ = self.draw(epoch, step)
            self._store.fetch_ahead(self.index.sequences["first_frame"][self._table[samples[self._mine]].film])

    def _open(self, epoch: int, step: int) -> dict[int, Stream]:
        _, drawn = self.draw(epoch, step)
        streams, self._stream_side = {}, self.side(epoch, step)
        for size, rows in self._by_size(drawn[self._mine]).items():
            make_graph, _ = self._path(self._stream_side if size == self._size else size, rows)
            requests = self._requests(epoch, step, size)
            streams[size] = Stream(
                self._store,
                requests,
                make_graph,
                self._device,
                self._decoder,
                self._substitutes,
                # The next frames of clips are images of their own, if they are decoded before views are made.
                batch_size=rows.size * (1 + (self._of_images is not None and rows.ndim == 3)),
                **self._kwargs,
            )
        return streams

    def _path(self, size: int, rows: np.ndarray) -> tuple[Callable, Callable]:
        """Graph for views `[b, V]`, or for clips `[b, V, T]`, and what makes its requests."""
        if self._of_images is not None:
            finish = partial(self._of_images, size=size, mean=self._mean, std=self._std, dtype=self._dtype)
            return partial(graph.whole_graph, decoder=self._decoder), partial(_decoded_once, self._store, finish)
        to_gpu, bfloat16 = self._device.type == "cuda", self._dtype == torch.bfloat16
        make_graph, inputs = graph.train_path(
            size, self._decoder, to_gpu, bfloat16, self._mean, self._std, clips=rows.ndim == 3
        )
        return make_graph, partial(_decoded_by_view, inputs)


def _make(loader: ref[WindowLoader], epoch: int, step: int) -> _Made:
    """In the loader's thread, which must not keep the loader alive."""
    alive = loader()
    assert alive is not None, "the thread ends with its loader"
    return alive._at(epoch, step)


def _requests(loader: WindowLoader, epoch: int, step: int, size: int) -> Iterator[Request]:
    """Requests for the views of `size` that `loader` needs from (epoch, step) on, until their side changes.

    `loader` is a weak proxy, as the loader holds the stream that holds this generator.
    """
    ahead = epoch, step
    for _ in range(loader._ahead):
        loader._fetch_ahead(*ahead)
        ahead = loader._after(*ahead)
    side = loader.side(epoch, step)
    while loader.side(epoch, step) == side:
        samples, drawn = loader.draw(epoch, step)
        loader._fetch_ahead(*ahead)
        ahead = loader._after(*ahead)
        mine = drawn[loader._mine]
        views = loader._by_size(mine)[size]
        rows = views.ravel()
        if size == loader._size != side:
            rows["blur"] *= side / size
            _, request = loader._path(side, views)
        else:
            _, request = loader._path(size, views)
        yield request(rows, (samples[loader._mine], mine))
        epoch, step = loader._after(epoch, step)


def _of_images(device: torch.device, decoder: graph.Decoder) -> Callable:
    """`triton_views.of_images` for a device."""
    from . import triton_views  # Triton is not installed everywhere

    if decoder == "cpu" and not triton_views.INTERPRETED:
        raise ConfigError("triton: makes views of images that the GPU decoded; choose decoder cuda")
    if device.type == "cuda":
        triton_views.check_driver()
    return partial(triton_views.of_images, device=device)


def _decoded_by_view(inputs: Callable, rows: np.ndarray, tag: Any) -> Request:
    """The request for views `[N]` of a graph that makes them; only their crops are decoded."""
    pictures = np.concatenate([rows, following(rows)])
    return Request(pictures["frame"], pictures, partial(inputs, rows), tag)


def _decoded_once(store: Store, finish: Callable, rows: np.ndarray, tag: Any) -> Request:
    """The request for views `[N]` made of whole images, each of which is decoded once."""
    frames = np.concatenate([rows, following(rows)])["frame"]
    regions = store.whole(frames)
    _, first, image = np.unique(frames, return_index=True, return_inverse=True)
    inputs = partial(graph.whole_inputs, regions, first)
    return Request(frames, regions, inputs, tag, partial(finish, rows, image, regions["width"]))


class FilmLoader:
    """Iterable over the test views of chosen films, in order: (film, first shot, images `[n, K, 3, size, size]`).

    Args:
        index, films, device, threads, prefetch: as of `WindowLoader`.
        views: size of the test view.
        batch: pictures per batch; a batch holds whole shots of K key-frames, at least one, of one film.
    """

    def __init__(
        self,
        index: ShardIndex,
        films: np.ndarray,
        views: TestViews,
        *,
        batch: int = 64,
        device: str | torch.device = "cpu",
        threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        check_positive(batch=batch, threads=threads, prefetch=prefetch)
        self._index, self._films, self._views, self._batch = index, films, views, batch
        self._device = torch.device(device)
        self._decoder = graph.default_decoder(self._device)
        self._store = Store(index, for_gpu=self._decoder != "cpu")
        most = max([batch, *index.sequences["frames_per_shot"][films].tolist()])
        self._kwargs = {"batch_size": most, "num_threads": threads, "prefetch_queue_depth": prefetch}

    def __iter__(self) -> Iterator[tuple[int, int, torch.Tensor]]:
        make_graph = partial(graph.test_graph, views=self._views, decoder=self._decoder)
        stream = Stream(self._store, self._requests(), make_graph, self._device, self._decoder, **self._kwargs)
        for (film, first), images in stream:
            yield film, first, images.unflatten(0, (-1, int(self._index.sequences["frames_per_shot"][film])))

    def _requests(self) -> Iterator[Request]:
        for film in self._films.tolist():
            row = self._index.sequences[film]
            shots, per_shot = int(row["shots"]), int(row["frames_per_shot"])
            at_once = max(1, self._batch // per_shot)
            for first in range(0, shots, at_once):
                numbers = np.arange(first * per_shot, min(first + at_once, shots) * per_shot)
                frames = int(row["first_frame"]) + numbers
                regions = np.zeros(len(frames), VIEW)
                regions["height"], regions["width"] = row["height"], row["width"]
                inputs = partial(graph.test_inputs, self._views, regions, np.full(len(frames), 0.5))
                yield Request(frames, regions, inputs, (film, first))


def _warn_of_small_cache(index: ShardIndex, films: np.ndarray, pool: int | None) -> None:
    """Warn if the cache of remote shards is too small for the order of samples."""
    if index.cache is None or not len(films):
        return
    shards = {shard for shard in set(index.sequences["shard"][films].tolist()) if part_of(index, shard)[0].cache}
    total = sum(index.shards[shard]["bytes"] for shard in shards)
    share, held = 1 if pool is None else min(1, 2 * pool / len(shards)), index.cache.limit
    if total * share > held:
        fitting = max(1, int(len(shards) * held / total / 2))
        _log.warning(
            "%s: the cache holds %.3g GiB, %s needs %.3g GiB, so shards will be downloaded repeatedly; "
            "choose a pool of at most %d films, or set BASSL_FAST_CACHE_GIB higher",
            *(
                masked(index.address),
                held / 2**30,
                "shuffling all films" if pool is None else f"a pool of {pool} films",
            ),
            *(total * share / 2**30, fitting),
        )


def check_positive(**values: int) -> None:
    """Raises: ConfigError that names the first value below 1."""
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
