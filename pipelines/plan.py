"""The order of samples: which form the global batch of a step, for any number of processes.

epoch order   | 7 2 9 4 | 0 5 8 1 | 3 6 7 2 |     10 samples, global batch 4: the last step is
                step 0    step 1    step 2        filled up from the front of the order
process 0       7 2       0 5       3 6
process 1           9 4       8 1       7 2

With pools, the order goes through a few films at a time; a batch may begin in one pool and end in the next.

films         | d a f   | b e c   |
their samples | fadaffd | cbbecbe |

A mix has several sets, each with its own order, which begins again when it ends. Every batch has a quota of each set:
its weight times the batch, rounded so that the error never adds up.

weights 0.6, 0.4 | A A A B B | A A A B B | ... |     batches of 5, with the places inside a batch shuffled
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import accumulate
from math import ceil, floor, isfinite

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
        return self.at(epoch, np.arange(step * self.global_batch, (step + 1) * self.global_batch))

    def at(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Sample indices `[N]` at `positions` `[N]` of the order of `epoch`; past its end it is filled up."""
        if self.pools:
            return self.pools.samples(positions, self.seed, epoch)
        return rng.permute(positions % self.samples, self.samples, rng.generator(self.seed, rng.ORDER, epoch))


def check_weights(weights: Iterable[float]) -> None:
    """Raises: ConfigError for a weight of a set that is not positive."""
    for weight in weights:
        if not (weight > 0 and isfinite(weight)):
            raise ConfigError(f"weight {weight:g} of a set of shards: must be positive; leave the set out")


@dataclass(frozen=True, eq=False)
class Mix:
    """Several sets in one global batch, by weight.

    A set is used pass after pass, each with every sample once, in an order of its own; passes go on over the ends of
    epochs. So at any time, two samples of a set were used equally often, or one of them once more. An epoch is as many
    samples as all sets have together, filled up to whole batches, and has weight_k / sum(weights) of them from set k.

    Args:
        sets: samples of every set, and its pools or None. Samples are numbered set by set.
        weights: of the sets, in any unit.
        global_batch: samples B per step over all processes.
        seed: of the run.

    Raises:
        ConfigError: a weight that is not positive, or too small for a place in every batch.
    """

    sets: Sequence[tuple[int, Pools | None]]
    weights: Sequence[float]
    global_batch: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_weights(self.weights)
        for weight, share in zip(self.weights, self._shares, strict=True):
            if share * self.global_batch < 1:
                raise ConfigError(
                    f"weight {weight:g} of a set of shards: less than one sample in a batch of {self.global_batch}; "
                    f"choose a batch of {ceil(1 / share)} or more, or a larger weight"
                )
        assert self._plans  # raises for a set without samples

    @property
    def samples(self) -> int:
        """Samples of all sets."""
        return sum(samples for samples, _ in self.sets)

    @property
    def steps(self) -> int:
        """Steps an epoch, the same for every process."""
        return -(-self.samples // self.global_batch)

    @property
    def padding(self) -> int:
        """None: the next pass begins where the last one ends."""
        return 0

    @property
    def pool_steps(self) -> int:
        """Steps per pool, rounded up; the longest of all sets."""
        pools = [(n, p.count if p else 1, share) for (n, p), share in zip(self.sets, self._shares, strict=True)]
        return max(ceil(n / count / (share * self.global_batch)) for n, count, share in pools)

    def before(self, step: int) -> np.ndarray:
        """`[K]` samples of every set that the first `step` steps of the run have used.

        Rounding cumulative shares keeps each set within a sample of its weight at any step.
        """
        ends = accumulate(self._shares, initial=Fraction(0))
        return np.diff([floor(step * self.global_batch * end + Fraction(1, 2)) for end in ends])

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Sample indices `[B]` of the global batch at `step` (0-based) of `epoch`."""
        at = epoch * self.steps + step
        found, first = [], 0
        for plan, start, stop in zip(self._plans, self.before(at), self.before(at + 1), strict=True):
            found.append(first + _of_passes(plan, np.arange(start, stop)))
            first += plan.samples
        # Shuffled, so that processes and micro-batches, which are slices of the batch, have samples of all sets.
        return np.concatenate(found)[rng.generator(self.seed, rng.MIX, epoch, step).permutation(self.global_batch)]

    @cached_property
    def _shares(self) -> list[Fraction]:
        """Exact, as written: 0.7 of 0.7 and 0.3 is 7/10."""
        weights = [Fraction(str(weight)) for weight in self.weights]
        return [weight / sum(weights) for weight in weights]

    @cached_property
    def _plans(self) -> list[Plan]:
        """The order of each set, with a seed of its own, so that sets of equal size are in different orders."""
        seeds = rng.generator(self.seed, rng.SET, 0).integers(0, 2**63, len(self.sets)).tolist()
        return [Plan(n, self.global_batch, seed, pools) for (n, pools), seed in zip(self.sets, seeds, strict=True)]


def _of_passes(plan: Plan, positions: np.ndarray) -> np.ndarray:
    """Samples `[N]` at `positions` `[N]` of all passes over a set; pass e has the order of epoch e."""
    passes, places = np.divmod(positions, plan.samples)
    return np.concatenate([plan.at(int(one), places[passes == one]) for one in np.unique(passes)] or [positions])


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
