"""Corrected results as labels: read, learnt from, and used by `scenes --checkpoint`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from bassl_fast import cli
from bassl_fast.scenes.network import Network
from bassl_fast.segmentation.corrections import corrected_films
from bassl_fast.segmentation.films import LabelledFilm
from bassl_fast.segmentation.similarity import SimilarityModel
from bassl_fast.segmentation.teaching import is_gain, teach
from shard_tools.annotations.movienet import keyframe_name
from tests.refused import refused


def write_result(folder: Path, seed: int, scenes: int = 4, corrected: bool = True) -> dict:
    """A results folder as `scenes` writes it: a scene is two cameras of one colour, shots of 1 to 4 seconds."""
    rng = np.random.default_rng(seed)
    (folder / "keyframes").mkdir(parents=True)
    shots, rows, time = [], [], 0.0
    for _ in range(scenes):
        first, colour = len(shots), rng.integers(0, 256, 3)
        for _ in range(rng.integers(3, 6)):
            shot, seconds = len(shots), float(rng.uniform(1, 4))
            shots.append({"shot": shot, "start": time, "end": time + seconds, "first_frame": 0, "last_frame": 0})
            time += seconds
            for i in range(3):
                pixels = np.clip(colour + rng.normal(0, 20, (9, 16, 3)), 0, 255).astype(np.uint8)
                out = io.BytesIO()
                Image.fromarray(pixels).save(out, "JPEG")
                (folder / "keyframes" / keyframe_name(shot, i)).write_bytes(out.getvalue())
        rows.append({"first_shot": first, "last_shot": len(shots) - 1})
    document = {"film": folder.name, "scenes": rows, "shots": shots, "corrected": [0] * corrected}
    (folder / "scenes.json").write_text(json.dumps(document))
    return document


def film(seed: int, lengths: float = 0.0, scenes: int = 12) -> LabelledFilm:
    """Shots of a scene are alike; with `lengths`, the last shot of a scene is longer, which nothing else tells of."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(scenes), rng.integers(3, 10, scenes))
    boundary = np.append(np.diff(scene), 0)
    features = rng.normal(size=(scenes, 8))[scene] + 2.5 * rng.normal(size=(len(scene), 8))
    seconds = np.exp(rng.normal(1, 0.5, len(scene)) + lengths * boundary)
    return LabelledFilm(f"film{seed}", {"kind": features}, seconds, boundary)


def test_scenes_and_keyframes_become_labels_and_features(tmp_path: Path):
    document = write_result(tmp_path / "a", 0)
    write_result(tmp_path / "b", 1, corrected=False)
    (found,) = corrected_films(tmp_path)
    count = len(document["shots"])
    assert np.flatnonzero(found.boundary).tolist() == [row["last_shot"] for row in document["scenes"][:-1]]
    assert {name: x.shape for name, x in found.kinds.items()} == {"hue": (count, 3, 256), "light": (count, 3, 144)}
    assert found.seconds == pytest.approx([row["end"] - row["start"] for row in document["shots"]])
    assert [one.name for one in corrected_films(tmp_path / "a")] == ["a"]  # a single results folder


def test_a_film_that_was_taken_over_as_it_is_counts(tmp_path: Path):
    document = write_result(tmp_path / "a", 0, corrected=False)
    write_result(tmp_path / "b", 1, corrected=False)
    (tmp_path / "a" / "scenes.json").write_text(json.dumps({**document, "by_hand": True}))
    assert [one.name for one in corrected_films(tmp_path)] == ["a"]


def test_what_the_page_saves_is_put_beside_the_keyframes(tmp_path: Path):
    document = write_result(tmp_path / "a", 0, corrected=False)
    document["scenes"] = [{"first_shot": 0, "last_shot": 1}, {"first_shot": 2, "last_shot": len(document["shots"]) - 1}]
    document["corrected"] = [1, 3]
    saved = tmp_path / "a" / "a-corrected.json"
    saved.write_text(json.dumps(document))
    (found,) = corrected_films(tmp_path)
    assert np.flatnonzero(found.boundary).tolist() == [1]
    (tmp_path / "a" / "scenes.json").write_text(json.dumps(document))  # the same corrections, taken over by `scenes`
    assert len(corrected_films(tmp_path)) == 1


def test_films_alike_in_something_new_teach_it():
    start, new = SimilarityModel.load(), [film(seed, lengths=1.5) for seed in range(20, 24)]
    taught = teach([film(seed, lengths=1.5) for seed in range(5)], start)
    assert taught.adapted
    assert len(taught.gains) == 5
    model = SimilarityModel(taught.head, {"normal": taught.threshold})
    for one in new:
        before, after = (
            average_precision_score(one.boundary, m.probability(list(one.kinds.values()), one.seconds))
            for m in (start, model)
        )
        assert after > before + 0.05


def test_films_that_teach_nothing_keep_the_order_and_set_the_number_of_scenes():
    rng = np.random.default_rng(0)
    films = [film(seed) for seed in range(5)]
    noise = [LabelledFilm(f.name, f.kinds, f.seconds, rng.permutation(f.boundary)) for f in films]
    start = SimilarityModel.load()
    taught = teach(noise, start)
    assert not taught.adapted
    np.testing.assert_allclose(taught.head.coefficients[:-1], start.head.coefficients[:-1], atol=2e-6, rtol=0)
    model = SimilarityModel(taught.head, {"normal": taught.threshold})
    found = [(model.probability(list(f.kinds.values()), f.seconds) >= taught.threshold).sum() + 1 for f in films]
    assert 8 <= np.median(found) <= 16  # 12 scenes


