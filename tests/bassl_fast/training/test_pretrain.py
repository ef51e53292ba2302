"""Switches of `bassl-fast pretrain`: what each changes, and what none may change."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch._inductor import config as inductor

from bassl_fast import cli
from bassl_fast.checkpoints import checkpoint
from bassl_fast.methods import BaSSL
from bassl_fast.metrics.neighbours import knn_precision
from bassl_fast.segmentation.features import FeatureSet
from bassl_fast.training.accumulate import InterleavedLoader, MicroBatches
from bassl_fast.training.module import Pretraining
from pipelines.loader import WindowLoader
from pipelines.views import TrainViews
from shard_tools.errors import ConfigError
from shard_tools.shards.index import ShardIndex
from tests.bassl_fast.conftest import PRETRAIN, Project

pytestmark = pytest.mark.slow


@pytest.fixture
def argv(project: Project, tmp_path: Path) -> list[str]:
    """Steps of milliseconds; 8 are an epoch."""
    recipe = PRETRAIN | {"encoder": {"class_path": "tests.bassl_fast.plain.Plain"}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return ["pretrain", "--config", str(tmp_path / "recipe.yaml"), "--data.shards", project.shards]


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def test_validation_is_the_precision_of_extracted_features_and_leaves_the_training_alone(
    project: Project, argv: list[str], tmp_path: Path
):
    measured, plain = tmp_path / "measured", tmp_path / "plain"
    argv += ["--training.steps", "8"]
    assert cli.main([*argv, "--out", str(measured)]) == 0
    assert cli.main([*argv, "--training.validate_every", "0", "--out", str(plain)]) == 0
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(measured).items())
    assert not any("val/precision@1" in row for row in rows(plain))

    assert cli.main(["extract", str(measured / "last.ckpt"), project.shards, str(tmp_path / "features")]) == 0
    (film,) = FeatureSet.open(tmp_path / "features").films("val")
    expected = knn_precision({"val": film.features.copy()}, {"val": film.shots["scene"].copy()})
    (found,) = [row for row in rows(measured) if row["val/precision@1"]]
    assert found["step"] == "7"
    for k, value in expected.items():
        assert float(found[f"val/precision@{k}"]) == pytest.approx(value)


def test_a_run_resumed_at_the_end_of_an_epoch_validates_it(argv: list[str], tmp_path: Path, monkeypatch):
    whole_step = Pretraining.training_step

    def stopping_step(self, batch, batch_idx):
        if self.global_step == 8:
            monkeypatch.setattr(Pretraining, "training_step", whole_step)
            raise ConfigError("stopped by the test")
        return whole_step(self, batch, batch_idx)

    monkeypatch.setattr(Pretraining, "training_step", stopping_step)
    argv += ["--training.steps", "9", "--out", str(tmp_path / "run")]
    assert [cli.main(argv), cli.main([*argv, "--resume"])] == [1, 0]
    assert [row["step"] for row in rows(tmp_path / "run") if row.get("val/precision@1")] == ["7"]


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (["--training.checkpoint_steps", "3"], [3, 4]),
        (["--training.checkpoint_minutes", "60"], [4]),
        (["--training.checkpoint_minutes", "1e-6", "--training.accumulate", "4"], [1, 2, 3, 4, 4]),
    ],
)
def test_checkpoints_are_saved_by_steps_and_by_time(argv: list[str], tmp_path: Path, monkeypatch, schedule, steps):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state: saved.append(state["global_step"]))
    assert cli.main([*argv, *schedule, "--training.steps", "4", "--out", str(tmp_path / "run")]) == 0
    assert saved == steps


def test_the_gradient_is_clipped_to_its_norm(argv: list[str], tmp_path: Path):
    """LARS moves biases by the gradient itself, times a learning rate of one."""
    argv += [f"--optimiser.{key}" for key in ("name=lars", "lr=1", "lr_batch=0", "warmup=0")]
    for name, options in (("start", ["--training.steps=0"]), ("free", []), ("clipped", ["--training.clip=1e-3"])):
        assert cli.main([*argv, "--training.steps=1", *options, "--out", str(tmp_path / name)]) == 0
    start, *ends = (weights(tmp_path / name) for name in ("start", "free", "clipped"))
    free, clipped = (sum((end[n] - start[n]).square().sum() for n in start if "bias" in n) ** 0.5 for end in ends)
    assert free > 1e-2
    assert 1e-5 < clipped <= 1e-3


def test_a_compiled_encoder_trains_the_same(argv: list[str], tmp_path: Path):
    argv += ["--training.validate_every", "0"]  # which would compile a second graph
    # Plain loops: to find out what vector instructions there are, it compiles a program for each kind.
    plain_loops = {"cpp.vec_isa_ok": False, "cpp_cache_precompile_headers": False}
    for name in ("true", "false"):
        with inductor.patch(plain_loops):
            assert cli.main([*argv, "--training.compile", name, "--out", str(tmp_path / name)]) == 0
    plain = weights(tmp_path / "false")
    for name, value in weights(tmp_path / "true").items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-5)


def loader(project: Project, kind: type[WindowLoader] = InterleavedLoader, **options: int) -> WindowLoader:
    index = ShardIndex.open(project.shards)
    method = BaSSL(8, TrainViews(size=8), hidden=8, intermediate=8, heads=2, nce_hidden=8, nce_dim=8)
    sampler = lambda *given: replace(method.sample(*given), on_host=("mask",))  # noqa: E731
    return kind(index, index.select(None), sampler, 8, global_batch=8, threads=1, **options)


def test_a_micro_batch_is_a_slice_of_the_global_batch_for_any_number_of_processes(project: Project):
    """Images and all other rows, in one part or several."""
    whole = next(iter(loader(project, WindowLoader)))
    for world_size in (1, 2, 4):
        parts = [
            [*islice(MicroBatches(loader(project, micro_batches=2, rank=r, world_size=world_size), 2), 2)]
            for r in range(world_size)
        ]
        for m in range(2):
            for name, expected in whole.items():
                found = [parts[r][m][name] for r in range(world_size)]
                assert {type(rows) for rows in found} == {np.ndarray if name == "mask" else torch.Tensor}
                micro_batch = torch.cat([torch.as_tensor(rows) for rows in found])
                assert torch.equal(micro_batch, torch.as_tensor(expected[4 * m : 4 * m + 4])), (world_size, m, name)


def test_micro_batches_are_counted_and_end_with_the_epoch(project: Project):
    batches = MicroBatches(loader(project, micro_batches=4), 4)
    assert len(batches) == 32
    positions = [
        (int(film), int(at))
        for batch in batches
        for film, at in zip(*map(batch.get, ("film", "position")), strict=True)
    ]
    assert len(positions) == 64
    assert len(set(positions)) == 60
    assert batches.state_dict() == {"epoch": 1, "step": 0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--training.accumulate", "3"], "global_batch 8 does not divide into training.accumulate 3 times 1 processes"),
        (["--training.accumulate", "0"], "training.accumulate 0: must be at least 1"),
        (["--training.checkpoint_minutes", "-1"], "training.checkpoint_minutes -1.0: must be at least 0"),
        (["--training.validate_every", "-1"], "training.validate_every -1: must be at least 0"),
        (["--training.precision", "16-mixed"], "precision 16-mixed: needs a GPU"),
        (["--data.views", "gpu"], "data.views gpu: no GPU found; choose cpu or auto"),
        (["--data.views", "tpu"], "tpu"),
    ],
)
def test_what_cannot_work_is_refused(argv: list[str], tmp_path: Path, capsys, options, said):
    if {"16-mixed", "gpu"} & set(options) and torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU: it works on one")
    assert cli.main([*argv, *options, "--out", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err


def test_training_starts_from_another_encoder(project: Project, tmp_path: Path, capsys):
    """As from ImageNet weights. The method's own layers equal those of a run without it: the seed is the same."""
    argv = ["pretrain", "--config", project.config, "--data.shards", project.shards, "--training.steps", "0"]
    runs = {"fresh": [], "other": ["--seed", "1"], "started": ["--initial_encoder", str(tmp_path / "other/last.ckpt")]}
    for name, options in runs.items():
        assert cli.main([*argv, *options, "--out", str(tmp_path / name)]) == 0
    fresh, other, started = (weights(tmp_path / name) for name in runs)
    assert not torch.equal(fresh["encoder.conv1.weight"], other["encoder.conv1.weight"])
    for name, value in started.items():
        assert torch.equal(value, (other if name.startswith("encoder.") else fresh)[name])

    # The file is needed only once: neither resuming nor building the model reads it again.
    (tmp_path / "other/last.ckpt").unlink()
    assert cli.main([*argv, *runs["started"], "--resume", "--out", str(tmp_path / "started")]) == 0
    assert cli.main(["extract", str(tmp_path / "started/last.ckpt"), project.shards, str(tmp_path / "features")]) == 0
    capsys.readouterr()
    options = ["--initial_encoder", project.pretrained, "--encoder.width", "16", "--out", str(tmp_path / "wide")]
    assert cli.main([*argv, *options]) == 1
    assert "encoder.conv1.weight is [8, 3, 7, 7], the model needs [16, 3, 7, 7]" in capsys.readouterr().err
