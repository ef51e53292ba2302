"""Open one shard of a set for reading."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shard_tools.errors import ShardError
from shard_tools.storage.cache import OpenShard

from .index import ShardIndex


def open_shard(index: ShardIndex, shard: int, release: Callable[[], bool] = lambda: False) -> OpenShard:
    """Map shard number `shard`, downloading it to the cache first if the set is remote.

    Args:
        release: see `Cache.open`.

    Raises:
        ShardError: missing, or not of the size that the manifest states.
        RemoteError: it cannot be downloaded in time.
    """
    facts = index.shards[shard]
    if index.cache is not None:
        return index.cache.open(index.address, facts, release)
    path = index.root / facts["name"]
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ShardError(f"{path}: cannot be read ({error}); copy it here or pack again") from None
    if len(data) != facts["bytes"]:
        raise ShardError(f"{path}: {len(data)} bytes, the manifest says {facts['bytes']}; copy it again or pack again")
    return OpenShard(data)
