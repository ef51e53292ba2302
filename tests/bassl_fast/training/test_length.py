"""Runs that are resumed with another number of steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from bassl_fast.methods import BYOL, Instance
from bassl_fast.training.length import check_length
from bassl_fast.training.options import Optimiser, Training
from shard_tools.errors import CheckpointError, ConfigError
from tests.bassl_fast.conftest import PRETRAIN, Project

CONSTANT = Optimiser(schedule="constant", warmup=0)
DROPS = Optimiser("sgd", schedule="slowfast", warmup=0, drops=(0.5,))


@pytest.mark.parametrize(
    ("optimiser", "done", "was", "total", "says"),
    [
        (CONSTANT, 4, 4, 100, None),
        (CONSTANT, 4, 100, 4, None),
        (CONSTANT, 5, 100, 4, "is at step 5; resume with at least as many training.steps, not 4"),
        (Optimiser(), 50, 100, 100, None),  # other epochs of the same length
        (Optimiser(), 0, 0, 100, "learning rate"),
        (Optimiser(), 50, 100, 200, "as the learning rate (optimiser.schedule bassl) follows the length of the run"),
        (DROPS, 49, 100, 200, None),
        (DROPS, 50, 100, 200, "cannot go from 100 steps to 200, as the learning rate (optimiser.schedule slowfast)"),
    ],
)
def test_another_length_is_allowed_if_no_step_would_have_been_otherwise(optimiser, done, was, total, says):
    refusal(says, done, was, total, optimiser, Training(), Instance(8))


def test_what_else_follows_the_length_is_named():
    refusal("as the momentum of the target network follows", 4, 4, 8, CONSTANT, Training(), BYOL(8))
    smaller = Training(smaller_views=((16, 0.5),))
    refusal("as the size of views (training.smaller_views) follows", 4, 6, 8, CONSTANT, smaller, Instance(8))
    refusal(None, 3, 6, 8, CONSTANT, smaller, Instance(8))


def refusal(says: str | None, *arguments) -> None:
    if says is None:
        check_length("last.ckpt", *arguments)
        return
    with pytest.raises(CheckpointError) as found:
        check_length("last.ckpt", *arguments)
    assert says in str(found.value)


def test_a_constant_rate_has_no_warm_up():
    with pytest.raises(ConfigError, match="schedule constant has no warm-up; set it to 0"):
        Optimiser(schedule="constant")


def test_a_finished_run_continues_as_if_it_had_been_longer(project: Project, tmp_path: Path, capsys):
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    recipe["optimiser"] = recipe.get("optimiser", {}) | {"schedule": "constant", "warmup": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]
    argv += ["--training.validate_every", "0", "--resume"]
    for steps, run in (("5", "whole"), ("3", "longer"), ("5", "longer")):
        assert cli.main([*argv, "--training.steps", steps, "--out", str(tmp_path / run)]) == 0
    assert "is at step 3 of 3, and continues to step 5" in capsys.readouterr().out
    whole, longer = (torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("whole", "longer"))
    assert (longer["global_step"], longer["total_steps"]) == (5, 5)
    assert all(torch.equal(value, longer["state_dict"][name]) for name, value in whole["state_dict"].items())
