"""An epoch of a large run without pictures or networks: what every process is handed, and what its machine must fetch.

The order comes from the very code that training uses (`plan.Plan`, `plan.Pools`, `plan.process_slice`). Handed out is
every step to every process; a bit a sample remembers what came, so that nothing is left out and nothing comes twice is
seen, not sampled. Each machine keeps films in a cache of its own, least recently used out first (`shard_tools.cache`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from shard_tools.progress import Progress

from .plan import Plan, process_slice

_ONES = np.array([bin(byte).count("1") for byte in range(256)])


class Found(NamedTuple):
    """What an epoch was like.

    Attributes:
        steps: of every process.
        samples: handed out, without padding.
        distinct: different ones among them; all of them where each came exactly once.
        padding: samples handed out beyond, to fill the last step.
        share: samples a step of every process.
        films: of a machine in a step, on average.
        asked: times that a machine wanted a film in a step.
        hits: of these, how often the film was in its cache.
        fetched: `[machines]` bytes that each fetched.
        held: most bytes in the cache of a machine; above its size only where one step needs more.
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
        processes: ranks, dealt out to the machines in order.
        machines: a divisor of `processes`.
        cache: bytes a machine.
        progress: counts steps.

    Raises:
        ConfigError: the batch does not divide among the processes.
    """
    slices = [process_slice(plan.global_batch, rank, processes) for rank in range(processes)]
    machine = np.empty(plan.global_batch, np.int64)  # of a row of the batch
    for rank, mine in enumerate(slices):
        machine[mine] = rank * machines // processes
    ends, seen, handed_out = np.cumsum(shots), np.zeros(-(-plan.samples // 8), np.uint8), 0
    caches = _Caches(film_bytes, machines, cache)
    for step in range(plan.steps):
        batch = plan.batch(epoch, step)
        rows = np.concatenate([batch[mine] for mine in slices])
        new = rows[: plan.samples - step * plan.global_batch]  # what is left is padding
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
    """The caches of all machines: a row a machine, a column a film."""

    def __init__(self, film_bytes: np.ndarray, machines: int, size: float) -> None:
        self._bytes, self._size = film_bytes.astype(np.int64), size
        self._here = np.zeros((machines, len(film_bytes)), bool)
        self._last = np.zeros((machines, len(film_bytes)), np.int32)
        self._taken = np.zeros(machines, np.int64)
        self.fetched, self.asked, self.hits, self.held = np.zeros(machines, np.int64), 0, 0, 0

    def use(self, step: int, machine: np.ndarray, film: np.ndarray) -> None:
        """Machines `[B]` need films `[B]` at a step."""
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
        """Forget what was used longest ago, never what this step needs."""
        films = np.flatnonzero(self._here[machine] & (self._last[machine] < step))
        films = films[np.argsort(self._last[machine, films], kind="stable")]
        freed = np.cumsum(self._bytes[films])
        out = films[: np.searchsorted(freed, self._taken[machine] - self._size) + 1]
        self._here[machine, out] = False
        self._taken[machine] -= int(self._bytes[out].sum())
