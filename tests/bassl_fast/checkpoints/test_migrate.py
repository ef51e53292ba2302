"""Checkpoints of earlier versions load, and give the outputs they gave when they were written.

`golden/checkpoints/v1-*.bin` were written by the last commit of version 1, `v1.json` holds what their models answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.migrate import VERSION
from bassl_fast.checkpoints.model import from_state, load_model
from bassl_fast.methods import Classifier
from bassl_fast.segmentation.model import load_finetuned
from pipelines.views import TestViews
from tests.refused import refused

FOLDER = Path(__file__).parents[2] / "golden" / "checkpoints"
ANSWERS = json.loads((FOLDER / "v1.json").read_text())
PICTURES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
SHOTS = torch.linspace(-1, 1, 5 * 16).view(1, 5, 16)


def close(found: torch.Tensor, answer: list) -> None:
    torch.testing.assert_close(found, torch.tensor(answer), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_pretrained_checkpoint_of_version_1():
    model = load_model(FOLDER / "v1-pretrain.bin")
    answers = ANSWERS["run"]
    features = model.encoder.eval()(PICTURES)
    method = model.method.eval()
    close(features[:, :4], answers["features"])
    close(method.head_nce(features), answers["nce"])
    close(method.crn(SHOTS)[0, 0], answers["crn"])
    assert model.views == TestViews(37, 32, 1, (0.4, 0.5, 0.6), (0.229, 0.224, 0.225))
    assert str(model.views) == answers["views"]


@torch.no_grad()
def test_a_classifier_of_version_1_is_one_of_train():
    model = load_model(FOLDER / "v1-train.bin")
    close(Classifier(model.encoder, model.method).eval()(PICTURES), ANSWERS["trained"]["probability"])
    state = checkpoint.load(FOLDER / "v1-train.bin", checkpoint.ENCODER)
    assert (state["recipe"]["verb"], state["model"]["version"]) == ("train", VERSION)


@torch.no_grad()
def test_a_finetuned_checkpoint_of_version_1_brings_its_encoder():
    model, state = load_finetuned(FOLDER / "v1-finetune.bin")
    close(model.eval()(SHOTS), ANSWERS["scenes"]["logits"])
    assert state["threshold"] == ANSWERS["scenes"]["threshold"]
    assert state["trained_on"] == {"features": "features", "pretrained": "run/last.ckpt"}
    encoder = from_state(state["model"]["encoder"], "v1").encoder.eval()
    close(encoder(PICTURES)[:, :4], ANSWERS["run"]["features"])


def test_a_finished_run_of_version_1_is_recognised_by_resume(tmp_path: Path, capsys):
    """What a run must share with its start is read off the old recipe, so another learning rate is refused."""
    run, films, shards = (str(tmp_path / name) for name in ("run", "films", "shards"))
    assert cli.main(["draw", films, "--films", "3", "--shots", "12", "--test", "1", "--val", "1"]) == 0
    assert cli.main(["pack", films, shards]) == 0
    Path(run).mkdir()
    shutil.copyfile(FOLDER / "v1-pretrain.bin", f"{run}/last.ckpt")
    views = "{size: 32, mean: [0.4, 0.5, 0.6]}"
    argv = ["pretrain", "--data.shards", shards, "--out", run, "--resume", "--data.global_batch", "4"]
    argv += ["--encoder", "ResNet", "--encoder.depth", "18", "--encoder.width", "2", "--method", "BaSSL"]
    argv += ["--method.radius", "2", "--method.hidden", "8", "--method.intermediate", "8", "--method.heads", "2"]
    argv += ["--method.layers", "1", "--method.nce_hidden", "8", "--method.nce_dim", "4", "--method.views", views]
    argv += ["--optimiser.name", "sgd", "--optimiser.lr", "1e-3", "--optimiser.lr_batch", "0"]
    argv += ["--optimiser.momentum", "0", "--training.steps", "1", "--training.precision", "32-true"]
    assert cli.main(argv) == 0
    assert "finished already, at step 1" in capsys.readouterr().out
    assert "was trained with another optimiser" in refused(capsys, *argv, "--optimiser.weight_decay", "0")
    assert "was trained with another encoder" in refused(capsys, *argv, "--encoder.depth", "34")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"version": VERSION + 1, "kind": "encoder"}, "upgrade bassl-fast"),
        ({"kind": "encoder"}, "is damaged"),
        (5, "not a checkpoint of bassl-fast"),
    ],
)
def test_other_versions_are_one_line(tmp_path: Path, capsys, section: object, said: str):
    torch.save({"model": section, "state_dict": {}}, tmp_path / "x.ckpt")
    assert said in refused(capsys, "export-checkpoint", tmp_path / "x.ckpt", tmp_path / "x.safetensors")
