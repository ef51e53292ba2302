"""The order of samples: which of them form the global batch of a step, for any number of processes.

epoch order   | 7 2 9 4 | 0 5 8 1 | 3 6 7 2 |     10 samples, global batch 4: the last step is
                step 0    step 1    step 2        filled up from the front of the order
process 0       7 2       0 5       3 6
process 1           9 4       8 1       7 2
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shard_tools.errors import ConfigError

from . import rng


@dataclass(frozen=True)
class Plan:
    """Every sample exactly once an epoch, in an order that depends on (seed, epoch) alone.

    Args:
        samples: number of samples N.
        global_batch: samples B a step takes over all processes.
        seed: of the run.

    Raises:
        ConfigError: no samples, or a batch below 1.
    """

    samples: int
    global_batch: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError("no samples: the chosen films have no shots; choose another split")
        if self.global_batch < 1:
            raise ConfigError(f"global_batch {self.global_batch}: must be at least 1")

    @property
    def steps(self) -> int:
        """Steps an epoch, the same for every process."""
        return -(-self.samples // self.global_batch)

    @property
    def padding(self) -> int:
        """Samples that come twice in an epoch, to fill its last step."""
        return self.steps * self.global_batch - self.samples

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Sample indices `[B]` of the global batch at `step` (0-based) of `epoch`."""
        order = _order(self.samples, self.seed, epoch)
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch)
        return order[positions % self.samples]


@lru_cache(maxsize=2)
def _order(samples: int, seed: int, epoch: int) -> np.ndarray:
    return rng.generator(seed, rng.ORDER, epoch).permutation(samples)


def process_slice(global_batch: int, rank: int, world_size: int) -> slice:
    """Rows of the global batch that process `rank` of `world_size` takes.

    Raises:
        ConfigError: the batch does not divide evenly; the message names world sizes that would do.
    """
    if global_batch % world_size:
        fitting = [n for n in range(1, min(global_batch, 4 * world_size) + 1) if global_batch % n == 0]
        raise ConfigError(
            f"global_batch {global_batch} does not divide among {world_size} processes; "
            f"use {', '.join(map(str, fitting))} processes or another batch"
        )
    share = global_batch // world_size
    return slice(rank * share, (rank + 1) * share)
