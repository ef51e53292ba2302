"""Curves go where `training.loggers` says, and a resumed run continues there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from lightning_fabric.utilities.rank_zero import rank_zero_only

from bassl_fast import cli
from bassl_fast.runtime.run_folder import RunFolder
from bassl_fast.training.loggers import open_loggers
from tests.bassl_fast.conftest import PRETRAIN, Project
from tests.refused import refused

pytestmark = pytest.mark.slow


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]
    argv += ["--optimiser.schedule", "constant", "--optimiser.warmup", "0"]
    return [*argv, "--training.validate_every", "0", "--out", str(tmp_path / "run")]


def test_curves_are_files_by_default_and_need_no_s3fs(argv: list[str], tmp_path: Path, monkeypatch):
    """Lightning asks whether TensorBoard's folder is in an object store, and imports s3fs for it: a second or more."""
    for name in [name for name in sys.modules if name.split(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    assert cli.main(argv) == 0
    assert "s3fs" not in sys.modules
    run = tmp_path / "run"
    assert (run / "metrics.csv").is_file()
    assert len(list((run / "tensorboard").glob("events.*"))) == 1
    assert not (run / "loggers.json").exists()


def test_wandb_and_mlflow_continue_a_resumed_run(argv: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "films")
    argv += ["--training.loggers", "[wandb, mlflow]"]
    run, numbers = tmp_path / "run", []
    for steps in (2, 4):
        assert cli.main([*argv, "--training.steps", str(steps), "--resume", "true"]) == 0
        numbers.append(json.loads((run / "loggers.json").read_text()))
    assert numbers[0] == numbers[1]
    (mine,) = (run / "mlflow").glob(f"*/{numbers[0]['mlflow']}")
    steps = [line.split()[2] for line in (mine / "metrics" / "loss").read_text().splitlines()]
    assert steps == ["0", "1", "2", "3"]
    assert (mine / "metrics" / "loss.msm").is_file()
    assert (mine / "params" / "data" / "global_batch").read_text() == "8"
    assert "name: films" in (mine.parent / "meta.yaml").read_text()
    assert len(list((run / "wandb").glob(f"offline-run-*/run-{numbers[0]['wandb']}.wandb"))) == 2
    assert not (run / "metrics.csv").exists()


def test_other_processes_open_no_service(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert len(open_loggers(RunFolder(tmp_path), ["csv", "wandb", "mlflow"], resume=False)) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("[csv, csv]", "one appears twice"),
        ("[csv, comet]", "comet"),
        ("[mlflow]", "training.loggers mlflow: cannot start"),
        ("[wandb]", "pip install 'bassl-fast[wandb]'"),
    ],
)
def test_loggers_that_cannot_be_are_refused(argv: list[str], capsys, monkeypatch, names: str, says: str):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such://place")
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert says in refused(capsys, *argv, "--training.loggers", names)
