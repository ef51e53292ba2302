from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan import Plan, Pools, process_slice
from pipelines.simulate import simulate
from shard_tools.errors import ConfigError

FILMS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(FILMS, st.integers(1, 14) | st.none(), st.sampled_from([(1, 1), (2, 1), (4, 2), (8, 4)]), st.integers(1, 4),
       st.integers(0, 400), st.integers(0, 2**32))  # fmt: skip
def test_caches_keep_what_was_used_last(films, pool, ranks, share, cache, seed):
    processes, machines = ranks
    shots = np.array(films)
    plan = Plan(int(shots.sum()), share * processes, seed, pool and Pools(shots, pool))
    sizes = 10 * shots
    found = simulate(plan, shots, sizes, processes, machines, cache, epoch=3)
    assert (found.samples, found.distinct, found.padding) == (plan.samples, plan.samples, plan.padding)
    ends, fetched, hits, asked, held = np.cumsum(shots), [0] * machines, 0, 0, 0
    kept: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(machines)]
    for step in range(plan.steps):
        batch = plan.batch(3, step)
        for machine, here in enumerate(kept):
            ranks_here = range(machine * processes // machines, (machine + 1) * processes // machines)
            rows = [batch[process_slice(plan.global_batch, rank, processes)] for rank in ranks_here]
            wanted = np.unique(np.searchsorted(ends, np.concatenate(rows), "right")).tolist()
            asked += len(wanted)
            for film in wanted:
                hits += film in here
                fetched[machine] += 0 if film in here else int(sizes[film])
                here[film] = int(sizes[film])
            for film in wanted:
                here.move_to_end(film)
            while sum(here.values()) > cache and next(iter(here)) not in wanted:
                here.popitem(last=False)
            held = max(held, sum(here.values()))
    assert (found.asked, found.hits, found.fetched.tolist(), found.held) == (asked, hits, fetched, held)


class Forgetful(Plan):
    """Hands out one sample twice and another not at all."""

    def batch(self, epoch: int, step: int) -> np.ndarray:
        batch = super().batch(epoch, step)
        return np.where(batch == 7, 8, batch)


def test_a_sample_left_out_is_detected():
    shots = np.full(10, 100)
    found = simulate(Forgetful(1000, 64), shots, shots, 8, 1, 1e9)
    assert (found.samples, found.distinct) == (1000, 999)


def test_with_pools_a_set_is_downloaded_about_once_and_without_many_times():
    shots = np.full(200, 50)
    shuffled, pooled = (
        simulate(Plan(10_000, 64, 0, pools), shots, shots, 4, 2, 2 * 20 * 50) for pools in (None, Pools(shots, 20))
    )
    assert (pooled.fetched <= 1.2 * shots.sum()).all()
    assert (shuffled.fetched > 3 * shots.sum()).all()


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="global_batch 10 does not divide"):
        simulate(Plan(100, 10), np.array([100]), np.array([1]), 4, 1, 1e9)
