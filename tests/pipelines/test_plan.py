from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import rng
from pipelines.plan import Mix, Plan, Pools, _deal, process_slice
from shard_tools.errors import ConfigError

SAMPLES, BATCH, SEED, EPOCH = st.integers(1, 400), st.integers(8, 64), st.integers(0, 2**63), st.integers(0, 20)
WORLD_SIZE = st.sampled_from([1, 2, 4, 8])
FILMS, POOL = st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 14)


def epoch_of(plan: Plan, epoch: int) -> np.ndarray:
    return np.concatenate([plan.batch(epoch, step) for step in range(plan.steps)])


def pooled(shots: list[int], size: int, batch: int, seed: int) -> Plan:
    return Plan(sum(shots), batch, seed, Pools(np.array(shots), size))


@given(SAMPLES, BATCH, SEED, EPOCH)
def test_every_sample_is_used_once_an_epoch_and_padding_is_counted(samples: int, batch: int, seed: int, epoch: int):
    plan = Plan(samples, batch, seed)
    order = epoch_of(plan, epoch)
    assert len(order) == plan.steps * batch
    assert sorted(order[:samples]) == list(range(samples))
    assert plan.padding == len(order) - samples < batch
    assert (order[samples:] == np.resize(order[:samples], plan.padding)).all()


@given(FILMS, POOL, st.integers(1, 8), SEED, EPOCH, WORLD_SIZE)
def test_processes_make_equal_steps_and_together_take_every_sample_once(
    shots: list[int], size: int, share: int, seed: int, epoch: int, world_size: int
):
    samples = sum(shots)
    for plan in (pooled(shots, size, share * world_size, seed), Plan(samples, share * world_size, seed)):
        slices = [process_slice(plan.global_batch, rank, world_size) for rank in range(world_size)]
        parts = [[plan.batch(epoch, step)[mine] for step in range(plan.steps)] for mine in slices]
        assert {len(batch) for part in parts for batch in part} == {share}
        order = np.stack([np.concatenate(batches) for batches in zip(*parts, strict=True)]).ravel()
        assert (order == epoch_of(plan, epoch)).all()
        assert sorted(order[:samples]) == list(range(samples))
        assert len(order) == samples + plan.padding < samples + plan.global_batch


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


@given(SAMPLES, SEED, EPOCH)
def test_the_order_does_not_depend_on_the_batch(samples: int, seed: int, epoch: int):
    orders = [epoch_of(Plan(samples, batch, seed), epoch)[:samples] for batch in (7, 64, samples)]
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


# --- Pools ---


@given(FILMS, POOL, BATCH, SEED, EPOCH)
def test_pools_partition_the_films(shots: list[int], size: int, batch: int, seed: int, epoch: int):
    """Runs of the order that share no sample: each holds whole films, or whole parts of a long one, `size` at most."""
    plan = pooled(shots, size, batch, seed)
    firsts, counts = plan.pools._parts
    order, (*_, bounds) = epoch_of(plan, epoch)[: plan.samples], _deal(plan.pools, seed, epoch)
    assert sorted(order) == list(range(plan.samples))
    found = [np.unique(np.searchsorted(firsts, pool, side="right") - 1) for pool in np.split(order, bounds[1:-1])]
    assert sorted(np.concatenate(found)) == list(range(len(firsts)))
    assert [counts[parts].sum() for parts in found] == np.diff(bounds).tolist()
    sizes = [len(parts) for parts in found]
    assert len(sizes) == plan.pools.count
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@given(FILMS)
def test_parts_of_films_are_whole_films_except_for_long_ones(shots: list[int]):
    firsts, counts = Pools(np.array(shots), 1)._parts
    most = 2 * np.mean(shots)
    whole = [(sum(shots[:film]), count) for film, count in enumerate(shots) if count <= most]
    assert set(whole) <= set(zip(firsts.tolist(), counts.tolist(), strict=True))
    assert counts.max() <= most + 1
    assert (np.cumsum(counts) - counts == firsts).all()
    assert counts.sum() == sum(shots)


@given(FILMS, BATCH, SEED, EPOCH)
def test_one_pool_of_all_films_is_the_shuffle_of_all_samples(shots: list[int], batch: int, seed: int, epoch: int):
    everything = Plan(sum(shots), batch, seed)
    assert (epoch_of(pooled(shots, 2 * len(shots), batch, seed), epoch) == epoch_of(everything, epoch)).all()


