"""`data.shards` with several sets and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from bassl_fast import cli
from tests.bassl_fast.conftest import PRETRAIN, Project
from tests.refused import refused

pytestmark = pytest.mark.slow


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    argv = ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--training.validate_every", "0"]
    return [*argv, "--training.checkpoint_steps", "1", "--optimiser.schedule", "constant", "--optimiser.warmup", "0"]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A second set of films."""
    root = tmp_path_factory.mktemp("other")
    assert cli.main(["draw", str(root / "films"), "--films", "1", "--shots", "12", "--test", "0", "--seed", "5"]) == 0
    assert cli.main(["pack", str(root / "films"), str(root / "shards")]) == 0
    return str(root / "shards")


def test_a_mixed_run_resumes_bit_exactly_and_with_its_own_weights_only(
    argv: list[str], project: Project, other: str, tmp_path: Path, capsys
):
    def mix(first: float, second: float) -> list[str]:
        return ["--data.shards", f"{{{project.shards}: {first}, {other}: {second}}}"]

    straight, broken = str(tmp_path / "straight"), str(tmp_path / "broken")
    assert cli.main([*argv, *mix(3, 1), "--training.steps", "4", "--out", straight]) == 0
    assert cli.main([*argv, *mix(3, 1), "--training.steps", "2", "--out", broken]) == 0
    more = ["--training.steps", "4", "--out", broken, "--resume", "true"]
    assert "was trained with another data.weights" in refused(capsys, *argv, *mix(1, 1), *more)
    assert "was trained with another data.weights" in refused(capsys, *argv, "--data.shards", project.shards, *more)
    assert cli.main([*argv, *mix(3, 1), *more]) == 0
    whole, parts = (torch.load(f"{out}/last.ckpt", weights_only=True) for out in (straight, broken))
    assert whole["manifest_sha256"].count("+") == 1
    assert whole["resume"]["data"]["weights"] == [3, 1]
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][name]), name


def test_mixes_that_cannot_be_are_refused_in_one_line(argv: list[str], project: Project, other: str, capsys):
    for mix, says in (
        (f"{{{project.shards}: 1, {other}: -1}}", "weight -1 of a set of shards: must be positive"),
        (f"{{{project.shards}: 1, {project.shards}/: 1}}", "is the same set as"),
        (f"{{{project.shards}: 1, {project.shards}: 2}}", "is duplicated"),
        (f"{{{project.shards}: 1, {other}: 1, {other}: 1}}", f"key '{other}' is duplicated"),
        ("{" * 1500, "File name too long"),
        (f"{{{project.shards}: 1}}", "weights are for several sets"),
        (f"{{{project.shards}: 100, {other}: 1}}", "less than one sample in a batch of 8"),
        (f"{{{project.shards}: 1, {other}x: 1}}", f"{other}x: no such folder"),
    ):
        assert says in refused(capsys, *argv, "--data.shards", mix)