def test_one_film_and_films_of_one_scene():
    start = SimilarityModel.load()
    taught = teach([film(0)], start)
    assert (taught.gains, taught.adapted) == ((), False)
    one_scene = film(1)
    one_scene = LabelledFilm("one", one_scene.kinds, one_scene.seconds, np.zeros_like(one_scene.boundary))
    taught = teach([film(0), one_scene], start)
    assert not taught.adapted
    assert len(taught.gains) == 0  # the others of film 0 have no boundary, and the other film has none to score


def test_a_gain_must_be_more_than_chance():
    assert is_gain([2.0, 2.5, 3.0])
    assert not is_gain([2.0, -2.5, 3.0])
    assert not is_gain([2.0])
    assert not is_gain([])
    assert not is_gain([0.0, 0.0])


@pytest.mark.slow
def test_from_results_to_a_checkpoint_that_scenes_takes(tmp_path: Path, capsys: pytest.CaptureFixture):
    for seed in range(3):
        write_result(tmp_path / "results" / f"film{seed}", seed)
    argv = ["finetune", "--data.corrections", str(tmp_path / "results"), "--out", str(tmp_path / "run")]
    assert cli.main(argv) == 0
    assert "3 corrected films: each scored by what the others teach" in capsys.readouterr().out
    network = Network(tmp_path / "run" / "best.ckpt", None, 1, 1)
    assert network.threshold_from == "chosen on the corrected films"
    keyframes = [
        tuple((tmp_path / "results" / "film0" / "keyframes" / keyframe_name(shot, i)).read_bytes() for i in range(3))
        for shot in range(6)
    ]
    features = np.stack(list(network.features(iter(keyframes))))
    (one,) = corrected_films(tmp_path / "results" / "film0")
    taught = teach(corrected_films(tmp_path / "results"), SimilarityModel.load())
    expected = SimilarityModel(taught.head, {}).probability([x[:6] for x in one.kinds.values()], one.seconds[:6])
    np.testing.assert_allclose(network.probability(features, one.seconds[:6]), expected, atol=1e-5)
    assert "this run exists; choose another --out" in refused(capsys, *argv)


def test_what_cannot_be_learnt_from_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    def said(root: Path, *options: str) -> str:
        return refused(capsys, "finetune", "--data.corrections", root, "--out", tmp_path / "run", *options)

    def spoilt(name: str, **changes: object) -> Path:
        document = write_result(tmp_path / name / "film", 0)
        (tmp_path / name / "film" / "scenes.json").write_text(json.dumps(document | changes))
        return tmp_path / name

    (tmp_path / "empty").mkdir()
    assert "no such folder" in said(tmp_path / "none")
    assert "empty: has no results of `bassl-fast scenes`" in said(tmp_path / "empty")
    assert 'plain: none of 1 films is corrected (no scenes.json has "by_hand": true)' in said(
        spoilt("plain", corrected=[])
    )
    whole = [{"first_shot": 0, "last_shot": 99}]
    assert "scenes.json: its scenes are not those of its" in said(spoilt("other", scenes=whole))
    assert "scenes.json: not the corrected scenes of a film" in said(spoilt("keyless", scenes=[{}]))
    assert "scenes.json: not the corrected scenes of a film" in said(spoilt("none_at_all", scenes=[]))
    root = spoilt("missing")
    (root / "film" / "keyframes" / keyframe_name(2, 1)).unlink()
    assert "shot_0002_img_1.jpg: No such file or directory, but scenes.json has its shot" in said(root)
    root = spoilt("damaged")
    (root / "film" / "keyframes" / keyframe_name(2, 1)).write_bytes(b"no image")
    assert "keyframes: a key-frame of shot 2 cannot be decoded" in said(root)
    root = spoilt("more")
    count = len(json.loads((root / "film" / "scenes.json").read_text())["shots"])
    (root / "film" / "keyframes" / keyframe_name(count, 0)).touch()
    assert f"has {count} shots, but there is" in said(root)
    root = spoilt("two")
    last = [{"first_shot": 0, "last_shot": count - 1}]
    document = json.loads((root / "film" / "scenes.json").read_text()) | {"scenes": last}
    (root / "film" / "film-corrected.json").write_text(json.dumps(document))
    assert "film-corrected.json and scenes.json are different corrections of one film; keep one" in said(root)
    (root / "film" / "scenes.json").unlink()
    assert "the corrected films need a boundary and a cut inside a scene" in said(root)  # one scene
    (root / "film" / "film-corrected.json").write_text("{")
    assert "film-corrected.json: cannot be read as JSON" in said(root)
    assert "data.features and data.corrections: two sources of labels" in said(root, "--data.features", "x")
    for options in (["--linear_probe"], ["--head", "crn"], ["--head", "film"]):
        assert "data.corrections: adapts the similarity head alone" in said(root, *options)
    assert not (tmp_path / "run").exists()
    assert "give at least one folder of features" in refused(capsys, "finetune", "--out", tmp_path / "run")
