"""Simulate an epoch of a large run without pictures or networks: what every process gets, what its machine downloads.

The order comes from the code that training uses (`plan.Plan`, `plan.Pools`, `plan.process_slice`). Every step is handed
out to every process, and one bit per sample records it, so that missing or repeated samples are seen for certain. Each
machine has its own cache of films, which deletes the least recently used first (`shard_tools.storage.cache`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shard_tools.progress import Progress

from .plan import Plan, process_slice

_ONES = np.array([bin(byte).count("1") for byte in range(256)])


class Found(NamedTuple):
    """Statistics of an epoch.

    Attributes:
        steps: per process.
        samples: handed out, without padding.
        distinct: different samples among them; equal to `samples` if each was handed out exactly once.
        padding: further samples, which fill the last step.
        share: samples per step and process.
        films: per machine and step, on average.
        asked: how often a machine needed a film in a step.
        hits: how often that film was in its cache.
        fetched: `[machines]` bytes that each downloaded.
        held: most bytes in the cache of a machine; above its size only if one step needs more.
    """

    steps: int
    samples: int
    distinct: int
    padding: int
    share: int
    films: float
    asked: int
    hits: int
    fetched: np.ndarray
    held: int


def simulate(
    plan: Plan,
    shots: np.ndarray,
    film_bytes: np.ndarray,
    processes: int,
    machines: int,
    cache: float,
    epoch: int = 0,
    progress: Progress | None = None,
) -> Found:
    """Go through all steps of an epoch.

    Args:
        plan: of the run; its samples are the shots of all films.
        shots: `[F]` samples of every film.
        film_bytes: `[F]` bytes of every film's shard.
        processes: ranks, assigned to the machines in order.
        machines: a divisor of `processes`.
        cache: bytes per machine.
        progress: counts steps.

    Raises:
        ConfigError: the batch does not divide among the processes.
    """
    slices = [process_slice(plan.global_batch, rank, processes) for rank in range(processes)]
    machine = np.empty(plan.global_batch, np.int64)  # of each row of the batch
    for rank, mine in enumerate(slices):
        machine[mine] = rank * machines // processes
    ends, seen, handed_out = np.cumsum(shots), np.zeros(-(-plan.samples // 8), np.uint8), 0
    caches = _Caches(film_bytes, machines, cache)
    for step in range(plan.steps):
        batch = plan.batch(epoch, step)
        rows = np.concatenate([batch[mine] for mine in slices])
        new = rows[: plan.samples - step * plan.global_batch]  # the rest is padding
        np.bitwise_or.at(seen, new >> 3, np.uint8(1) << (new & 7).astype(np.uint8))
        handed_out += len(new)
        caches.use(step, machine, np.searchsorted(ends, batch, side="right"))
        if progress:
            progress(1)
    return Found(
        plan.steps,
        handed_out,
        int(np.bincount(seen, minlength=256) @ _ONES),
        plan.steps * plan.global_batch - handed_out,
        plan.global_batch // processes,
        caches.asked / (plan.steps * machines),
        caches.asked,
        caches.hits,
        caches.fetched,
        caches.held,
    )


class _Caches:
    """The caches of all machines: a row per machine, a column per film."""

    def __init__(self, film_bytes: np.ndarray, machines: int, size: float) -> None:
        self._bytes, self._size = film_bytes.astype(np.int64), size
        self._here = np.zeros((machines, len(film_bytes)), bool)
        self._last = np.zeros((machines, len(film_bytes)), np.int32)
        self._taken = np.zeros(machines, np.int64)
        self.fetched, self.asked, self.hits, self.held = np.zeros(machines, np.int64), 0, 0, 0

    def use(self, step: int, machine: np.ndarray, film: np.ndarray) -> None:
        """Record that machines `[B]` need films `[B]` at a step."""
        wanted = np.unique(machine * len(self._bytes) + film)
        here, last = self._here.reshape(-1), self._last.reshape(-1)
        missing = wanted[~here[wanted]]
        last[wanted], here[missing] = step, True
        self.asked, self.hits = self.asked + len(wanted), self.hits + len(wanted) - len(missing)
        where, films = np.divmod(missing, len(self._bytes))
        came = np.bincount(where, self._bytes[films], len(self._taken)).astype(np.int64)
        self.fetched += came
        self._taken += came
        for full in np.flatnonzero(self._taken > self._size).tolist():
            self._make_room(full, step)
        self.held = max(self.held, int(self._taken.max()))

    def _make_room(self, machine: int, step: int) -> None:
        """Delete the least recently used films, never one that this step needs."""
        films = np.flatnonzero(self._here[machine] & (self._last[machine] < step))
        films = films[np.argsort(self._last[machine, films], kind="stable")]
        freed = np.cumsum(self._bytes[films])
        out = films[: np.searchsorted(freed, self._taken[machine] - self._size) + 1]
        self._here[machine, out] = False
        self._taken[machine] -= int(self._bytes[out].sum())
