"""Runs of several processes, started as a user starts them, train as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.evaluate import training_curves

from .conftest import PRETRAIN, Project

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
PYTHON = [sys.executable, "-m"]


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    """Three steps of an encoder without batch normalisation, without dropout: nothing but order of sums may differ."""
    method = {"class_path": "bassl_fast.methods.BaSSLShotCoL"}
    method["init_args"] = PRETRAIN["method"]["init_args"] | {"dropout": 0.0}
    recipe = PRETRAIN | {
        "encoder": {"class_path": "tests.bassl_fast.plain.Plain"},
        "method": method,
        "optimiser": {"name": "lars", "lr": 3.0, "lr_batch": 0},
        "training": {"steps": 3, "precision": "32-true"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]


def launch(starter: list[str], argv: list[str], **environment: str) -> subprocess.CompletedProcess:
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [*starter, "bassl_fast.cli", *argv],
        cwd=ROOT,
        env=os.environ | quiet | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("starter", "options"),
    [(TORCHRUN, ["--training.accumulate", "2"]), (PYTHON, ["--training.devices", "2"])],
    ids=["torchrun", "devices"],
)
def test_two_processes_train_as_one(argv: list[str], tmp_path: Path, starter: list[str], options: list[str]):
    done = launch(starter, [*argv, *options, "--out", str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: ") == 1
    alone = [] if "--training.devices" in options else options
    assert cli.main([*argv, *alone, "--out", str(tmp_path / "one")]) == 0
    two, one = (training_curves(tmp_path, str(tmp_path / name / "last.ckpt")) for name in ("two", "one"))
    assert two.keys() == one.keys() >= {f"pretraining: loss/{loss}" for loss in ("ssm", "cgm", "pp", "msm", "shotcol")}
    for name, curve in one.items():
        torch.testing.assert_close(torch.tensor(two[name]), torch.tensor(curve), rtol=1e-4, atol=1e-5, msg=name)
    two, one = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("two", "one"))
    assert two["data"] == one["data"]
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-5, msg=name)
