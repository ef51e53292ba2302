"""Distributions of what BaSSL draws for a sample: key-frames, augmentations of its two groups, masks, picks.

A correct sampler fails a chi-square test for one seed in 10,000, the other bounds (Hoeffding's) for one in a billion.
The seeds are fixed, so a test that passes once always passes.
"""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from bassl_fast.methods import BaSSL
from pipelines.samples import Centers, Drawn
from pipelines.views import VIEW
from tests.pipelines.test_plan import assert_uniform
from tests.pipelines.test_views import assert_uniform as assert_uniform_within
from tests.pipelines.test_views import bound

MANY, T, RATE = 20_000, 17, 0.15
SHARED = [name for name in VIEW.names if name not in ("frame", "blur")]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Of windows in the middle of one film, so the key-frame tells shot and image."""
    method = BaSSL(8, hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8)
    facts = {"film": 0, "position": 500, "shots": 1000, "first_frame": 0, "frames_per_shot": 3}
    centers = Centers(**{name: np.full(MANY, n) for name, n in {**facts, "height": 240, "width": 426}.items()})
    return method.sample(centers, np.random.default_rng(0))


def test_one_of_three_key_frames_is_drawn_for_each_shot_independently(drawn: Drawn):
    shot, image = np.divmod(drawn.views["frame"][:, 2:], 3)
    assert (shot == np.arange(500 - 8, 500 + 9)).all()
    assert_uniform(np.bincount((image + 3 * np.arange(T)).ravel(), minlength=3 * T), 3 * T)
    assert_uniform(np.bincount((image[:, :-1] * 3 + image[:, 1:]).ravel(), minlength=9), 9)


def test_sparse_views_are_of_the_key_frames_of_the_dense_ends(drawn: Drawn):
    assert (drawn.views["frame"][:, :2] == drawn.views["frame"][:, [2, -1]]).all()


def test_a_group_shares_its_augmentation_and_two_groups_are_independent(drawn: Drawn):
    sparse, dense = drawn.views[:, :2], drawn.views[:, 2:]
    for group in (sparse, dense):
        for name in SHARED:
            assert (group[name] == group[name][:, :1]).all(), name
        assert ((group["blur"] > 0) == (group["blur"][:, :1] > 0)).all()
    for name in ("flip", "brightness", "hue", "order", "top", "left", "height", "width"):
        found = np.corrcoef(sparse[name][:, 0].astype(float), dense[name][:, 0].astype(float))[0, 1]
        assert abs(found) < 6.1 / np.sqrt(MANY), name  # 6.1 standard deviations: once in a billion
    pairs = np.bincount(2 * (sparse["blur"][:, 0] > 0) + (dense["blur"][:, 0] > 0), minlength=4)
    assert_uniform(pairs, 4)  # half of the groups are blurred, whatever the other one is


def test_sigma_is_drawn_for_every_blurred_view(drawn: Drawn):
    for group in (drawn.views[:, :2], drawn.views[:, 2:]):
        blurred = group["blur"][group["blur"][:, 0] > 0]
        assert_uniform_within(blurred[:, 0], 0.1, 2.0)
        assert_uniform_within(blurred[:, -1], 0.1, 2.0)
        assert abs(np.corrcoef(blurred[:, 0], blurred[:, -1])[0, 1]) < 6.1 / np.sqrt(len(blurred))


def test_a_shot_is_masked_at_the_rate_and_one_always_is(drawn: Drawn):
    mask = drawn.extras["mask"]
    assert mask.any(1).all()
    # None of 17 is masked with (1 - p)^17 = 0.063; one of them, drawn uniformly, is then.
    expected = RATE + (1 - RATE) ** T / T
    assert np.abs(mask.mean(0) - expected).max() < bound(MANY)
    counts = np.bincount(mask.sum(1), minlength=T + 1)[1:]
    chance = np.array([comb(T, k) * RATE**k * (1 - RATE) ** (T - k) for k in range(1, T + 1)])
    chance[0] += (1 - RATE) ** T
    assert np.abs(counts.cumsum() / MANY - chance.cumsum()).max() < bound(MANY)


def test_picks_are_uniform_and_independent(drawn: Drawn):
    pick = drawn.extras["pick"]
    for column in pick.T:
        assert_uniform_within(column, 0.0, 1.0)
    cells = (pick * 4).astype(int) @ [16, 4, 1]
    assert_uniform(np.bincount(cells, minlength=64), 64)
