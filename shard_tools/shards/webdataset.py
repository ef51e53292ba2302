"""Read our shards with the `webdataset` package, for programs that are built on it.

    samples = webdataset_of(ShardIndex.open("s3://bucket/shards"), "train")
    for sample in torch.utils.data.DataLoader(samples, batch_size=None, num_workers=4): ...

A sample is a shot (`0.jpg`, `1.jpg`, ...), a picture (`jpg`) or a clip (`000000.jpg`, ...). `shard_urls` gives the
addresses for a pipeline of your own.

Shards are written by our own code: `webdataset.TarWriter` records neither offset nor crc32 of a picture, which random
access and `verify` need, and is slower (`python -m benchmarks.pack`). Training does not read them this way:
WebDataset reads whole tars in order, a plan asks for any shot at any step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import webdataset
from webdataset.tariterators import group_by_keys, tar_file_expander

from shard_tools.errors import ShardError
from shard_tools.storage.cache import OpenShard

from .index import ShardIndex
from .shard import open_shard


def shard_urls(index: ShardIndex, split: str | None = None) -> list[str]:
    """Paths or addresses of the shards of a split, or of all.

    Raises:
        ShardError: the split is empty.
    """
    return [_url(index, shard) for shard in _shards(index, split)]


def webdataset_of(index: ShardIndex, split: str | None = None) -> webdataset.DataPipeline:
    """All samples of a split, as dictionaries of `__key__`, `__url__` and JPEG bytes by extension.

    Shards are dealt out to the processes of a run, then to the workers of a `DataLoader`: every sample is read exactly
    once. A shard is compared with its sha256 before; remote shards are read through the cache, which retries.

    Raises:
        ShardError: the split is empty; while iterating, a shard cannot be read.
    """
    stages = (webdataset.split_by_node, webdataset.split_by_worker, partial(_streams, index))
    return webdataset.DataPipeline(partial(iter, _shards(index, split)), *stages, tar_file_expander, group_by_keys)


def _shards(index: ShardIndex, split: str | None) -> list[int]:
    return np.unique(index.sequences["shard"][index.select(split)]).tolist()


def _url(index: ShardIndex, shard: int) -> str:
    return f"{index.address}/{index.shards[shard]['name']}"


def _open_whole(index: ShardIndex, shard: int) -> OpenShard:
    """A shard that has its sha256; an altered one is dropped from the cache and downloaded again.

    Raises:
        ShardError: it cannot be read, or its bytes differ from the manifest.
    """
    opened = open_shard(index, shard)
    if hashlib.sha256(opened.data.data).hexdigest() == index.shards[shard]["sha256"]:
        return opened
    if index.cache is None:
        raise ShardError(f"{_url(index, shard)}: differs from its manifest; run `bassl-fast verify` on the shards")
    index.cache.drop(opened)
    return open_shard(index, shard)


def _streams(index: ShardIndex, shards: Iterable[int]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        opened = _open_whole(index, shard)
        try:
            yield {"url": _url(index, shard), "stream": opened.data.base}  # an mmap reads like a file
        finally:
            opened.close()
