"""From films to a report through the verbs, and what each leaves behind."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.model import load_model
from bassl_fast.segmentation.features import FeatureSet
from bassl_fast.segmentation.scoring import training_curves
from bassl_fast.training import run
from bassl_fast.training.module import Pretraining
from pipelines.loader import FilmLoader
from pipelines.views import TestViews
from shard_tools.errors import TrainingError
from shard_tools.shards.index import ShardIndex

from .conftest import PRETRAIN, Project

pytestmark = pytest.mark.slow


def test_every_run_leaves_its_resolved_config_and_curves(project: Project):
    config = yaml.safe_load((Path(project.run) / "config.yaml").read_text())
    assert config["method"]["init_args"]["mask_rate"] == 0.15
    assert config["training"]["steps"] == 2
    curves = training_curves(Path(project.scenes), project.pretrained)
    assert {"pretraining: loss", "pretraining: loss/ssm", "fine-tuning: loss", "fine-tuning: val/ap"} <= set(curves)
    assert any((Path(project.run) / "tensorboard").iterdir())


def test_features_are_the_mean_of_the_test_views_of_a_shot(project: Project):
    index, encoder = ShardIndex.open(project.shards), load_model(project.pretrained).encoder.eval()
    features = FeatureSet.open(project.features)
    assert [film.name for film in features.films(None)] == index.films
    (_, _, images), *_ = FilmLoader(index, np.array([1]), TestViews(37, 32), batch=60)
    with torch.inference_mode():
        expected = encoder(images.flatten(0, 1)).unflatten(0, (20, 3)).mean(1)
    found = torch.from_numpy(features.films(None)[1].features.copy())
    assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.999


def test_extract_again_keeps_finished_films_and_makes_missing_ones(project: Project, tmp_path: Path):
    out = tmp_path / "features"
    assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 0
    first, *others = sorted(out.glob("tt*.npy"))
    before = first.read_bytes(), [path.stat().st_mtime_ns for path in others]
    first.unlink()
    (out / "features.json").rename(out / "features.json.part")
    assert cli.main(["extract", project.pretrained, project.shards, str(out)]) == 0
    assert (first.read_bytes(), [path.stat().st_mtime_ns for path in others]) == before


def test_evaluate_writes_scores_metrics_and_a_report(project: Project, tmp_path: Path, capsys):
    assert cli.main(["evaluate", project.finetuned, project.features, "--out", str(tmp_path)]) == 0
    with open(tmp_path / "scores" / "tt9000002.csv") as file:
        rows = list(csv.DictReader(file))
    shots = FeatureSet.open(project.features).films("test")[0].shots
    assert [int(row["boundary"]) for row in rows] == shots["boundary"].tolist()
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["threshold_from"] == "val"
    assert f"{found['ap']:6.2f}" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    (images,) = re.findall(r'class="images"[^>]*>([^<]*)<', page)
    assert len(images.split()) == 3 * 20
    assert "tt9000002" in page


def test_pretraining_is_deterministic_and_resumes_bit_exactly(project: Project, tmp_path: Path, monkeypatch, capsys):
    """Ten steps over an epoch's end (8 steps), stopped at step 5 and again at 9: the weights of a run without stops."""
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--training.steps", "10"]
    argv += ["--training.checkpoint_steps", "1"]
    assert cli.main([*argv, "--out", str(tmp_path / "straight")]) == 0

    whole_step = Pretraining.training_step
    stops = {5, 9}

    def stopping_step(self, batch, batch_idx):
        if self.global_step in stops:
            stops.remove(self.global_step)
            raise TrainingError("stopped by the test")
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(Pretraining, "training_step", stopping_step)
    broken = [*argv, "--out", str(tmp_path / "broken")]
    assert [cli.main(broken), cli.main([*broken, "--resume", "true"]), cli.main([*broken, "--resume", "true"])] == [
        1,
        1,
        0,
    ]

    curves = [training_curves(tmp_path, str(tmp_path / name / run.LAST)) for name in ("straight", "broken")]
    assert [step for step, _ in curves[1]["pretraining: loss"]] == [step for step, _ in curves[0]["pretraining: loss"]]

    written = (tmp_path / "broken" / run.LAST).read_bytes()
    assert cli.main([*broken, "--resume", "true"]) == 0
    assert "finished already, at step 10" in capsys.readouterr().out
    assert (tmp_path / "broken" / run.LAST).read_bytes() == written

    straight, broken = (torch.load(tmp_path / name / run.LAST, weights_only=True) for name in ("straight", "broken"))
    assert straight["global_step"] == broken["global_step"] == 10
    assert straight["data"] == broken["data"] == {"epoch": 1, "step": 2}
    for name, value in straight["state_dict"].items():
        assert torch.equal(value, broken["state_dict"][name]), name
    for mine, theirs in zip(
        straight["optimizer_states"][0]["state"].values(), broken["optimizer_states"][0]["state"].values(), strict=True
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_loss_that_is_not_finite_stops_with_step_and_films(project: Project, tmp_path: Path, capsys):
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", str(tmp_path / "run")]
    assert cli.main([*argv, "--optimiser.lr", "1e30", "--training.steps", "4"]) == 1
    message = capsys.readouterr().err
    assert "at step" in message
    assert "tt900000" in message


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_commands_use_the_gpu(project: Project, tmp_path: Path):
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--out", str(tmp_path / "run")]
    assert cli.main([*argv, "--training.precision", "bf16-mixed"]) == 0
    assert cli.main(["extract", str(tmp_path / "run" / "last.ckpt"), project.shards, str(tmp_path / "features")]) == 0
    ours = FeatureSet.open(tmp_path / "features").provenance["checkpoint_sha256"]
    assert ours == checkpoint.sha256(tmp_path / "run" / "last.ckpt")
    assert PRETRAIN["training"]["precision"] == "32-true"
