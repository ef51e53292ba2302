"""Runs of several processes, started as a user starts them, train as one process does.

Those of torchrun are in `tests/bassl_fast/runtime/test_run_folder.py`, as they also write to a bucket.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.segmentation.scoring import training_curves
from tests.bassl_fast.conftest import PRETRAIN, Project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
LOSSES = ("ssm", "cgm", "pp", "msm", "shotcol")


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    return plain(project, tmp_path)


def plain(project: Project, tmp_path: Path) -> list[str]:
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


def torchrun(python: str) -> list[str]:
    return [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


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


def test_two_processes_train_as_one(argv: list[str], tmp_path: Path, warm: str):
    done = launch([warm, "-m"], [*argv, "--training.devices", "2", "--out", str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint: ") == 1
    assert cli.main([*argv, "--out", str(tmp_path / "one")]) == 0
    trained_as_one(tmp_path / "two", tmp_path / "one")


def trained_as_one(two: Path, one: Path) -> None:
    """The curves and the weights of two runs are the same."""
    ours, theirs = (training_curves(run.parent, str(run / "last.ckpt")) for run in (two, one))
    assert ours.keys() == theirs.keys() >= {f"pretraining: loss/{loss}" for loss in LOSSES}
    for name, curve in theirs.items():
        torch.testing.assert_close(torch.tensor(ours[name]), torch.tensor(curve), rtol=1e-4, atol=1e-5, msg=name)
    ours, theirs = (torch.load(run / "last.ckpt", weights_only=True) for run in (two, one))
    assert ours["data"] == theirs["data"]
    for name, value in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_loss_that_is_not_finite_on_one_process_stops_all(argv: list[str], tmp_path: Path, warm: str):
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    recipe["encoder"]["class_path"] = "tests.bassl_fast.plain.BreaksOnOneProcess"
    # A loss that the processes do not share, so process 0 would not notice alone.
    local = {"shot_scene_matching": False, "contextual_group_matching": False, "masked_shot_modelling": False}
    recipe["method"] = {"class_path": "bassl_fast.methods.BaSSL"}
    recipe["method"]["init_args"] = PRETRAIN["method"]["init_args"] | local
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = [*argv, "--training.checkpoint_steps", "1"]
    done = launch([warm, "-m"], [*argv, "--training.devices", "2", "--out", str(tmp_path / "run")])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "bassl-fast: loss is nan at step 1 (films tt900000" in done.stderr
    kept = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)  # that of the step before
    assert kept["global_step"] == 1
    assert all(rows.isfinite().all() for rows in kept["state_dict"].values())


def same(mine: Any, theirs: Any, where: str) -> None:
    """Bit-identical."""
    if isinstance(mine, torch.Tensor):
        assert torch.equal(mine, theirs), where
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), where
        for key in mine:
            same(mine[key], theirs[key], f"{where}.{key}")
    elif isinstance(mine, list):
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            same(a, b, f"{where}.{i}")
    else:
        assert mine == theirs, where
