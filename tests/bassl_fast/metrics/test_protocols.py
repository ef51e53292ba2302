"""Scores of the protocols against answers worked out by hand, and the properties a score must have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from bassl_fast.metrics import grouping
from bassl_fast.metrics.grouping import coverage_and_overflow
from bassl_fast.metrics.protocols import mean_over_annotators, metrics_of
from bassl_fast.metrics.scenes import FilmScores, scene_metrics, scores_of
from bassl_fast.metrics.tolerance import matched, read_tolerance, tolerant_metrics
from bassl_fast.segmentation.annotators import of_annotators
from shard_tools.errors import ConfigError, SourceError

from .test_scenes import film, film_lists, untimed


def scenes(*lengths: int) -> np.ndarray:
    """Scene numbers of shots, from the numbers of shots of the scenes."""
    return np.repeat(np.arange(len(lengths)), lengths)


def ends(*lengths: int) -> list[int]:
    """Boundary labels; the last shot of a film has none."""
    return [*np.diff(scenes(*lengths)).tolist(), 0]


def test_coverage_and_overflow_by_hand():
    """Ten shots. True A B C: 4 3 3. Predicted: 2 5 3.

    coverage: A 2/4, B 3/3, C 3/3; weighted by shots (4 x 1/2 + 3 + 3) / 10 = 8/10.
    overflow: A is touched by the first two predicted scenes, with 0 + 3 shots of others, and its neighbour has 3: 3/3.
    B is touched by the second, with 2 shots of others; its neighbours have 4 + 3: 2/7. C: 0.
    Weighted (4 x 1 + 3 x 2/7) / 10 = 34/70. F = 2 x 0.8 x 36/70 / (0.8 + 36/70).
    """
    assert coverage_and_overflow(scenes(4, 3, 3), scenes(2, 5, 3)) == pytest.approx((0.8, 34 / 70))
    scored = film([float(end) for end in ends(2, 5, 3)], ends(4, 3, 3))
    expected = {"coverage": 80, "overflow": 3400 / 70, "f_co": 100 * 2 * 0.8 * (36 / 70) / (0.8 + 36 / 70)}
    assert scores_of([scored], 0.5, grouping.METRICS) == pytest.approx(expected)


def test_too_few_scenes_overflow_and_too_many_do_not_cover():
    """One predicted scene. True 8 1 1: overflow 2/1, 9/9 and 9/1, weighted (8 x 2 + 1 + 9) / 10. F counts it as 1."""
    assert coverage_and_overflow(scenes(8, 1, 1), scenes(10)) == pytest.approx((1, 2.6))
    assert scores_of([film([0.0] * 10, ends(8, 1, 1))], 0.5, grouping.METRICS)["f_co"] == 0
    assert coverage_and_overflow(scenes(2, 4), scenes(1, 1, 1, 1, 1, 1)) == pytest.approx((2 / 6, 0))


@given(film_lists(labels=(0, 1, -1)))
@settings(deadline=None, max_examples=30)
def test_a_perfect_grouping_covers_all_and_overflows_nothing(films):
    perfect = [FilmScores(f.film, abs(f.boundary).astype(float), f.boundary, f.start, f.end) for f in films]
    if any(f.labelled.any() for f in films):
        assert scores_of(perfect, 0.5, grouping.METRICS) == pytest.approx({"coverage": 100, "overflow": 0, "f_co": 100})


def test_a_mean_over_films_weighs_films_alike():
    """The film above, and one of two shots that is right: coverage (80 + 100) / 2."""
    long, short = film([float(end) for end in ends(2, 5, 3)], ends(4, 3, 3)), film([1, 0], [1, 0])
    assert scores_of([long, short], 0.5, metrics_of("ovsd"))["coverage"] == pytest.approx(90)


@pytest.fixture
def seconds() -> FilmScores:
    """Ten shots of a second. True boundaries after shots 1, 4, 8; predicted after 2 (0.9), 5 (0.8) and 4 (0.6)."""
    probability = np.full(10, 0.1)
    probability[[2, 5, 4]] = 0.9, 0.8, 0.6
    boundary = np.zeros(10, int)
    boundary[[1, 4, 8]] = 1
    return film(probability, boundary, np.full(10, 24))


def test_tolerance_by_hand(seconds: FilmScores):
    """One second. Pairs 1-2 and 4-4; 8 is missed and 5 is wrong: precision, recall and F1 are 2/3.

    AP: 2 takes 1 and 5 takes 4, each at precision 1; 4 finds nothing left. The others share a probability, and one of
    them, 7, takes 8: 3 of 10 are right. So 1/3 x (1 + 1 + 3/10).
    """
    found = scores_of([seconds], 0.5, metrics_of("tolerance", "1s"))
    assert found == pytest.approx(
        {"precision_near": 200 / 3, "recall_near": 200 / 3, "f1_near": 200 / 3, "ap_near": 230 / 3}
    )


def test_tolerance_in_frames(seconds: FilmScores):
    """23 frames are less than a shot, so only 4-4 remains: 2 x 1 / (3 + 3). 24 frames are the second above."""
    assert scores_of([seconds], 0.5, metrics_of("tolerance", "23f"))["f1_near"] == pytest.approx(100 / 3)
    assert scores_of([seconds], 0.5, metrics_of("tolerance", "24f"))["f1_near"] == pytest.approx(200 / 3)
    assert (read_tolerance("0.5s"), read_tolerance("12f")) == (12, 12)


def test_pairs_are_as_many_as_can_be():
    """10-10 first would leave 20 and 0 alone."""
    assert matched(np.array([10, 20]), np.array([0, 10]), 10) == 2
    assert matched(np.array([10, 11]), np.array([10]), 10) == 1


@given(film_lists(labels=(0, 1, -1)))
@settings(deadline=None, max_examples=30)
def test_without_tolerance_scores_are_those_of_shots(films):
    if not any(f.labelled.any() for f in films):
        return
    exact, found = scene_metrics(films), scores_of(films, 0.5, tolerant_metrics(0))
    assert found.get("f1_near") == pytest.approx(exact.get("f1"))
    assert found.get("ap_near") == pytest.approx(exact.get("ap"))


@given(film_lists())
@settings(deadline=None, max_examples=30)
def test_more_tolerance_never_lowers_f1(films):
    found = [scores_of(films, 0.5, tolerant_metrics(frames)).get("f1_near", 0) for frames in (0, 20, 100, 1e9)]
    assert found == sorted(found)


def test_unknown_times_leave_tolerance_undefined(seconds: FilmScores):
    assert scores_of([untimed(seconds)], 0.5, metrics_of("tolerance")) == {}


@pytest.mark.parametrize(
    ("protocol", "tolerance", "says"),
    [("bbc2", "3s", "protocol bbc2: choose one of movienet, bbc"), ("tolerance", "3", "tolerance 3: give seconds")],
)
def test_what_is_not_known_is_refused(protocol, tolerance: str, says: str):
    with pytest.raises(ConfigError, match=says):
        metrics_of(protocol, tolerance)


@pytest.fixture
def planet_earth(tmp_path: Path) -> Path:
    """Annotations of one film of six shots, as published; its scenes are 2 2 2 and 3 3."""
    for number, starts in enumerate(("0,2,4,6", "0,3,6")):
        folder = tmp_path / "scenes" / f"annotator_{number}"
        folder.mkdir(parents=True)
        (folder / "01_Poles.txt").write_text(starts)
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "01_Poles.txt").write_text("".join(f"{25 * i}\t{25 * i + 24}\n" for i in range(6)))
    return tmp_path


def test_the_mean_over_annotators_by_hand(planet_earth: Path):
    """Predicted scenes 2 2 2: F1 and coverage are 100 for the first annotator.

    The second has one boundary, after shot 2, which none of the two predicted ones is: F1 0. Coverage is 2/3 of each
    scene.
    """
    scored, numbers = film([float(end) for end in ends(2, 2, 2)], [0] * 6, name="bbc_01"), {"bbc_01": np.arange(6)}
    sets = of_annotators([scored], numbers, planet_earth)
    assert [labelled[0].boundary.tolist() for labelled in sets.values()] == [ends(2, 2, 2), ends(3, 3)]
    each = [scores_of(labelled, 0.5, metrics_of("bbc_annotators")) for labelled in sets.values()]
    assert [(one["f1"], one["coverage"]) for one in each] == [(100, 100), (0, pytest.approx(200 / 3))]
    mean = mean_over_annotators(each)
    assert (mean["f1"], mean["coverage"]) == (50, pytest.approx(250 / 3))


def test_a_score_counts_for_the_annotators_that_it_is_defined_for():
    assert mean_over_annotators([{"ap": 40.0, "f1": 10.0}, {"f1": 20.0}]) == {"ap": 40, "f1": 15}


def test_annotations_of_other_films_are_refused(planet_earth: Path):
    scored = film([0.0] * 5, [0] * 5, name="bbc_01")
    with pytest.raises(SourceError, match=r"6 shots, bbc_01 was packed with 5"):
        of_annotators([scored], {"bbc_01": np.arange(5)}, planet_earth)
    other = film([0.0] * 5, [0] * 5, name="bbc_07")
    with pytest.raises(SourceError, match="annotator_0 has no scenes of bbc_07"):
        of_annotators([other], {"bbc_07": np.arange(5)}, planet_earth)
    with pytest.raises(SourceError, match="no scenes/annotator_0/ in it"):
        of_annotators([other], {"bbc_07": np.arange(5)}, planet_earth / "shots")
