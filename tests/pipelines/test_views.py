"""The distributions of the view table, by large samples.

Distances between distributions are bounded by the DKW inequality and proportions by Hoeffding's: each comparison fails
for one seed in a billion if the distribution is right. The seeds are fixed, so a test that passes keeps passing.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.views import (
    ORDERS,
    STEP,
    STEPS,
    VIEW,
    TestViews,
    TrainViews,
    colour_steps,
    draw_clips,
    draw_groups,
    spread,
)
from shard_tools.errors import ConfigError

from .reference import ARITHMETIC

MANY = 100_000
FAILS = 1e-9


def bound(count: int) -> float:
    """Largest plausible distance between a distribution function and the empirical one of `count` draws from it."""
    return math.sqrt(math.log(2 / FAILS) / (2 * count))


def distance_to_uniform(drawn: np.ndarray, low: float, high: float) -> float:
    drawn, expected = np.sort(drawn), np.arange(len(drawn)) / len(drawn)
    return float(np.abs((drawn - low) / (high - low) - expected).max())


def assert_uniform(drawn: np.ndarray, low: float, high: float, grain: float = 0.0) -> None:
    """`grain`: rounding, as a fraction of the range."""
    assert drawn.min() >= low - grain * (high - low) - 1e-6
    assert drawn.max() <= high + grain * (high - low) + 1e-6
    assert distance_to_uniform(drawn, low, high) < bound(len(drawn)) + grain


def draw(count: int = MANY, height: int = 6000, width: int = 6000, seed: int = 0, **augmentation) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return draw_groups(rng, TrainViews(**augmentation), np.full(count, height), np.full(count, width))


def test_area_aspect_and_place_of_a_crop_are_uniform():
    # Up to an area of 0.75 every allowed aspect fits into a square, so no try is ever refused.
    rows = draw(area=(0.14, 0.75))
    height, width = rows["height"].astype(float), rows["width"].astype(float)
    assert_uniform(height * width / 6000**2, 0.14, 0.75, grain=1e-3)
    assert_uniform(np.log(width / height), math.log(3 / 4), math.log(4 / 3), grain=1e-3)
    assert_uniform(rows["top"] / (6000 - height), 0, 1, grain=1e-3)
    assert_uniform(rows["left"] / (6000 - width), 0, 1, grain=1e-3)


@pytest.mark.parametrize(("height", "width"), [(240, 428), (300, 200)])
def test_crops_follow_the_rule_of_ten_tries_and_a_centred_fallback(height: int, width: int):
    rows, count = draw(20_000, height, width), 20_000
    expected = np.array(list(crops_one_by_one(np.random.default_rng(1), TrainViews(), height, width, count)))
    for name, theirs in zip(("top", "left", "height", "width"), expected.T, strict=True):
        grid = np.arange(max(height, width) + 1)
        ours, theirs = (np.searchsorted(np.sort(side), grid, side="right") / count for side in (rows[name], theirs))
        assert np.abs(ours - theirs).max() < 2 * bound(count), name


def crops_one_by_one(rng: np.random.Generator, augmentation: TrainViews, height: int, width: int, count: int):
    """(top, left, height, width) by the rule as written: a loop of tries."""
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(*augmentation.area)
            aspect = math.exp(rng.uniform(math.log(augmentation.aspect[0]), math.log(augmentation.aspect[1])))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                yield rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
                break
        else:
            h, w = (
                min(height, round(width / augmentation.aspect[0])),
                min(width, round(height * augmentation.aspect[1])),
            )
            yield (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(
    ("height", "width", "crop"),
    [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10)), (100, 100, (0, 0, 100, 100))],
)
def test_the_middle_is_taken_if_no_try_fits(height: int, width: int, crop: tuple[int, ...]):
    # The whole area in an extreme picture; in a square one, an aspect that never fits.
    rows = draw(1000, height, width, area=(1.0, 1.0))
    taken = np.stack([rows[name] for name in ("top", "left", "height", "width")], 1)
    fits = (taken != crop).any(1)
    assert fits.mean() < 0.2 if height == width else not fits.any()


SIDE = st.integers(8, 4096)


@given(SIDE, st.floats(1, 16), st.booleans(), st.integers(0, 2**32))
def test_crops_lie_inside_the_picture(short: int, ratio: float, upright: bool, seed: int):
    height, width = (int(short * ratio), short) if upright else (short, int(short * ratio))
    rows = draw(32, height, width, seed)
    assert_inside(rows, height, width)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 128), (128, 8), (1, 1), (240, 428)])
@given(low=st.floats(1e-4, 1), high=st.floats(1e-4, 1), wide=st.floats(0.05, 20), seed=st.integers(0, 2**32))
def test_crops_are_inside_the_picture_for_any_augmentation(
    height: int, width: int, low: float, high: float, wide: float, seed: int
):
    rows = draw(16, height, width, seed, area=(min(low, high), max(low, high)), aspect=(min(wide, 1), max(wide, 1)))
    assert_inside(rows, height, width)


def assert_inside(rows: np.ndarray, height: int, width: int) -> None:
    for at, side, whole in (("top", "height", height), ("left", "width", width)):
        assert (rows[at] >= 0).all()
        assert (rows[side] >= 1).all()
        assert (rows[at] + rows[side] <= whole).all()


def test_flip_jitter_and_blur_have_their_rates():
    rows = draw()
    jittered = rows["brightness"] != 1
    for chosen, rate in ((rows["flip"], 0.5), (jittered, 0.8), (rows["blur"] > 0, 0.5)):
        assert abs(chosen.mean() - rate) < bound(MANY)


def test_grey_and_solarize_have_their_rates():
    rows = draw(grayscale=0.2, solarize=0.3)
    for chosen, rate in ((rows["grey"], 0.2), (rows["solarize"], 0.3), (rows["grey"] & rows["solarize"], 0.06)):
        assert abs(chosen.mean() - rate) < bound(MANY)
    assert not draw()["grey"].any()
    assert not draw()["solarize"].any()


def test_recipes_without_grey_or_solarize_draw_what_they_drew_before_these_existed():
    """The numbers of a picture, in the original order of drawing; no further number is drawn."""
    ours, theirs = np.random.default_rng(5), np.random.default_rng(5)
    augmentation, sides = TrainViews(), (np.full(50, 240), np.full(50, 428))
    rows = draw_groups(ours, augmentation, *sides)
    theirs.uniform(*augmentation.area, (50, 10)), theirs.uniform(0, 1, (50, 10)), theirs.random(50), theirs.random(50)
    assert (rows["flip"] == (theirs.random(50) < 0.5)).all()
    jitter = theirs.random(50) < 0.8
    for step in ("brightness", "contrast", "saturation"):
        assert (rows[step] == np.where(jitter, theirs.uniform(0.8, 1.2, 50), 1).astype(np.float32)).all()
    assert (rows["hue"] == np.where(jitter, theirs.uniform(-0.05, 0.05, 50), 0).astype(np.float32)).all()
    assert (rows["order"] == theirs.integers(0, 24, 50)).all()
    assert (rows["blur"] == (theirs.random(50) < 0.5)).all()
    assert ours.random() == theirs.random()

    both = draw_groups(np.random.default_rng(5), TrainViews(grayscale=0.2, solarize=0.2), *sides)
    for name in set(VIEW.names) - {"grey", "solarize"}:
        assert (both[name] == rows[name]).all(), name


def test_jitter_draws_every_factor_or_none():
    rows = draw()
    on = rows["brightness"] != 1
    for step in ("brightness", "contrast", "saturation"):
        assert_uniform(rows[step][on], 0.8, 1.2)
        assert (rows[step][~on] == 1).all()
    assert_uniform(rows["hue"][on], -0.05, 0.05)
    assert (rows["hue"][~on] == 0).all()


def test_every_order_of_colour_steps_is_equally_likely():
    assert sorted(map(tuple, ORDERS.tolist())) == sorted(permutations(range(4)))
    counts = np.bincount(draw()["order"], minlength=24)
    assert len(counts) == 24
    assert np.abs(counts / MANY - 1 / 24).max() < bound(MANY)


def test_what_a_group_draws_is_independent():
    rows = draw(area=(0.14, 0.75))
    height, width = rows["height"].astype(float), rows["width"].astype(float)
    on = rows["brightness"] != 1
    columns = [height * width, width / height, rows["top"] / (6000 - height), rows["left"] / (6000 - width)]
    columns += [rows[name].astype(float) for name in ("flip", *STEPS, "order", "blur")]
    off_diagonal = np.corrcoef([column[on] for column in columns])[~np.eye(len(columns), dtype=bool)]
    # 110 correlations with a standard deviation of 1 / sqrt(n): 7 of them fail once in 3e9 seeds.
    assert np.abs(off_diagonal).max() < 7 / math.sqrt(on.sum())


def test_neighbouring_groups_are_independent():
    rows = draw(area=(0.14, 0.75))
    for name in ("top", "height", "flip", "brightness", "order", "blur"):
        column = rows[name].astype(float)
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 7 / math.sqrt(MANY), name


def test_blur_sigma_is_drawn_for_every_picture_and_the_rest_is_shared():
    groups = draw(MANY // 10)
    frames = np.arange(MANY).reshape(-1, 10)
    rows = spread(np.random.default_rng(1), TrainViews(), groups, frames)
    assert rows.shape == frames.shape
    assert (rows["frame"] == frames).all()
    for name in set(VIEW.names) - {"frame", "blur"}:
        assert (rows[name] == groups[name][:, None]).all(), name
    blurred = groups["blur"] > 0
    assert (rows["blur"][~blurred] == 0).all()
    assert_uniform(rows["blur"][blurred].ravel(), 0.1, 2.0)
    sigma = rows["blur"][blurred]
    assert abs(np.corrcoef(sigma[:, 0], sigma[:, 1])[0, 1]) < 7 / math.sqrt(len(sigma))


def test_pictures_of_a_clip_share_all():
    height, width = np.full(MANY // 10, 240), np.full(MANY // 10, 428)
    frames = np.arange(MANY // 10 * 4).reshape(-1, 4)
    augmentation = TrainViews(grayscale=0.2, solarize=0.2)
    rows = draw_clips(np.random.default_rng(1), augmentation, height, width, frames)
    assert (rows["frame"] == frames).all()
    for name in set(VIEW.names) - {"frame"}:
        assert (rows[name] == rows[name][:, :1]).all(), name
    sigma = rows["blur"][:, 0]
    assert_uniform(sigma[sigma > 0], 0.1, 2.0)
    rng = np.random.default_rng(1)
    one_by_one = spread(rng, augmentation, draw_groups(rng, augmentation, height, width), frames[:, :1])
    assert (rows[:, :1] == one_by_one).all()


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 854), (854, 480), (240, 428)])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_drawn_short_side_has_its_distribution(height: int, width: int, inverse: bool):
    rows = draw(MANY, height, width, short_side=(256, 320), inverse=inverse)
    assert (rows["height"] == rows["width"]).all()
    assert_inside(rows, height, width)
    short = min(height, width)
    short_side = short * 224 / rows["height"].astype(float)
    low, high = (1 / 320, 1 / 256) if inverse else (256, 320)
    drawn = 1 / short_side if inverse else short_side
    # A crop has whole pixels: the distribution is right to one pixel.
    assert_uniform(np.clip(drawn, low, high), low, high, grain=320 / 64 / (short * 224 / 320))
    for side, whole in (("top", height), ("left", width)):
        room = whole - rows["height"]
        assert rows[side].min() == 0
        assert (rows[side] == room).any()
        assert_uniform((rows[side] + 0.5) / (room + 1), 0, 1, grain=1 / room.min())


@given(
    st.integers(1, 2048), st.integers(1, 2048), st.floats(8, 400), st.floats(1, 4), st.booleans(), st.integers(0, 2**32)
)
def test_squares_lie_inside_any_picture(height: int, width: int, low: float, ratio: float, inverse: bool, seed: int):
    assert_inside(draw(16, height, width, seed, size=8, short_side=(low, low * ratio), inverse=inverse), height, width)


@pytest.mark.parametrize("augmentation", [{"flip": 0, "jitter": 0, "blur": 0}, {"flip": 1, "jitter": 1, "blur": 1}])
def test_a_rate_of_none_or_all_is_exact(augmentation: dict):
    rows = draw(1000, **augmentation)
    found = (rows["flip"], rows["brightness"] != 1, rows["blur"] > 0)
    assert [float(chosen.mean()) for chosen in found] == list(augmentation.values())


def test_pictures_of_different_sizes_are_drawn_together():
    height, width = np.array([[240, 100], [8, 300]]), np.array([[428, 80], [128, 9]])
    rows = draw_groups(np.random.default_rng(0), TrainViews(), height, width)
    assert rows.shape == (2, 2)
    assert (rows["top"] + rows["height"] <= height).all()
    assert (rows["left"] + rows["width"] <= width).all()


@pytest.mark.parametrize("number", range(24))
def test_colour_steps_are_the_jitter_in_its_order(number: int):
    rng = np.random.default_rng(number)
    rows = draw(4, jitter=1, hue=0.5, grayscale=0.5, seed=number)
    rows["order"] = number
    for row, steps in zip(rows, colour_steps(rows), strict=True):
        picture = expected = rng.uniform(0, 255, (50, 1, 3))
        for step in ORDERS[number]:
            expected = np.clip(ARITHMETIC[STEPS[step]](expected, float(row[STEPS[step]])), 0, 255)
        if row["grey"]:
            expected = ARITHMETIC["saturation"](expected, 0)
        for step in steps:
            picture = weighed(step, picture)
        np.testing.assert_allclose(picture, expected, atol=1e-3)


def weighed(step: np.void, picture: np.ndarray) -> np.ndarray:
    """What `views.STEP` says."""
    least, most = picture.min(-1, keepdims=True), picture.max(-1, keepdims=True)
    grey = picture @ [[0.299], [0.587], [0.114]]
    own = step["own"] * picture + step["next"] * np.roll(picture, -1, -1) + step["previous"] * np.roll(picture, 1, -1)
    made = own + step["extremes"] * (least + most) + step["grey"] * grey + step["mean"] * grey.mean() + step["constant"]
    return np.clip(made, least, most) if step["next"] or step["previous"] else np.clip(made, 0, 255)


def test_no_jitter_changes_nothing():
    steps = colour_steps(draw(100, jitter=0))
    assert (steps["own"] == 1).all()
    assert not any(steps[name].any() for name in STEP.names[1:])


@pytest.mark.parametrize(
    ("augmentation", "says"),
    [
        ({"flip": 1.1}, "views.flip 1.1"),
        ({"jitter": -0.1}, "views.jitter -0.1"),
        ({"brightness": 2}, "views.brightness 2"),
        ({"hue": 0.6}, "views.hue 0.6"),
        ({"area": (0, 1)}, "views.area"),
        ({"area": (0.5, 1.5)}, "views.area up to 1.5"),
        ({"aspect": (2, 1)}, "views.aspect"),
        ({"sigma": (0, 1)}, "views.sigma"),
        ({"size": 4}, "views.size 4"),
        ({"grayscale": -0.1}, "views.grayscale -0.1"),
        ({"solarize": 1.1}, "views.solarize 1.1"),
        ({"short_side": (320, 256)}, "views.short_side [320, 256]"),
        ({"short_side": (200, 256)}, "views.short_side from 200: must be at least the size, 224"),
        ({"inverse": True}, "views.inverse needs views.short_side"),
        ({"std": (0.2, 0.0, 0.2)}, "views.mean"),
        ({"mean": (115.0, 110.0, 100.0)}, "views.mean"),
        ({"blur": float("nan")}, "views.blur nan"),
    ],
)
def test_values_out_of_range_are_refused_by_name(augmentation: dict, says: str):
    with pytest.raises(ConfigError, match=says.replace("[", r"\[")):
        TrainViews(**augmentation)


@pytest.mark.parametrize("sizes", [(224, 256), (256, 7), (256, 224, 2)])
def test_test_views_out_of_range_are_refused(sizes: tuple[int, ...]):
    with pytest.raises(ConfigError, match="test views"):
        TestViews(*sizes)


def test_test_views_of_training_views_have_the_same_size_and_normalisation():
    found = TrainViews(size=112, mean=(0.45,) * 3, std=(0.225,) * 3).at_test()
    assert found == TestViews(128, 112, 1, (0.45,) * 3, (0.225,) * 3)
