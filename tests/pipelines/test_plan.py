from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.plan import Plan, process_slice
from shard_tools.errors import ConfigError

SAMPLES, BATCH, SEED = st.integers(1, 400), st.integers(1, 64), st.integers(0, 2**63)


def epoch_of(plan: Plan, epoch: int) -> np.ndarray:
    return np.concatenate([plan.batch(epoch, step) for step in range(plan.steps)])


@given(SAMPLES, BATCH, SEED, st.integers(0, 20))
def test_every_sample_comes_once_an_epoch_and_padding_is_counted(samples: int, batch: int, seed: int, epoch: int):
    plan = Plan(samples, batch, seed)
    order = epoch_of(plan, epoch)
    assert len(order) == plan.steps * batch
    assert sorted(order[:samples]) == list(range(samples))
    assert plan.padding == len(order) - samples < batch
    assert (order[samples:] == np.resize(order[:samples], plan.padding)).all()


@given(SAMPLES, st.integers(1, 8), SEED, st.sampled_from([1, 2, 4, 8]))
def test_slices_of_the_processes_are_the_global_batch(samples: int, share: int, seed: int, world_size: int):
    plan = Plan(samples, share * world_size, seed)
    batch = plan.batch(2, plan.steps - 1)
    slices = [batch[process_slice(plan.global_batch, rank, world_size)] for rank in range(world_size)]
    assert {len(part) for part in slices} == {share}
    assert (np.concatenate(slices) == batch).all()


@given(BATCH, st.integers(2, 64))
def test_a_batch_that_does_not_divide_names_world_sizes_that_fit(batch: int, world_size: int):
    if batch % world_size == 0:
        process_slice(batch, world_size - 1, world_size)
        return
    with pytest.raises(ConfigError) as error:
        process_slice(batch, 0, world_size)
    fitting = re.search(r"use ([\d, ]+) processes", str(error.value))[1]
    fitting = [int(n) for n in fitting.split(", ")]
    assert fitting
    assert all(batch % n == 0 for n in fitting)


@given(st.integers(20, 400), BATCH, SEED)
def test_epochs_and_seeds_differ_in_order(samples: int, batch: int, seed: int):
    plan, other = Plan(samples, batch, seed), Plan(samples, batch, seed + 1)
    orders = [epoch_of(plan, 0)[:samples], epoch_of(plan, 1)[:samples], epoch_of(other, 0)[:samples]]
    # Two of 20! orders are equal by chance once in 2e18.
    assert len({tuple(order) for order in orders}) == 3


@given(SAMPLES, SEED, st.integers(0, 5))
def test_the_order_does_not_depend_on_the_batch(samples: int, seed: int, epoch: int):
    orders = [epoch_of(Plan(samples, batch, seed), epoch)[:samples] for batch in (1, 7, 64)]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] == orders[2]).all()


def test_a_small_film_fills_a_batch_many_times_its_size():
    plan = Plan(3, 8)
    assert (plan.steps, plan.padding) == (1, 5)
    assert np.bincount(plan.batch(0, 0)).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


@pytest.mark.parametrize(("samples", "batch", "says"), [(0, 4, "no samples"), (4, 0, "global_batch 0")])
def test_nothing_to_do_is_refused(samples: int, batch: int, says: str):
    with pytest.raises(ConfigError, match=says):
        Plan(samples, batch)
