"""How alike shots are, and the statistics of a cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bassl_fast.heads.similarity import (
    REACH,
    SimilarityHead,
    _ranks,
    alike,
    combine,
    film_statistics,
    is_histogram,
    statistic_names,
)
from shard_tools.errors import FeatureError

PAIRS = 2 * REACH - 1


def histograms(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.dirichlet(np.full(shape[-1], 0.2), shape[:-1]).astype(np.float32)


def test_vectors_are_compared_by_cosine_from_the_mean_of_the_film():
    x = np.random.default_rng(0).normal(3, 1, (30, 8)).astype(np.float32)
    unit = x - x.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = alike(x)
    assert found.shape == (30, PAIRS)
    for shot, apart in ((0, 1), (3, 7), (6, PAIRS)):
        assert found[shot, apart - 1] == pytest.approx(unit[shot] @ unit[shot + apart], abs=1e-5)
    assert np.isnan(found[29]).all()
    assert np.isnan(found[20, 9:]).all()


def test_two_shots_are_as_alike_as_their_best_pair_of_key_frames():
    x = np.random.default_rng(0).normal(size=(6, 3, 8)).astype(np.float32)
    x[4, 2] = x[1, 0]
    assert alike(x)[1, 2] == pytest.approx(1, abs=1e-5)


def test_histograms_are_recognised_and_ranked():
    rng = np.random.default_rng(0)
    x = histograms(rng, 40, 256)
    x[10] = x[7]
    assert is_histogram(x)
    assert not is_histogram(x - 0.01)
    found = alike(x)
    assert np.nanmax(found) == found[7, 2]


@given(st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_ranks_do_not_change_with_scale_and_are_between_0_and_1(shots: int, seed: int):
    kind = alike(np.random.default_rng(seed).normal(size=(shots, 5)))
    ranks = combine([kind])
    assert np.array_equal(np.isnan(ranks), np.isnan(kind))
    known = ranks[~np.isnan(ranks)]
    assert ((known >= 0) & (known <= 1)).all()
    if len(known):
        assert known.mean() == pytest.approx(0.5)
    assert np.array_equal(combine([2 * kind + 1]), ranks, equal_nan=True)


@given(st.integers(2, 40), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_a_film_played_backwards_has_the_same_statistics(shots: int, seed: int):
    rng = np.random.default_rng(seed)
    x, seconds = rng.normal(size=(shots, 5)), rng.uniform(0.1, 30, shots)
    forwards = film_statistics([alike(x)], seconds)[:-1]
    backwards = film_statistics([alike(x[::-1])], seconds[::-1])[:-1][::-1]
    assert backwards == pytest.approx(forwards, abs=1e-4)


@pytest.mark.parametrize("shots", [1, 2, 3, 100])
def test_films_of_any_length_have_finite_statistics(shots: int):
    kind = alike(histograms(np.random.default_rng(0), shots, 3, 16))
    found = film_statistics([kind], np.ones(shots))
    assert found.shape == (shots, len(statistic_names()))
    assert np.isfinite(found).all()
    assert SimilarityHead(np.zeros(len(statistic_names()) + 1, np.float32))(found).shape == (shots,)


def test_pictures_that_are_all_alike_are_no_reason_for_a_boundary():
    black = np.zeros((30, 3, 256), np.float32)
    black[..., 0] = 1
    found = film_statistics([alike(black)], np.full(30, 4.0))
    assert np.isfinite(found).all()
    assert abs(found[12:18, : statistic_names().index("duration_1")]).max() < 0.5


def test_a_feature_that_is_not_finite_names_film_and_shot():
    x = np.ones((5, 4))
    x[3, 1] = np.nan
    with pytest.raises(FeatureError, match="Sintel: the feature of shot 3 is NaN or infinite"):
        alike(x, "Sintel")


def some_lacking(shots: int, lacking: slice, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(shots, 8)).astype(np.float32)
    x[lacking] = np.nan
    return x


def test_a_shot_may_lack_a_kind():
    x = some_lacking(40, slice(5, 9))
    with pytest.raises(FeatureError, match="shot 5 is NaN"):
        alike(x)
    found, present = alike(x, may_lack=True), np.delete(x, range(5, 9), 0)
    assert np.isnan(found[5:9]).all()
    assert np.isnan(found[4, :4]).all()
    assert found[4, 4] == pytest.approx(alike(present)[4, 0], abs=1e-6)
    x[20, 3] = np.nan
    with pytest.raises(FeatureError, match="shot 20 is NaN"):
        alike(x, may_lack=True)


def test_ranks_are_averaged_over_the_kinds_that_know_a_pair():
    kinds = [alike(some_lacking(40, slice(0, 0), seed)) for seed in range(2)]
    lacking = alike(some_lacking(40, slice(5, 9), 2), may_lack=True)
    ranks = [_ranks(kind) for kind in (*kinds, lacking)]
    mean = np.where(np.isnan(lacking), np.mean(ranks[:2], 0), np.mean(ranks, 0)).round(9)
    assert np.array_equal(combine([*kinds, lacking]), _ranks(mean), equal_nan=True)
    nothing = np.full_like(lacking, np.nan)
    assert np.array_equal(combine([*kinds, nothing]), combine(kinds), equal_nan=True)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_without_a_gap_ranks_are_the_mean_over_all_kinds_bit_for_bit(number: int):
    kinds = [alike(some_lacking(60, slice(0, 0), seed)) for seed in range(number)]
    expected = _ranks(np.mean([_ranks(kind) for kind in kinds], 0).round(9))
    assert np.array_equal(combine(kinds), expected, equal_nan=True)
    x = some_lacking(60, slice(0, 0))
    assert np.array_equal(alike(x, may_lack=True), alike(x), equal_nan=True)