@given(FILMS, POOL, SEED, EPOCH)
def test_padding_comes_from_the_last_pool(shots: list[int], size: int, seed: int, epoch: int):
    plan = pooled(shots, size, sum(shots) + 5, seed)
    order = plan.batch(epoch, 0)
    *_, bounds = _deal(plan.pools, seed, epoch)
    assert (order[sum(shots) :] == np.resize(order[bounds[-2] : bounds[-1]], 5)).all()


def test_films_meet_other_films_in_every_epoch():
    plan = pooled([20] * 64, 8, 160, 0)
    pools = [{tuple(np.unique(plan.batch(epoch, step) // 20)) for step in range(8)} for epoch in range(2)]
    assert {len(films) for films in pools[0]} == {8}  # a batch is as long as a pool here
    assert not pools[0] & pools[1]


def test_an_empty_pool_is_refused():
    with pytest.raises(ConfigError, match="pool 0"):
        Pools(np.array([3]), 0)


# --- Mixes ---

SETS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=2, max_size=4)  # samples and weights


def mixed(sets: list[tuple[int, int]], batch: int, seed: int) -> Mix:
    return Mix([(samples, None) for samples, _ in sets], [weight for _, weight in sets], batch, seed)


def sets_of(mix: Mix, numbers: np.ndarray) -> np.ndarray:
    """The set of each sample."""
    return np.searchsorted(np.cumsum([samples for samples, _ in mix.sets]), numbers, side="right")


@given(SETS, st.integers(40, 64), SEED, st.integers(1, 3))
def test_a_mix_keeps_its_weights_and_uses_the_samples_of_a_set_equally_often(sets, batch: int, seed: int, epochs: int):
    mix = mixed(sets, batch, seed)
    shares = np.array([weight for _, weight in sets]) / sum(weight for _, weight in sets)
    used = np.zeros(mix.samples, int)
    for epoch in range(epochs):
        for step in range(mix.steps):
            numbers = mix.batch(epoch, step)
            assert len(numbers) == batch
            used += np.bincount(numbers, minlength=mix.samples)
            counts = np.bincount(sets_of(mix, np.arange(mix.samples)), used, len(sets))
            assert (abs(counts - shares * used.sum()) <= 1).all()
    for one in range(len(sets)):
        mine = used[sets_of(mix, np.arange(mix.samples)) == one]
        assert mine.max() - mine.min() <= 1


@given(SETS, SEED, EPOCH)
def test_each_pass_over_a_set_has_an_order_of_its_own_and_every_sample_once(sets, seed: int, epoch: int):
    mix = mixed(sets, 40, seed)
    order = np.concatenate([mix.batch(0, step) for step in range(8 * mix.steps)])  # the steps of the run, in one epoch
    for one, (samples, _) in enumerate(sets):
        first = sum(n for n, _ in sets[:one])
        mine = order[sets_of(mix, order) == one]
        whole = len(mine) // samples
        assert (np.bincount(mine - first, minlength=samples) >= whole).all()
        plan = mix._plans[one]
        assert sorted(plan.at(epoch, np.arange(samples))) == list(range(samples))


@given(SETS, SEED)
def test_a_batch_of_a_mix_depends_on_epoch_and_step_alone(sets, seed: int):
    """The quotas of a step are those between what the steps before it have used, also over the ends of epochs."""
    mix = mixed(sets, 40, seed)
    at = [(epoch, step) for epoch in range(2) for step in range(mix.steps)]
    forth = [mix.batch(*one) for one in at]
    other = mixed(sets, 40, seed)
    back = [other.batch(*one) for one in reversed(at)]
    assert all((a == b).all() for a, b in zip(forth, reversed(back), strict=True))
    for number, batch in enumerate(forth):
        quota = mix.before(number + 1) - mix.before(number)
        assert np.bincount(sets_of(mix, batch), minlength=len(sets)).tolist() == quota.tolist()


def test_weights_are_taken_as_written():
    """0.7 and 0.3 of ten are seven and three in every batch."""
    mix = Mix([(100, None), (50, None)], [0.7, 0.3], 10)
    assert {tuple(np.bincount(mix.batch(0, step) >= 100)) for step in range(mix.steps)} == {(7, 3)}
    assert (mix.steps, mix.padding) == (15, 0)


def test_a_batch_that_does_not_divide_by_the_weights_alternates():
    mix = Mix([(9, None), (9, None)], [1, 1], 3)
    assert [np.bincount(mix.batch(0, step) >= 9, minlength=2).tolist() for step in range(4)] == [[2, 1], [1, 2]] * 2


def test_sets_of_equal_size_have_different_orders():
    mix = Mix([(200, None), (200, None)], [1, 1], 400)
    numbers = mix.batch(0, 0)
    assert numbers[numbers < 200].tolist() != (numbers[numbers >= 200] - 200).tolist()
    assert (mix._plans[0].batch(0, 0) != mix._plans[1].batch(0, 0)).any()


def test_every_process_has_samples_of_all_sets():
    mix = Mix([(1000, None), (1000, None)], [1, 1], 64)
    assert all(set(sets_of(mix, part)) == {0, 1} for part in np.split(mix.batch(0, 0), 4))


@given(FILMS, FILMS, POOL, SEED)
@settings(max_examples=20)
def test_pools_hold_within_the_passes_of_a_mix(shots: list[int], others: list[int], size: int, seed: int):
    sets = [(sum(films), Pools(np.array(films), size)) for films in (shots, others)]
    mix = Mix(sets, [1, 1], 8, seed)
    order = np.concatenate([mix.batch(0, step) for step in range(-(-2 * max(sum(shots), sum(others)) // 8))])
    mine = order[order < sum(shots)]
    plan = mix._plans[0]
    assert sorted(plan.at(0, np.arange(sum(shots)))) == list(range(sum(shots)))
    assert set(mine.tolist()) == set(range(sum(shots)))
    assert mix.pool_steps >= 1


@pytest.mark.parametrize(
    ("sets", "weights", "batch", "says"),
    [
        ([5, 5], [1, 0], 8, "weight 0 of a set of shards: must be positive"),
        ([5, 5], [1, -0.5], 8, "weight -0.5 of a set"),
        ([5, 5], [1, float("nan")], 8, "weight nan"),
        ([5, 5], [0.95, 0.05], 8, "weight 0.05 of a set.*batch of 20 or more"),
        ([5, 0], [1, 1], 8, "no samples"),
    ],
)
def test_a_mix_that_cannot_be_is_refused(sets: list[int], weights: list[float], batch: int, says: str):
    with pytest.raises(ConfigError, match=says):
        Mix([(samples, None) for samples in sets], weights, batch)


# --- Permutations ---


@given(st.integers(1, 3000), SEED, EPOCH)
def test_a_permutation_takes_every_number_once(count: int, seed: int, epoch: int):
    numbers = rng.permute(np.arange(count), count, rng.generator(seed, rng.ORDER, epoch))
    assert (np.sort(numbers) == np.arange(count)).all()


@pytest.mark.parametrize("count", [1_600_000, 10**8, 10**12])
def test_a_large_permutation_is_computed_only_where_asked_for(count: int):
    asked = np.concatenate([np.arange(2000), count - 1 - np.arange(2000), np.arange(0, count, count // 2000)])
    asked = np.unique(asked)
    numbers = rng.permute(asked, count, rng.generator(0, rng.ORDER, 0))
    assert len(np.unique(numbers)) == len(asked)
    assert 0 <= numbers.min() < numbers.max() < count
    again = np.concatenate(
        [rng.permute(some, count, rng.generator(0, rng.ORDER, 0)) for some in np.array_split(asked, 2)]
    )
    assert (again == numbers).all()


def test_permutations_of_many_are_uniform():
    """Where 65 numbers go, and where with their neighbours; each chi-square fails for one seed in 10,000."""
    count, cells = 5000, 50
    asked = np.arange(0, count, count // 64)
    draws = [rng.generator(seed, rng.ORDER, 0) for seed in range(1000)]
    found = np.array([rng.permute(np.concatenate([asked, asked + 1]), count, draw) for draw in draws])
    here, there = np.split(found * cells // count, 2, 1)
    places = here + cells * np.arange(len(asked))
    assert_uniform(np.bincount(places.ravel(), minlength=cells * len(asked)), cells * len(asked))
    assert_uniform(np.bincount((here * cells + there).ravel(), minlength=cells**2), cells**2)


def assert_uniform(counts: np.ndarray, cells: int) -> None:
    """Chi-square by the Wilson-Hilferty approximation; 3.72 standard deviations are passed once in 10,000."""
    assert len(counts) == cells
    expected, freedom = counts.sum() / cells, cells - 1
    square = ((counts - expected) ** 2 / expected).sum()
    spread = 2 / (9 * freedom)
    assert ((square / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5 < 3.72
