"""Classes of images and clips."""

from __future__ import annotations

import numpy as np

from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex


def labels_of(index: ShardIndex, samples: np.ndarray, classes: int | None = None) -> np.ndarray:
    """Classes `[N]` int64 of the images or videos `samples` `[N]`.

    Args:
        classes: number of classes of the model; None does not check it.

    Raises:
        ConfigError: the shards hold films, a sample has no class, or the number of classes differs.
    """
    if "label" not in (index.sequences.dtype.names or ()):
        raise ConfigError(f"{index.address}: a set of films, whose shots have no classes; use a set of images or clips")
    labels, there = index.sequences["label"][samples].astype(np.int64), len(index.classes)
    if unlabelled := int((labels < 0).sum()):
        missing = f"{unlabelled} of {len(samples)} samples have no class"
        raise ConfigError(f"{index.address}: {missing}; pack again with the lists that name the classes")
    if classes is not None and classes != there:
        raise ConfigError(
            f"{index.address}: has {there} classes, and the model has {classes}; use another set or model"
        )
    return labels
