"""Runs of windows: the same windows, and the same losses and gradients, from fewer views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bassl_fast.methods import BaSSL, BaSSLShotCoL, Method, ShotCoL
from bassl_fast.methods.losses import info_nce, near
from bassl_fast.methods.window import Runs
from pipelines.samples import Centers
from pipelines.views import TrainViews
from pipelines.windows import dense_window
from shard_tools.errors import ConfigError

SMALL = {"nce_hidden": 8, "nce_dim": 8}
CRN = {"hidden": 8, "intermediate": 8, "heads": 2, "dropout": 0.0}


def centers(position: list[int], shots: list[int]) -> Centers:
    one = np.ones(len(position), np.int64)
    first_frame = 1000 * np.arange(len(position))
    return Centers(np.arange(len(position)), np.array(position), np.array(shots), first_frame, one, 90 * one, 160 * one)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 90), st.data())
def test_a_run_holds_the_windows_of_its_centres(length: int, radius: int, shots: int, data: st.DataObject):
    runs = Runs(length, radius, [0, 2 * radius, radius])
    first = data.draw(st.integers(0, max(shots - length, 0)))
    views, at = runs.draw(centers([first], [shots]), np.random.default_rng(0), TrainViews())
    features = torch.from_numpy(views["frame"].copy())[..., None]  # one key-frame a shot, so the number of the shot
    sparse, dense = runs.gather(features, {name: torch.from_numpy(rows) for name, rows in at.items()})
    wanted = dense_window(np.minimum(first + np.arange(length), shots - 1), np.full(length, shots), radius)
    assert np.array_equal(dense[..., 0], wanted)
    assert np.array_equal(sparse[..., 0], wanted[:, [0, -1, radius]])
    assert length == 1 or np.array_equal(at["window"][0], wanted[:, 0])


@pytest.mark.parametrize(("length", "views"), [(1, 19), (4, 28), (8, 40), (16, 64), (32, 96)])
def test_views_of_a_run_of_bassl(length: int, views: int):
    runs = Runs(length, 8, [0, 16])
    assert runs.dense_shots + len(runs.sparse_shots) == views


def test_all_views_of_a_group_of_a_run_share_an_augmentation():
    runs = Runs(16, 8, [0, 16])
    views, _ = runs.draw(centers([20] * 4, [100] * 4), np.random.default_rng(0), TrainViews())
    for group in np.split(views, [32], axis=1):
        assert all((group[name] == group[name][:, :1]).all() for name in ("top", "left", "flip", "hue"))


@pytest.mark.parametrize("kind", [BaSSL, BaSSLShotCoL, ShotCoL])
@pytest.mark.parametrize(("first", "shots"), [(30, 100), (0, 100), (92, 100), (0, 20)])
def test_losses_and_gradients_are_those_of_the_windows(kind: type[Method], first: int, shots: int):
    """The batch of a run, and the batch of its windows one by one, of features that depend on shot and group alone."""
    torch.manual_seed(0)
    arguments = SMALL | (CRN if issubclass(kind, BaSSL) else {})
    run = kind(8, run_length=8, **arguments)
    one = kind(8, **arguments)
    one.load_state_dict(run.state_dict())
    where = centers([first] * 2, [shots] * 2)
    drawn = run.sample(where, np.random.default_rng(0))
    batch = {name: torch.from_numpy(rows) for name, rows in drawn.extras.items()}
    features = torch.randn(2, 2, 1000, 8)  # film, group, shot

    def of(method: Method, inputs: Tensor, frames: np.ndarray) -> Tensor:
        film, shot = torch.from_numpy(frames // 1000), torch.from_numpy(frames % 1000)
        dense = method.runs.dense_shots
        group = torch.tensor([0] * (frames.shape[1] - dense) + [1] * dense)
        return inputs[film, group, shot]

    singles = [where.position + i for i in range(8)]
    alone = [
        one.sample(replace(where, position=np.minimum(at, where.shots - 1)), np.random.default_rng(0)).views["frame"]
        for at in singles
    ]
    rows = np.stack(alone, 1).reshape(16, -1)  # film by film
    flat = {name: batch[name].flatten(0, 1) for name in ("mask", "pick") if name in batch}
    found = []
    for method, frames, given_batch in ((run, drawn.views["frame"], batch), (one, rows, flat)):
        inputs = features.clone().requires_grad_()
        losses = method(of(method, inputs, frames), given_batch)
        sum(losses.values()).backward()
        found.append((losses, inputs.grad, [p.grad for p in method.parameters() if p.requires_grad]))
    (ours, our_inputs, our_weights), (theirs, their_inputs, their_weights) = found
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=1e-6), name
    assert torch.allclose(our_inputs, their_inputs, atol=1e-6)
    for mine, other in zip(our_weights, their_weights, strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_near_pairs_are_no_negatives():
    """By hand: of four samples, the first two are near each other."""
    batch = {"film": torch.tensor([0, 0, 0, 1]), "position": torch.tensor([5, 8, 9, 6])}
    left_out = near(batch, 4)
    assert left_out.int().tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert near(batch, 0) is None
    a, b = torch.nn.functional.normalize(torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    z, wanted = torch.cat([a, b]), []
    for i in range(8):
        others = [j for j in range(8) if j != i and (j % 4 == i % 4 or not left_out[i % 4, j % 4])]
        logits = z[others] @ z[i] / 0.1
        wanted.append(logits.logsumexp(0) - z[i] @ z[(i + 4) % 8] / 0.1)
    assert torch.allclose(info_nce(a, b, 0.1, left_out), torch.stack(wanted).mean(), atol=1e-5)
    assert torch.equal(info_nce(a, b, 0.1, torch.eye(4, dtype=torch.bool)), info_nce(a, b, 0.1))


def test_near_windows_of_a_run():
    batch = {"film": torch.tensor([3, 4]), "position": torch.tensor([0, 0]), "window": torch.tensor([[0, 1], [0, 9]])}
    assert near(batch, 2).int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_wrong_numbers_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"method\.run_length 0"):
        ShotCoL(8, run_length=0)
    with pytest.raises(ConfigError, match=r"method\.negatives_apart -1"):
        BaSSL(8, negatives_apart=-1)
