"""`scenes --checkpoint` with a fine-tuned similarity head: what it reads, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bassl_fast import SceneDetector, cli
from bassl_fast.segmentation.features import FeatureSet
from bassl_fast.segmentation.kinds import seconds_of
from bassl_fast.segmentation.scoring import score
from tests.bassl_fast.conftest import Project
from tests.bassl_fast.scenes.test_scenes import document, scenes
from tests.refused import refused

pytestmark = pytest.mark.slow

TUNE = ["--epochs", "1", "--data.batch", "8", "--crn.hidden", "16", "--crn.intermediate", "32"]


@pytest.fixture(scope="module")
def colours(project: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = str(tmp_path_factory.mktemp("colours") / "features")
    assert cli.main(["extract", "colours", project.shards, out]) == 0
    return out


@pytest.mark.parametrize("head", ["similarity", "both"])
@pytest.mark.parametrize("kinds", ["colours", "features", "features colours", "colours features"])
def test_a_film_scores_as_its_features_do(project: Project, colours: str, tmp_path: Path, head: str, kinds: str):
    folders = [{"colours": colours, "features": project.features}[kind] for kind in kinds.split()]
    argv = ["finetune", "--head", head, "--data.features", *folders, "--out", str(tmp_path / "s"), *TUNE]
    assert cli.main(argv) == 0
    (expected,), _ = score(tmp_path / "s" / "best.ckpt", folders, "test")
    films = [
        FeatureSet.open(folder).films("test")[0] for folder in sorted(folders, key=[colours, project.features].index)
    ]
    model = SceneDetector.from_checkpoint(tmp_path / "s" / "best.ckpt").model
    found = model.probability(np.concatenate([film.features for film in films], 1), seconds_of(films[0]))
    np.testing.assert_allclose(found, expected.probability, atol=1e-6)
    assert found[-1] == 0


def test_a_film_from_colours_and_an_encoder(
    project: Project, colours: str, film_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    tuned = tmp_path / "s" / "best.ckpt"
    argv = ["finetune", "--head", "similarity", "--out", tmp_path / "s", "--data.features", colours]
    assert cli.main([str(word) for word in [*argv, project.features]]) == 0
    assert scenes(film_file, "--checkpoint", tuned, "--out", tmp_path / "out") == 0
    found = document(tmp_path / "out" / "film")
    assert found["threshold_from"] == "chosen on the val films"
    assert len(found["shots"]) == 4
    state = torch.load(tuned, weights_only=True)
    state["model"]["similarity"]["kinds"].append("another")
    torch.save(state, tmp_path / "several.ckpt")
    said = refused(capsys, "scenes", film_file, "--checkpoint", tmp_path / "several.ckpt", "--out", tmp_path / "o")
    assert "several.ckpt: was fine-tuned on features of several encoders, and `scenes` has one" in said
    state["model"]["similarity"]["kinds"] = ["colours"]
    torch.save(state, tmp_path / "colours.ckpt")
    argv = ["scenes", film_file, "--checkpoint", tmp_path / "colours.ckpt", "--out", tmp_path / "o"]
    assert "was fine-tuned on colours; leave out --encoder" in refused(capsys, *argv, "--encoder", project.pretrained)
    assert cli.main([str(word) for word in argv]) == 0
