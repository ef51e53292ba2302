"""The shots, key-frames and augmentations of the views of each method."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bassl_fast import cli, config, methods
from bassl_fast.methods import BaSSL, BaSSLShotCoL, Instance, Method, ShotCoL, Temporal
from bassl_fast.methods.losses import shotcol
from bassl_fast.methods.temporal import neighbour
from bassl_fast.training.pretrain import pretrain
from pipelines.samples import Centers
from tests.bassl_fast.conftest import Project

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))
SHARED = ("flip", "brightness", "contrast", "saturation", "hue", "order", "top", "left", "height", "width")


def centers(position: list[int], shots: list[int], frames: int = 3) -> Centers:
    one = np.full(len(position), 1)
    first_frame = 1000 * np.arange(len(position))
    return Centers(np.cumsum(one), np.array(position), np.array(shots), first_frame, frames * one, 90 * one, 160 * one)


def build(kind: type[Method]) -> Method:
    small = {"nce_hidden": 8, "nce_dim": 4}
    return kind(8, **small, **({"hidden": 8, "intermediate": 8, "heads": 2} if issubclass(kind, BaSSL) else {}))


def sampled(kind: type[Method], where: Centers, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shots `[B, V]`, key-frames of them `[B, V]`, and the view rows."""
    views = build(kind).sample(where, np.random.default_rng(seed)).views
    inside = views["frame"] - where.first_frame[:, None]
    return inside // 3, inside % 3, views


WINDOW = np.arange(12, 29)


@pytest.mark.parametrize(
    ("kind", "shots"),
    [
        (Instance, [20, 20]),
        (ShotCoL, [20, *WINDOW]),
        (BaSSL, [12, 28, *WINDOW]),
        (BaSSLShotCoL, [12, 28, 20, *WINDOW]),
    ],
)
def test_the_shots_of_a_sample_and_one_key_frame_of_each(kind: type[Method], shots: list[int]):
    found, key_frame, _ = sampled(kind, centers([20] * 64, [100] * 64))
    assert (found == shots).all()
    for shot in set(shots):  # all views of a shot are of one key-frame, any of the three
        of_shot = key_frame[:, np.array(shots) == shot]
        assert (of_shot == of_shot[:, :1]).all()
        assert set(of_shot[:, 0]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        (Instance, [1, 1]),
        (Temporal, [1, 1]),
        (ShotCoL, [1, 17]),
        (BaSSL, [2, 17]),
        (BaSSLShotCoL, [3, 17]),
    ],
)
def test_sparse_and_dense_views_have_an_augmentation_each(kind: type[Method], groups: list[int]):
    *_, views = sampled(kind, centers([20] * 8, [100] * 8))
    first, second = np.split(views, [groups[0]], axis=1)
    assert [first.shape[1], second.shape[1]] == groups
    for group in (first, second):
        assert all((group[name] == group[name][:, :1]).all() for name in SHARED)
        assert ((group["blur"] > 0) == (group["blur"] > 0)[:, :1]).all()
    assert (first["left"][:, 0] != second["left"][:, 0]).any()
    assert (first["flip"][:, 0] != second["flip"][:, 0]).any()


def test_temporal_pairs_a_shot_with_another_within_eight():
    """Uniform over the shots of the film within reach, and never itself (which the reference pairs it with)."""
    found, key_frame, _ = sampled(Temporal, centers([20] * 3200, [100] * 3200))
    assert (found[:, 0] == 20).all()
    counts = np.bincount(found[:, 1], minlength=29)
    assert set(np.flatnonzero(counts)) == set(WINDOW) - {20}
    assert counts[counts > 0].min() > 140  # 200 each; 4 deviations below
    assert (key_frame[:, 0] != key_frame[:, 1]).any()


@pytest.mark.parametrize(
    ("position", "shots", "reach"),
    [(0, 30, range(1, 9)), (29, 30, range(21, 29)), (1, 3, (0, 2)), (0, 2, (1,)), (0, 1, (0,))],
)
def test_a_neighbour_at_the_ends_of_a_film(position: int, shots: int, reach: range):
    many = np.full(400, position)
    assert set(neighbour(many, np.full(400, shots), 8, np.random.default_rng(0))) == set(reach)


def test_shotcol_finds_the_most_similar_shot_without_the_centre_and_without_gradient_to_the_others():
    dense = torch.nn.functional.normalize(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    dense[0, 4] = dense[0, 2]  # the centre's like
    dense.requires_grad_()
    shotcol(dense[:, 2].detach(), dense).backward()
    moved = dense.grad.abs().sum(-1) > 0
    assert moved.sum(1).tolist() == [1, 1, 1]
    assert moved[0, 4]
    assert not moved[:, 2].any()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_builds_the_method_it_is_named_after(path: Path):
    parser = config.make_parser(pretrain)
    arguments = parser.instantiate(config.parse(parser, ["--config", str(path)]))
    method = arguments.method(8)
    assert type(method).__name__.lower() == re.sub("_(crops|clips|fast)$", "", path.stem).replace("_", "")
    assert hasattr(method, "crn") == path.stem.startswith("bassl")
    assert yaml.safe_load(path.read_text())["data"]["global_batch"] == (512 if path.stem == "sce_clips" else 256)
    assert arguments.optimiser.name == "lars"


def test_every_method_has_a_config():
    names = {
        "instance",
        "temporal",
        "shotcol",
        "bassl",
        "bassl_fast",
        "bassl_shotcol",
        "sce",
        "sce_crops",
        "sce_clips",
        "scrl",
        "byol",
    }
    assert {path.stem for path in CONFIGS} == names


def test_the_fast_config_differs_in_two_options_alone():
    fast, published = (
        yaml.safe_load((CONFIGS[0].parent / name).read_text()) for name in ("bassl_fast.yaml", "bassl.yaml")
    )
    more = {"run_length": 4, "negatives_apart": 20}
    assert fast["method"]["init_args"] == published["method"]["init_args"] | more
    assert fast | {"method": None} == published | {"method": None}


@pytest.mark.parametrize("name", ["instance", "temporal", "shotcol", "bassl", "bassl+shotcol", "BaSSL_ShotCoL"])
def test_a_method_goes_by_its_name_on_the_command_line(name: str):
    parser = config.make_parser(pretrain)
    options = ["--config", str(CONFIGS[0]), f"--method={name}", "--method.nce_dim", "4"]
    method = parser.instantiate(config.parse(parser, options)).method(8)
    assert type(method).__name__.lower() == name.lower().replace("+", "").replace("_", "")
    assert method.head_nce[2].out_features == 4


def test_the_example_of_the_docs_trains_and_its_features_can_be_extracted(project: Project, tmp_path, monkeypatch):
    """`docs/tutorials/adding-a-method.md` verbatim: its file is put beside the others, with its config."""
    text = (ROOT / "docs" / "tutorials" / "adding-a-method.md").read_text()
    for language, name in (("python", "order.py"), ("yaml", "order.yaml")):
        (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
        (tmp_path / name).write_text(code)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    small = ["--data.shards", project.shards, "--data.global_batch", "8", "--training.steps", "2"]
    small += ["--encoder.depth", "18", "--encoder.width", "8", "--method.views", "{size: 32}"]
    out = str(tmp_path / "run")
    assert cli.main(["pretrain", "--config", str(tmp_path / "order.yaml"), *small, "--out", out]) == 0
    assert cli.main(["extract", f"{out}/last.ckpt", project.shards, str(tmp_path / "features")]) == 0
    sys.modules.pop("bassl_fast.methods.order")
