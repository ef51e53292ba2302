"""The decoder of training, for the checks of `pack` and `verify`: what they accept does not stop a loader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.substitutes import undecodable
from pipelines.views import VIEW


def training_faults(pictures: Sequence[bytes | memoryview], sizes: Sequence[tuple[int, int]]) -> dict[int, str]:
    """A `shard_tools.shards.jpeg.Decoder`: DALI's, on the CPU."""
    regions = np.zeros(len(pictures), VIEW)
    regions["height"], regions["width"] = np.array(sizes).T
    return undecodable([np.frombuffer(picture, np.uint8) for picture in pictures], regions)
