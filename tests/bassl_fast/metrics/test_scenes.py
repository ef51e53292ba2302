"""Metrics against the golden answers of the reference, and the properties a score must have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bassl_fast.metrics.neighbours import knn_precision
from bassl_fast.metrics.scenes import FilmScores, best_threshold, per_film, precision_recall, scene_metrics
from shard_tools.errors import ConfigError, FeatureError

GOLDEN = Path(__file__).parents[2] / "golden"


def film(probability, boundary, lengths=None, name="tt1") -> FilmScores:
    """A film whose shots last `lengths` frames, one after the other (30 each by default)."""
    end = np.cumsum(np.full(len(boundary), 30) if lengths is None else lengths) - 1
    return FilmScores(name, probability, boundary, np.append(0, end[:-1] + 1)[: len(end)], end)


def untimed(scores: FilmScores) -> FilmScores:
    unknown = np.full(len(scores.boundary), -1)
    return FilmScores(scores.film, scores.probability, scores.boundary, unknown, unknown)


@st.composite
def film_lists(draw, labels=(0, 1)) -> list[FilmScores]:
    films = []
    for i in range(draw(st.integers(1, 4))):
        shots = draw(st.integers(1, 25))
        boundary = draw(st.lists(st.sampled_from(labels), min_size=shots, max_size=shots))
        probability = draw(st.lists(st.floats(0, 1, width=16), min_size=shots, max_size=shots))
        lengths = draw(st.lists(st.integers(1, 100), min_size=shots, max_size=shots))
        films.append(film(probability, boundary, lengths, f"tt{i}"))
    return films


@pytest.fixture(scope="module")
def golden_films() -> list[FilmScores]:
    with np.load(GOLDEN / "metrics.npz") as data:
        names = sorted({key.split("_")[0] for key in data})
        return [
            FilmScores(name, data[f"{name}_prob"], data[f"{name}_gt"], *data[f"{name}_start_end"].T) for name in names
        ]


def test_equal_to_the_reference(golden_films):
    answer = json.loads((GOLDEN / "metrics_answer.json").read_text())
    answer["mean_ap"] = answer.pop("mean_ap_per_movie")
    assert scene_metrics(golden_films, reference_quirks=True) == pytest.approx(answer, rel=1e-5)


def test_ours_differs_from_the_reference_in_miou_alone(golden_films):
    ours, theirs = scene_metrics(golden_films), scene_metrics(golden_films, reference_quirks=True)
    assert {name for name in ours if ours[name] != theirs[name]} == {"miou"}


def test_knn_equal_to_the_reference():
    with np.load(GOLDEN / "knn.npz") as data:
        films = sorted({key.split("_")[0] for key in data})
        answer = knn_precision({f: data[f"{f}_feat"] for f in films}, {f: data[f"{f}_scene"] for f in films})
    expected = json.loads((GOLDEN / "knn_answer.json").read_text())
    assert answer == pytest.approx({int(k): v for k, v in expected.items()}, rel=1e-6)


@given(film_lists(labels=(0, 1, -1)), st.randoms())
@settings(deadline=None, max_examples=50)
def test_the_order_of_films_does_not_matter(films, random):
    if not any(f.labelled.any() for f in films):
        return
    shuffled = random.sample(films, len(films))
    assert scene_metrics(shuffled) == pytest.approx(scene_metrics(films))


@given(film_lists(labels=(0, 1, -1)))
@settings(deadline=None, max_examples=50)
def test_every_score_is_a_percentage(films):
    if any(f.labelled.any() for f in films):
        assert all(0 <= value <= 100 + 1e-9 for value in scene_metrics(films).values())


@given(film_lists())
@settings(deadline=None, max_examples=50)
def test_a_perfect_prediction_gives_100(films):
    perfect = [FilmScores(f.film, f.boundary.astype(float), f.boundary, f.start, f.end) for f in films]
    scores = scene_metrics(perfect)
    assert {"acc", "miou"} <= scores.keys()
    assert list(scores.values()) == pytest.approx([100] * len(scores))


@given(film_lists(), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_unlabelled_shots_change_no_score(films, extra):
    """Unlabelled shots appended to each film, whatever their probability."""
    longer = [
        FilmScores(
            f.film,
            np.append(f.probability, np.ones(extra)),
            np.append(f.boundary, np.full(extra, -1)),
            np.append(f.start, f.end[-1] + 1 + np.arange(extra)),
            np.append(f.end, f.end[-1] + 1 + np.arange(extra)),
        )
        for f in films
    ]
    assert scene_metrics(longer) == pytest.approx(scene_metrics(films))


@given(film_lists())
@settings(deadline=None, max_examples=30)
def test_miou_equal_to_counting_frames(films):
    """Against the plain definition: a scene is a set of frames."""

    def frames(boundary, f):
        scene = np.append(0, np.cumsum(boundary)[:-1])
        return [
            {t for i in np.flatnonzero(scene == s) for t in range(f.start[i], f.end[i] + 1)} for s in np.unique(scene)
        ]

    def best(ours, theirs):
        return np.mean([max(len(a & b) / len(a | b) for b in theirs) for a in ours])

    expected = []
    for f in films:
        true, predicted = frames(f.boundary, f), frames(f.probability >= 0.5, f)
        expected.append((best(true, predicted) + best(predicted, true)) / 2)
    assert scene_metrics(films)["miou"] == pytest.approx(100 * np.mean(expected))


def test_a_film_without_a_boundary_is_scored():
    quiet, other = film([0.1] * 4, [0] * 4, name="quiet"), film([0.1, 0.9, 0.1, 0.1], [0, 1, 0, 0])
    assert scene_metrics([quiet]) == {"acc": 100, "acc0": 100, "miou": 100}
    assert scene_metrics([quiet, other])["mean_ap"] == 100
    with pytest.raises(FeatureError, match=r"quiet.*reference_quirks"):
        scene_metrics([quiet, other], reference_quirks=True)


def test_the_tail_is_a_scene():
    scores = film([0.1, 0.9, 0.1, 0.9, 0.1, 0.1], [0, 1, 0, 0, 0, 0])  # true 2+4 shots, predicted 2+2+2
    assert scene_metrics([scores])["miou"] == pytest.approx(100 * ((1 + 0.5) / 2 + (1 + 0.5 + 0.5) / 3) / 2)


def test_one_frame_shots_count():
    scores = film([0.9, 0.9, 0.1], [1, 1, 0], lengths=[1, 1, 1])
    assert scene_metrics([scores])["miou"] == 100


@pytest.mark.parametrize(
    ("frames", "away", "counts"), [(10, 5, True), (10, 6, False), (72, 1, False), (71, 1, True), (36, 2, False)]
)
def test_recall_at_3s_is_near_in_shots_and_in_seconds(frames, away, counts):
    boundary, probability = np.zeros(20, int), np.zeros(20)
    boundary[8], probability[8 + away] = 1, 1
    scores = scene_metrics([film(probability, boundary, [frames] * 20)])
    assert scores["recall"] == 0
    assert scores["recall_at_3s"] == 100 * counts


def test_a_metric_of_another_package(golden_films):
    def precision(films, threshold):
        predicted = np.concatenate([f.predicted(threshold) for f in films])
        return 100 * np.concatenate([f.boundary == 1 for f in films])[predicted].mean() if predicted.any() else None

    ours, scores = scene_metrics(golden_films, 0.4), scene_metrics(golden_films, 0.4, more={"precision": precision})
    assert scores == {**ours, "precision": precision(golden_films, 0.4)}
    assert "precision" not in scene_metrics([film([0.1, 0.2], [0, 1])], more={"precision": precision})
    with pytest.raises(ConfigError, match="metric words: returned str, not a number; fix the plug-in"):
        scene_metrics(golden_films, 0.4, more={"words": lambda films, threshold: "many"})  # type: ignore[dict-item]


def test_unknown_times_leave_out_what_needs_them():
    scores = film([0.1, 0.9, 0.1], [0, 1, 0])
    known, unknown = scene_metrics([scores]), scene_metrics([scores, untimed(scores)])
    assert known.keys() - unknown.keys() == {"recall_at_3s", "miou"}


def test_threshold_is_inclusive():
    scores = film([0.3, 0.6, 0.5], [0, 1, 0])
    assert scene_metrics([scores], threshold=0.6)["f1"] == 100
    assert scene_metrics([scores], threshold=0.5)["f1"] == pytest.approx(200 / 3)


def test_best_threshold_reaches_the_best_f1(golden_films):
    best = scene_metrics(golden_films, best_threshold(golden_films))["f1"]
    assert best >= max(scene_metrics(golden_films, t)["f1"] for t in np.linspace(0, 1, 41))
    precision, recall, thresholds = precision_recall(golden_films)
    assert len(precision) == len(recall) == len(thresholds) + 1


def test_per_film(golden_films):
    rows = per_film(golden_films)
    assert [row["film"] for row in rows] == [f.film for f in golden_films]
    assert [row["boundaries"] for row in rows] == [2, 15, 9, 10, 5]
    assert np.mean([row["ap"] for row in rows]) == pytest.approx(scene_metrics(golden_films)["mean_ap"])
    assert per_film([film([0.9, 0.1], [-1, -1])]) == [
        {"film": "tt1", "shots": 0, "boundaries": 0, "predicted": 0, "hits": 0}
    ]


@pytest.mark.parametrize(
    ("probability", "boundary", "message"),
    [
        ([0.1, np.nan, 0.2], [0, 1, 0], r"tt1: score of shot 1 is nan"),
        ([0.1, 1.5, 0.2], [0, 1, 0], r"tt1: score of shot 1 is 1.5"),
        ([0.1, 0.2, 0.3], [0, 2, 0], r"tt1: a boundary label"),
        ([0.1, 0.2], [0, 1, 0], r"tt1: boundary has shape \[3\]"),
    ],
)
def test_bad_scores_name_the_film(probability, boundary, message):
    with pytest.raises(FeatureError, match=message):
        film(probability, boundary)


def test_shot_that_ends_before_it_starts():
    with pytest.raises(FeatureError, match="tt1: shot 1 ends"):
        FilmScores("tt1", [0.1, 0.2], [0, 0], [0, 10], [9, 5])


def test_nothing_to_score():
    with pytest.raises(FeatureError, match="no labelled shot in no films"):
        scene_metrics([])
    with pytest.raises(FeatureError, match="no labelled shot in tt1"):
        scene_metrics([film([0.1], [-1])])
    with pytest.raises(FeatureError, match="no true boundary in tt1"):
        best_threshold([film([0.1], [0])])


def test_knn_of_scenes_far_apart():
    scene = np.repeat([0, 1, 2], [7, 7, 2])
    features = np.eye(3)[scene] + 0.01 * np.random.default_rng(0).standard_normal((16, 3))
    answer = knn_precision({"tt1": features}, {"tt1": scene}, ks=(1, 5, 7, 8))
    assert answer == {1: 100, 5: 100, 7: pytest.approx(600 / 7)}  # a scene of 7 has 6 others; none has 8


@given(st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_knn_leaves_unlabelled_shots_out(seed):
    rng = np.random.default_rng(seed)
    features, scene = rng.standard_normal((40, 8)), rng.integers(-1, 4, 40)
    kept = scene >= 0
    assert knn_precision({"a": features}, {"a": torch.tensor(scene)}) == pytest.approx(
        knn_precision({"a": torch.tensor(features[kept])}, {"a": scene[kept]})
    )


def test_knn_of_films_too_short_for_a_query():
    assert knn_precision({"a": np.ones((1, 4)), "b": np.ones((0, 4))}, {"a": [0], "b": []}) == {}


def test_knn_errors_name_the_film():
    with pytest.raises(FeatureError, match="tt2: has only one"):
        knn_precision({"tt1": np.ones((2, 4))}, {"tt1": [0, 0], "tt2": [0]})
    with pytest.raises(FeatureError, match=r"tt1: features \[2, 4\] for 3 shots"):
        knn_precision({"tt1": np.ones((2, 4))}, {"tt1": [0, 0, 1]})
    with pytest.raises(FeatureError, match="tt1: a feature is NaN"):
        knn_precision({"tt1": np.full((2, 4), np.nan)}, {"tt1": [0, 0]})
