"""Fine-tuning: windows by index, which parts are trained, and which films choose what."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from bassl_fast import cli
from bassl_fast.checkpoints.model import load_model
from bassl_fast.metrics.scenes import scene_metrics
from bassl_fast.segmentation.features import FeatureSet, Film
from bassl_fast.segmentation.model import SceneBoundary, load_finetuned
from bassl_fast.segmentation.scoring import score
from bassl_fast.segmentation.windows import Windows
from shard_tools import plugins
from shard_tools.errors import FeatureError
from shard_tools.shards.format import SHOT
from tests.bassl_fast.conftest import Project
from tests.refused import refused

pytestmark = pytest.mark.slow

TUNE = ["--epochs", "3", "--data.batch", "8", "--optimiser.lr", "1e-2", "--optimiser.lr_batch", "0"]
TUNE += ["--crn.hidden", "16", "--crn.intermediate", "32", "--head", "crn"]


def tune(project: Project, out: Path, *options: str, features: str | None = None) -> dict:
    argv = ["finetune", "--data.features", features or project.features, "--out", str(out), *TUNE, *options]
    assert cli.main(argv) == 0
    return torch.load(out / "best.ckpt", weights_only=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shots", [1, 5])
def test_windows_are_the_shots_around_each_clipped_at_the_ends_of_their_film(shots: int, dtype: type):
    rng = np.random.default_rng(0)
    films = [Film(str(n), rng.standard_normal((n, 4)).astype(dtype), np.zeros(n, SHOT)) for n in (9, 1, 3)]
    windows = Windows.load(films, shots, torch.device("cpu"))
    order = torch.randperm(13)
    centres = [(film, shot) for film in films for shot in range(len(film.shots))]
    for some in (order, order[:4]):  # the second is shorter than the memory the first left
        found = windows[some]
        assert found.dtype == torch.from_numpy(films[0].features).dtype
        for window, (film, centre) in zip(found, (centres[i] for i in some), strict=True):
            around = np.clip(np.arange(centre - shots // 2, centre + shots // 2 + 1), 0, len(film.shots) - 1)
            np.testing.assert_array_equal(window, film.features[around])


def test_the_epoch_of_highest_validation_ap_is_kept_and_test_films_are_not_read(project: Project, tmp_path: Path):
    features = tmp_path / "features"
    shutil.copytree(project.features, features)
    (features / "tt9000002.npy").unlink()  # the test film
    state = tune(project, tmp_path / "s", features=str(features))
    with open(tmp_path / "s" / "metrics.csv", newline="") as file:
        aps = [float(row["val/ap"]) for row in csv.DictReader(file) if row["val/ap"]]
    assert len(aps) == 3
    assert state["best_epoch"] == int(np.argmax(aps))
    assert (state["best_epoch_from"], state["threshold_from"]) == ("val", "val")
    films, _ = score(tmp_path / "s" / "best.ckpt", features, "val")
    assert scene_metrics(films)["ap"] == pytest.approx(max(aps), rel=1e-5)


def test_the_epoch_best_on_test_is_kept_only_by_name_and_said(project: Project, tmp_path: Path, capsys):
    state = tune(project, tmp_path / "t", "--best_epoch", "test_as_the_reference_does")
    assert (state["best_epoch_from"], state["threshold_from"]) == ("test", "val")
    assert "chosen on the test films" in capsys.readouterr().out
    assert cli.main(["evaluate", str(tmp_path / "t" / "best.ckpt"), project.features]) == 0
    assert "so their scores are too high" in capsys.readouterr().out
    assert "test/ap" in (tmp_path / "t" / "metrics.csv").read_text()
    state = tune(project, tmp_path / "l", "--best_epoch", "last")
    assert (state["best_epoch"], state["best_epoch_from"], state["threshold_from"]) == (2, None, "val")
    said = refused(
        capsys, "finetune", "--data.features", project.features, "--data.val", "test", "--out", tmp_path / "n"
    )
    assert "to choose the epoch on test films, give --best_epoch test_as_the_reference_does" in said


def test_a_frozen_network_stays_as_it_was_and_its_head_learns(project: Project, tmp_path: Path):
    state = tune(project, tmp_path / "s", "--pretrained", project.pretrained, "--freeze_crn", "true")
    method = load_model(project.pretrained).method
    for name, weight in method.crn.state_dict().items():
        assert torch.equal(state["state_dict"][f"crn.{name}"], weight), name
    # The head was trained on outputs computed once; the whole model scores films exactly as validation did.
    with open(tmp_path / "s" / "metrics.csv", newline="") as file:
        aps = [float(row["val/ap"]) for row in csv.DictReader(file) if row["val/ap"]]
    films, _ = score(tmp_path / "s" / "best.ckpt", project.features, "val")
    assert scene_metrics(films)["ap"] == pytest.approx(max(aps), rel=1e-5)
    other = tune(project, tmp_path / "o", "--pretrained", project.pretrained, "--freeze_crn", "true", "--seed", "1")
    assert not torch.equal(state["state_dict"]["head.weight"], other["state_dict"]["head.weight"])


def test_a_linear_probe_is_logistic_regression_of_the_centre_shot(project: Project, tmp_path: Path):
    state = tune(project, tmp_path / "s", "--linear_probe", "true")
    assert set(state["state_dict"]) == {"head.weight", "head.bias"}
    films, _ = score(tmp_path / "s" / "best.ckpt", project.features, "test")
    features = torch.from_numpy(FeatureSet.open(project.features).films("test")[0].features.copy())
    logits = features @ state["state_dict"]["head.weight"].T + state["state_dict"]["head.bias"]
    np.testing.assert_allclose(films[0].probability, logits.softmax(-1)[:, 1], rtol=1e-4)
    model, _ = load_finetuned(tmp_path / "s" / "best.ckpt")
    assert model.shots == 1


def test_the_film_of_a_feature_that_is_not_finite_is_named():
    shots = np.zeros(3, SHOT)
    broken = np.ones((3, 4), np.float16)
    broken[1, 2] = np.nan
    films = [Film("whole", np.ones((3, 4), np.float16), shots), Film("broken", broken, shots)]
    with pytest.raises(FeatureError, match="broken: the feature of shot 1 is NaN or infinite"):
        Windows.load(films, 1, torch.device("cpu"))


def test_a_linear_probe_finds_what_is_linear():
    """On features that contain the answer, in float16."""
    torch.manual_seed(0)
    labels = torch.randint(0, 2, (64,))
    rows = np.zeros(64, SHOT)
    rows["boundary"], rows["start"], rows["end"] = labels, -1, -1
    features = (torch.randn(64, 8) + 3 * labels[:, None]).half().numpy()
    windows = Windows.load([Film("a", features, rows)], 1, torch.device("cpu"))
    probe = SceneBoundary(None, 8)
    optimiser = torch.optim.Adam(probe.parameters(), 0.1)
    for _ in range(50):
        loss = torch.nn.functional.cross_entropy(probe(windows[torch.arange(64)]), labels)
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    assert scene_metrics(windows.scores(probe))["ap"] > 99


def test_half_precision_features_score_as_whole_ones(project: Project, tmp_path: Path):
    out = tmp_path / "half"
    assert cli.main(["extract", project.pretrained, project.shards, str(out), "--dtype", "float16"]) == 0
    whole, half = (score(project.finetuned, features, "test")[0][0] for features in (project.features, out))
    np.testing.assert_allclose(half.probability, whole.probability, atol=1e-3)
    tune(project, tmp_path / "s", features=str(out))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--freeze_crn", "true"], "freeze_crn: a new network is untrained; give --pretrained"),
        (["--linear_probe", "true", "--freeze_crn", "true", "--pretrained", "x"], "linear_probe: has no contextual"),
        (["--pretrained", "nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["--best_epoch", "best"], "best_epoch"),
    ],
)
def test_options_that_do_not_go_together(project: Project, tmp_path: Path, capsys, options: list[str], said: str):
    assert said in refused(capsys, "finetune", "--data.features", project.features, "--out", tmp_path / "s", *options)
    assert not (tmp_path / "s").exists()


def test_the_numbers_of_the_reference_by_its_rules(project: Project, tmp_path: Path, capsys):
    state = torch.load(project.finetuned, weights_only=True)
    state["state_dict"]["head.bias"] += torch.tensor([-10.0, 10.0])  # the reference needs a predicted boundary
    torch.save(state, tmp_path / "eager.ckpt")
    argv = ["evaluate", str(tmp_path / "eager.ckpt"), project.features, "--out", str(tmp_path)]
    assert cli.main([*argv, "--reference_quirks", "true"]) == 0
    films, _ = score(tmp_path / "eager.ckpt", project.features, "test")
    expected = scene_metrics(films, 0.5, reference_quirks=True)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert (found["threshold"], found["miou"]) == (0.5, pytest.approx(expected["miou"]))
    page = (tmp_path / "report.html").read_text()
    assert 'id="pr"' in page  # the precision-recall curve, and below the table of films
    assert 'id="films"' in page
    assert expected["miou"] != scene_metrics(films, 0.5)["miou"]
    assert "threshold 2.0: must be a probability, within 0..1" in refused(capsys, *argv, "--threshold", "2")


def test_a_metric_with_a_name_of_ours_is_refused_before_films_are_scored(project: Project, monkeypatch, capsys):
    for name in ("ap", "threshold"):
        with monkeypatch.context() as context:
            context.setitem(plugins._registered["metrics"], name, lambda films, threshold: 0.0)
            said = refused(capsys, "evaluate", "none.ckpt", project.features)
            assert f"plug-in {name} of " in said
            assert f"bassl-fast has its own {name}; rename the plug-in" in said
