"""Runs of methods with a momentum encoder, and of encoders of clips: trained, stopped, gone on with, extracted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.features import FeatureSet
from bassl_fast.module import Pretraining
from shard_tools.errors import ConfigError

from .conftest import PRETRAIN, Project

SMALL = {"hidden": 16, "outputs": 8}
METHODS = {
    "SCE": SMALL
    | {
        "queue": 64,
        "views": {"size": 32},
        "second": {"size": 32, "solarize": 0.2},
        "small": [{"size": 24}, {"size": 16}],
    },
    "BYOL": SMALL | {"views": {"size": 32}, "second": {"size": 32, "blur": 0.1, "grayscale": 0.2}},
    "SCRL": SMALL | {"boxes": {"count": 3, "least": 8}, "views": {"size": 64}},
}


def command(project: Project, tmp_path: Path, changes: dict) -> list[str]:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(PRETRAIN | changes))
    return ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_bit_for_bit(name: str, project: Project, tmp_path: Path, monkeypatch):
    method = {"class_path": f"bassl_fast.methods.{name}", "init_args": METHODS[name]}
    argv = command(project, tmp_path, {"method": method})
    argv += ["--training.steps", "4", "--training.checkpoint_steps", "2", "--training.validate_every", "0"]
    assert cli.main([*argv, "--out", str(tmp_path / "whole")]) == 0
    step = Pretraining.training_step

    def stopping_step(self, batch, batch_idx):
        if self.global_step == 3:
            raise ConfigError("stopped by the test")
        return step(self, batch, batch_idx)

    argv += ["--out", str(tmp_path / "halves")]
    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "training_step", stopping_step)
        assert cli.main(argv) == 1
    assert cli.main([*argv, "--resume"]) == 0
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert whole.keys() == halves.keys()
    assert all(torch.equal(value, halves[key]) for key, value in whole.items())
    apart = (whole["encoder.conv1.weight"] - whole["method.target_encoder.conv1.weight"]).abs().max()
    assert apart > 0

    features = tmp_path / "features"
    assert cli.main(["extract", str(tmp_path / "whole" / "last.ckpt"), project.shards, str(features)]) == 0
    assert len(FeatureSet.open(features).films("test")) == 1


def test_an_encoder_of_clips_encodes_key_frames(project: Project, tmp_path: Path):
    method = {"class_path": "bassl_fast.methods.Instance", "init_args": {"nce_hidden": 8, "views": {"size": 32}}}
    encoder = {"class_path": "bassl_fast.encoders.X3D", "init_args": {"size": "M"}}
    argv = command(project, tmp_path, {"method": method, "encoder": encoder})
    assert cli.main([*argv, "--training.steps", "1", "--out", str(tmp_path / "run")]) == 0
    features = tmp_path / "features"
    assert cli.main(["extract", str(tmp_path / "run" / "last.ckpt"), project.shards, str(features)]) == 0
    (film,) = FeatureSet.open(features).films("test")
    assert film.features.shape == (20, 2048)
