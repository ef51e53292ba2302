"""Runs of methods with a momentum encoder, and of clip encoders: trained, stopped, resumed, extracted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.checkpoints.model import load_model
from bassl_fast.encoders import X3D
from bassl_fast.segmentation.features import FeatureSet
from bassl_fast.training.module import Pretraining
from pipelines.loader import FilmLoader
from pipelines.views import TestViews
from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex
from tests.bassl_fast.conftest import PRETRAIN, Project

pytestmark = pytest.mark.slow

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
def test_a_stopped_run_resumes_bit_exactly(name: str, project: Project, tmp_path: Path, monkeypatch):
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


@pytest.mark.parametrize("name", ["Instance", "BYOL"])
def test_a_clip_encoder_sees_all_key_frames_of_a_shot(name: str, project: Project, tmp_path: Path, monkeypatch):
    arguments = {"Instance": {"nce_hidden": 8, "views": {"size": 32}}, "BYOL": METHODS["BYOL"]}[name]
    method = {"class_path": f"bassl_fast.methods.{name}", "init_args": arguments}
    encoder = {"class_path": "bassl_fast.encoders.X3D", "init_args": {"size": "M"}}
    argv = command(project, tmp_path, {"method": method, "encoder": encoder})
    shapes, maps = [], X3D.maps
    with monkeypatch.context() as patch:
        patch.setattr(X3D, "maps", lambda self, clips: shapes.append(tuple(clips.shape)) or maps(self, clips))
        assert cli.main([*argv, "--training.steps", "1", "--out", str(tmp_path / "run")]) == 0
    assert {shape[1:] for shape in shapes} == {(3, 3, 32, 32)}
    checkpoint, features = str(tmp_path / "run" / "last.ckpt"), tmp_path / "features"
    assert cli.main(["extract", checkpoint, project.shards, str(features)]) == 0
    (film,) = FeatureSet.open(features).films("test")
    assert film.features.shape == (20, 2048)
    index, network = ShardIndex.open(project.shards), load_model(checkpoint).encoder.eval()
    (_, _, images), *_ = FilmLoader(index, index.select("test"), TestViews(37, 32), batch=60)
    with torch.inference_mode():
        whole = network(images.transpose(1, 2))
        alone = network(images.flatten(0, 1)).unflatten(0, (20, 3)).mean(1)
    found = torch.from_numpy(film.features.copy())
    torch.testing.assert_close(found, whole, atol=2e-2, rtol=2e-2)  # bfloat16 where it is fast
    assert (alone - whole).abs().max() > 5 * (found - whole).abs().max()
