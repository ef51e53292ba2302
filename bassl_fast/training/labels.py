"""Classes of pictures and clips."""

from __future__ import annotations

import numpy as np

from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex


def labels_of(index: ShardIndex, films: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Classes `[N]` of pictures or videos.

    Args:
        classes: that a model has; those of the set if left out.

    Raises:
        ConfigError: there are none, or not as many.
    """
    if "label" not in index.sequences.dtype.names:
        raise ConfigError(f"{index.address}: a set of films, whose shots have no class; give pictures or clips")
    labels, there = index.sequences["label"][films].astype(np.int64), len(index.classes)
    if unlabelled := int((labels < 0).sum()):
        what = f"{unlabelled} of {len(films)} have no class"
        raise ConfigError(f"{index.address}: {what}; pack with the lists that say it")
    if classes is not None and classes != there:
        raise ConfigError(
            f"{index.address}: has {there} classes, and method.classes is {classes}; give a model of the same list"
        )
    return labels
