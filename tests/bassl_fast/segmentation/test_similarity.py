"""Fitting the similarity head, its file, and the weights that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.metrics import average_precision_score

from bassl_fast.heads.similarity import statistic_names
from bassl_fast.segmentation.films import LabelledFilm
from bassl_fast.segmentation.similarity import SHIPPED, SimilarityModel, fit
from shard_tools.errors import CheckpointError, FeatureError


def film(seed: int, scenes: int = 12, kinds: int = 1, noise: float = 0.6) -> LabelledFilm:
    """A film whose shots are alike within scenes of 3 to 9 shots."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, scenes)
    scene = np.repeat(np.arange(scenes), lengths)
    boundary = np.append(np.diff(scene), 0)
    features = {
        f"kind{i}": rng.normal(size=(scenes, 8))[scene] + noise * rng.normal(size=(len(scene), 8)) for i in range(kinds)
    }
    return LabelledFilm(f"film{seed}", features, rng.uniform(1, 8, len(scene)), boundary)


def test_it_finds_scenes_of_films_and_kinds_it_was_not_trained_on():
    model = fit([film(seed, kinds=2) for seed in range(6)])
    for seed, kinds in ((10, 1), (11, 2), (12, 3)):
        new = film(seed, kinds=kinds)
        found = model.probability(list(new.kinds.values()), new.seconds)
        assert found.shape == (len(new.seconds),)
        assert found[-1] == 0
        assert average_precision_score(new.boundary, found) > 0.8
        scenes = (found >= model.thresholds["normal"]).sum() + 1
        assert 0.6 <= scenes / 12 <= 1.5


def test_details_are_about_half_and_twice_as_many_scenes():
    model = fit([film(seed) for seed in range(6)])
    coarse, normal, fine = (model.thresholds[name] for name in ("coarse", "normal", "fine"))
    assert coarse > normal > fine


def test_the_same_films_give_the_same_bytes(tmp_path: Path):
    for name in "ab":
        fit([film(seed) for seed in range(3)]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = SimilarityModel.load(tmp_path / "a")
    assert read.thresholds == fit([film(seed) for seed in range(3)]).thresholds
    new = film(9)
    expected = fit([film(seed) for seed in range(3)]).probability(list(new.kinds.values()), new.seconds)
    assert np.array_equal(read.probability(list(new.kinds.values()), new.seconds), expected)


def test_the_weights_of_the_package():
    assert SHIPPED.stat().st_size < 1 << 20
    model = SimilarityModel.load()
    new = film(3)
    assert average_precision_score(new.boundary, model.probability(list(new.kinds.values()), new.seconds)) > 0.7


def test_unlabelled_shots_are_left_out():
    films = [film(seed) for seed in range(3)]
    half = [
        LabelledFilm(f.name, f.kinds, f.seconds, np.where(np.arange(len(f.seconds)) < 20, f.boundary, -1))
        for f in films
    ]
    wrong = [
        LabelledFilm(f.name, f.kinds, f.seconds, np.where(np.arange(len(f.seconds)) < 20, f.boundary, 0)) for f in films
    ]
    one, other = (fit(some).head.coefficients for some in (half, wrong))
    assert not np.array_equal(one, other)


def test_features_that_do_not_fit():
    one = film(0)
    with pytest.raises(
        FeatureError, match=r"film0: features of .* shots, but .* durations; use those of the same shots"
    ):
        fit([LabelledFilm("film0", one.kinds, one.seconds[1:], one.boundary[1:])])
    with pytest.raises(FeatureError, match="need a labelled scene boundary and a labelled cut inside"):
        fit([LabelledFilm("film0", one.kinds, one.seconds, np.zeros_like(one.boundary))])


def test_a_fold_whose_other_films_have_only_boundaries():
    short = LabelledFilm("short", {"kind0": np.eye(2, 8)}, np.ones(2), np.array([1, 0]))
    assert fit([film(0), short]).thresholds["normal"] > 0
    with pytest.raises(FeatureError, match="need a labelled scene boundary and a labelled cut inside a scene"):
        fit([short])


def test_files_that_are_no_such_weights(tmp_path: Path):
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(CheckpointError, match="text: cannot be read as safetensors"):
        SimilarityModel.load(tmp_path / "text")
    model = SimilarityModel.load()
    save_file({"linear.weight": model.head.coefficients[None, :-1]}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match=r"plain\.safetensors: weights of another version of the head"):
        SimilarityModel.load(tmp_path / "plain.safetensors")
    assert len(statistic_names()) + 1 == len(model.head.coefficients)
