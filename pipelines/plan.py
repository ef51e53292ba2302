"""The order of samples: which form the global batch of a step, for any number of processes.

epoch order   | 7 2 9 4 | 0 5 8 1 | 3 6 7 2 |     10 samples, global batch 4: the last step is
                step 0    step 1    step 2        filled up from the front of the order
process 0       7 2       0 5       3 6
process 1           9 4       8 1       7 2

With pools, the order goes through a few films at a time; a batch may begin in one pool and end in the next.

films         | d a f   | b e c   |
their samples | fadaffd | cbbecbe |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from shard_tools.errors import ConfigError

from . import rng


@dataclass(frozen=True, eq=False)
class Pools:
    """Shuffle films into pools, and samples inside a pool, so that only the shards of two pools are needed at a time.

    A film longer than twice the mean is cut into parts, which are shuffled like films; whole, it would fill its pool.

    Args:
        shots: `[F]` samples of every film; they are numbered film by film.
        size: maximal number of films, or parts of long ones, in a pool; pools of an epoch are as even as possible.

    Raises:
        ConfigError: size below 1.
    """

    shots: np.ndarray
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"pool {self.size}: must be at least 1 film")

    @property
    def count(self) -> int:
        """Pools an epoch."""
        return -(-len(self._parts[0]) // self.size)

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """First sample, and number of samples, of every film or part of one."""
        shots = self.shots.astype(np.int64)
        cuts = np.maximum(1, np.ceil(shots / (2 * shots.mean())).astype(np.int64))
        film = np.repeat(np.arange(len(shots)), cuts)
        part = np.arange(len(film)) - (np.cumsum(cuts) - cuts)[film]
        begin, end = (shots[film] * p // cuts[film] for p in (part, part + 1))
        return (np.cumsum(shots) - shots)[film] + begin, end - begin

    def samples(self, positions: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Sample numbers `[B]` at `positions` `[B]` of the order of (seed, epoch); past it, the last pool repeats."""
        firsts, begins, bounds = _deal(self, seed, epoch)
        last, stop = bounds[-2:].tolist()
        positions = np.where(positions < stop, positions, last + (positions - last) % (stop - last))
        pools = np.searchsorted(bounds, positions, side="right") - 1
        places = np.empty_like(positions)
        for pool in np.unique(pools).tolist():
            mine, (start, stop) = pools == pool, bounds[pool : pool + 2].tolist()
            shuffle = rng.generator(seed, rng.ORDER, epoch, pool)
            places[mine] = start + rng.permute(positions[mine] - start, stop - start, shuffle)
        parts = np.searchsorted(begins, places, side="right") - 1
        return firsts[parts] + places - begins[parts]


@lru_cache(maxsize=2)
def _deal(pools: Pools, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deal parts `[P]` into pools: first samples `[P]`, first positions `[P + 1]`, first positions of pools `[K + 1]`.

    Inside a pool, parts are in the order of the set, so one pool of all films equals no pools.
    """
    firsts, counts = pools._parts
    order = rng.generator(seed, rng.POOL, epoch).permutation(len(firsts))
    hands = [np.sort(hand) for hand in np.array_split(order, pools.count)]
    dealt = np.concatenate(hands)
    begins = np.concatenate([[0], np.cumsum(counts[dealt])])
    return firsts[dealt], begins, begins[np.concatenate([[0], np.cumsum([len(hand) for hand in hands])])]


@dataclass(frozen=True)
class Plan:
    """Every sample exactly once an epoch, in an order that depends only on (seed, epoch).

    The order is computed only for the positions asked for, so it takes no memory for any number of samples.

    Args:
        samples: number of samples N.
        global_batch: samples B per step over all processes.
        seed: of the run.
        pools: keep samples of a few films together; None shuffles all samples.

    Raises:
        ConfigError: no samples, or a batch below 1.
    """

    samples: int
    global_batch: int
    seed: int = 0
    pools: Pools | None = None

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
        """Samples repeated in an epoch to fill its last step."""
        return self.steps * self.global_batch - self.samples

    @property
    def pool_steps(self) -> int:
        """Steps per pool, rounded up."""
        return -(-self.steps // (self.pools.count if self.pools else 1))

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Sample indices `[B]` of the global batch at `step` (0-based) of `epoch`."""
        positions = np.arange(step * self.global_batch, (step + 1) * self.global_batch)
        if self.pools:
            return self.pools.samples(positions, self.seed, epoch)
        return rng.permute(positions % self.samples, self.samples, rng.generator(self.seed, rng.ORDER, epoch))


def process_slice(global_batch: int, rank: int, world_size: int) -> slice:
    """Rows of the global batch that process `rank` of `world_size` takes.

    Raises:
        ConfigError: the batch does not divide evenly; the message names world sizes that do.
    """
    if global_batch % world_size:
        fitting = [n for n in range(1, min(global_batch, 4 * world_size) + 1) if global_batch % n == 0]
        raise ConfigError(
            f"global_batch {global_batch} does not divide among {world_size} processes; "
            f"use {', '.join(map(str, fitting))} processes or another batch"
        )
    share = global_batch // world_size
    return slice(rank * share, (rank + 1) * share)
