"""Runs of several processes, started as a user starts them, train as one process does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
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


def test_a_loss_that_is_not_finite_on_one_process_stops_all(argv: list[str], tmp_path: Path):
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    recipe["encoder"]["class_path"] = "tests.bassl_fast.plain.BreaksOnOneProcess"
    # A loss that the processes do not share, so process 0 would not notice alone.
    local = {"shot_scene_matching": False, "contextual_group_matching": False, "masked_shot_modelling": False}
    recipe["method"] = {"class_path": "bassl_fast.methods.BaSSL"}
    recipe["method"]["init_args"] = PRETRAIN["method"]["init_args"] | local
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    done = launch(PYTHON, [*argv, "--training.devices", "2", "--out", str(tmp_path / "run")])
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "bassl-fast: loss is nan at step 1 (films tt900000" in done.stderr


def test_sigterm_saves_and_the_run_resumes_bit_exactly(project: Project, tmp_path: Path):
    """Told to end in the middle of an epoch and of a step of two micro-batches: the weights of a run without stops."""
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--training.accumulate", "2"]
    argv += ["--training.steps", "12", "--training.checkpoint_steps", "1000"]
    broken = [*argv, "--out", str(tmp_path / "broken")]
    running = subprocess.Popen(
        [*PYTHON, "bassl_fast.cli", *broken], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in running.stdout:
        if line.startswith("step 2/"):
            break
    running.send_signal(signal.SIGTERM)
    said, complaints = running.communicate(timeout=120)
    assert (running.returncode, complaints) == (0, "")
    last = said.splitlines()[-1]
    ended = int(
        re.search(r"last.ckpt: stopped by SIGTERM at step (\d+) of 12 and saved; continue with --resume", last)[1]
    )
    assert 2 <= ended < 12
    assert cli.main([*broken, "--resume"]) == 0
    assert cli.main([*argv, "--out", str(tmp_path / "straight")]) == 0
    straight, broken = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("straight", "broken"))
    assert straight["global_step"] == broken["global_step"] == 12
    assert straight["data"] == broken["data"]
    for key in ("state_dict", "optimizer_states", "lr_schedulers"):
        same(straight[key], broken[key], key)


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
