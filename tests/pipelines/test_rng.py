from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines import rng

WORD = st.integers(0, 2**64 - 1)
COUNT = st.integers(0, 2**40)


@given(WORD, st.sampled_from([rng.ORDER, rng.SAMPLE, rng.MODEL]), COUNT, COUNT)
def test_equal_keys_give_equal_numbers(seed: int, purpose: int, epoch: int, step: int):
    first, second = (rng.generator(seed, purpose, epoch, step).random(8) for _ in range(2))
    assert (first == second).all()


def test_numbers_of_a_step_do_not_depend_on_how_many_another_step_drew():
    rng.generator(0, rng.SAMPLE, 0, 0).random(10_000)
    assert rng.generator(0, rng.SAMPLE, 0, 1).random() == rng.generator(0, rng.SAMPLE, 0, 1).random()


@given(WORD)
def test_neighbouring_seeds_differ_however_large(seed: int):
    numbers = [rng.generator(s, rng.ORDER, 0).integers(0, 2**63) for s in (seed, seed ^ 1, seed ^ 2)]
    assert len(set(numbers)) == 3


def test_no_two_keys_share_a_number():
    keys = product((0, 1, 2), (rng.ORDER, rng.SAMPLE, rng.MODEL), range(6), range(6))
    numbers = np.concatenate([rng.generator(*key).integers(0, 2**64, 32, dtype=np.uint64) for key in keys])
    # Among 10,368 words of 64 bits two are equal by chance once in 3e11 runs.
    assert len(np.unique(numbers)) == len(numbers)


def test_streams_of_neighbouring_keys_are_uncorrelated():
    keys = [(0, rng.SAMPLE, 0, 0), (0, rng.SAMPLE, 0, 1), (0, rng.SAMPLE, 1, 0), (1, rng.SAMPLE, 0, 0), (0, 2, 0, 0)]
    numbers = np.stack([rng.generator(*key).standard_normal(40_000) for key in keys])
    off_diagonal = np.corrcoef(numbers)[~np.eye(len(keys), dtype=bool)]
    # A correlation of n pairs has a standard deviation of 1 / sqrt(n): 6 of them fail once in 5e7 seeds.
    assert np.abs(off_diagonal).max() < 6 / np.sqrt(40_000)
