"""The reference implementation's answers, number for number."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from bassl_fast.boundary import pseudo_boundary
from bassl_fast.crn import ContextualRelationNetwork
from bassl_fast.encoders import ResNet
from bassl_fast.losses import balanced_cross_entropy
from bassl_fast.methods import BaSSL
from bassl_fast.optim import LARS, split_parameters, warmup_cosine
from bassl_fast.reference import rename
from tests.golden_weights import GOLDEN, load

REFERENCE_KEYS = list(json.loads((GOLDEN / "pretrain_bassl_state_dict_keys.json").read_text()))


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    torch.testing.assert_close(
        ours.detach().double(), torch.from_numpy(np.asarray(theirs, np.float64)), rtol=1e-4, atol=1e-5
    )


def test_every_reference_key_has_a_place_in_the_full_model():
    encoder, method = ResNet(50), BaSSL(2048)
    ours = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    ours |= {f"method.{k}": v for k, v in method.state_dict().items()}
    keys = json.loads((GOLDEN / "pretrain_bassl_state_dict_keys.json").read_text())
    shapes = {rename(key): shape for key, (_, shape) in keys.items() if rename(key)}
    assert shapes == {name: list(value.shape) for name, value in ours.items()}


def test_resnet50():
    arrays, encoder = golden("resnet50.npz"), ResNet(50).eval()
    load(encoder, "encoder.", REFERENCE_KEYS)
    with torch.no_grad():
        close(encoder(torch.from_numpy(arrays["x"]).float()), arrays["y"])


@pytest.mark.parametrize(("size", "dims"), [("small", (64, 48, 96)), ("full", (2048, 768, 3072))])
def test_crn(size: str, dims: tuple[int, int, int]):
    arrays, crn = golden("crn.npz"), ContextualRelationNetwork(*dims).eval()
    load(crn, "method.crn.", REFERENCE_KEYS)
    x, mask = torch.from_numpy(arrays[f"crn_{size}_x"]), torch.from_numpy(arrays[f"crn_{size}_mask"]).bool()
    with torch.no_grad():
        plain, masked = crn(x), crn(x, mask)
    close(plain, arrays[f"crn_{size}_h"])
    close(masked, arrays[f"crn_{size}_hm"])
    close(crn.pool(masked), arrays[f"crn_{size}_pm"])
    for pooling, key in (("center", "p"), ("cls", "p_cls"), ("avg", "p_avg"), ("max", "p_max")):
        crn.pooling = pooling
        close(crn.pool(plain), arrays[f"crn_{size}_{key}"])


def test_pseudo_boundary():
    arrays = golden("boundary.npz")
    found = pseudo_boundary(torch.from_numpy(arrays["sparse"]), torch.from_numpy(arrays["dense"]))
    assert found.tolist() == arrays["boundary"].tolist()


def small_bassl(**switches: bool) -> BaSSL:
    method = BaSSL(64, hidden=48, intermediate=96, dropout=0.0, nce_hidden=64, nce_dim=32, **switches)
    load(method, "method.", REFERENCE_KEYS)
    return method


def test_bassl_losses_and_their_gradient():
    arrays = golden("loss_bassl.npz")
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    first_candidate = torch.zeros(len(x), 3)
    losses = small_bassl()(x, {"mask": torch.from_numpy(arrays["mask"]).bool(), "pick": first_candidate})
    sum(losses.values()).backward()
    assert list(losses) == ["ssm", "cgm", "pp", "msm"]
    for name, loss in losses.items():
        close(loss, arrays[f"{name}_loss"])
    close(x.grad, arrays["grad_x"])


@pytest.mark.parametrize(
    ("switch", "loss"),
    [
        ("shot_scene_matching", "ssm"),
        ("contextual_group_matching", "cgm"),
        ("pseudo_boundary_prediction", "pp"),
        ("masked_shot_modelling", "msm"),
    ],
)
def test_each_loss_works_alone_and_can_be_left_out(switch: str, loss: str):
    arrays = golden("loss_bassl.npz")
    switches = (
        "shot_scene_matching",
        "contextual_group_matching",
        "pseudo_boundary_prediction",
        "masked_shot_modelling",
    )
    batch = {"mask": torch.from_numpy(arrays["mask"]).bool(), "pick": torch.zeros(6, 3)}
    x = torch.from_numpy(arrays["x"])
    alone = small_bassl(**{other: other == switch for other in switches})(x, batch)
    assert list(alone) == [loss]
    close(alone[loss], arrays[f"{loss}_loss"])
    assert loss not in small_bassl(**{switch: False})(x, batch)


def test_every_parameter_that_wants_a_gradient_gets_one_whatever_is_on():
    arrays = golden("loss_bassl.npz")
    batch = {"mask": torch.from_numpy(arrays["mask"]).bool(), "pick": torch.zeros(6, 3)}
    names = ("shot_scene_matching", "contextual_group_matching", "pseudo_boundary_prediction", "masked_shot_modelling")
    for on in itertools.product((True, False), repeat=4):
        if any(on):
            method = small_bassl(**dict(zip(names, on, strict=True)))
            sum(method(torch.from_numpy(arrays["x"]), batch).values()).backward()
            wanting = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
            assert not wanting, on


def test_lars():
    arrays = golden("lars.npz")
    weights = [torch.nn.Parameter(torch.from_numpy(arrays[f"init_{i}"].copy())) for i in range(3)]
    groups = [{"params": [weights[0], weights[2]]}, {"params": [weights[1]], "weight_decay": 0.0, "adapt": False}]
    optimiser = LARS(groups, lr=0.3, momentum=0.9, weight_decay=1e-6)
    for step in range(5):
        for i, weight in enumerate(weights):
            weight.grad = torch.from_numpy(arrays[f"grad_step{step}_{i}"])
        optimiser.step()
        for i, weight in enumerate(weights):
            close(weight, arrays[f"weight_after_step{step}_{i}"])


def test_parameter_groups():
    groups = json.loads((GOLDEN / "lars_param_groups.json").read_text())
    model = torch.nn.ModuleDict({"encoder": ResNet(50), "method": BaSSL(2048)})
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed, free = split_parameters(model)
    theirs = {kind: {rename(key) for key in keys} - {None} for kind, keys in groups.items()}
    assert {names[p] for p in decayed} == theirs["weight_decay_and_trust"]
    assert {names[p] for p in free} == set.union(*theirs.values()) - theirs["weight_decay_and_trust"]


@pytest.mark.parametrize(("key", "case"), [("a", 0), ("b", 1)])
def test_schedule(key: str, case: int):
    arrays = golden("schedule.npz")
    warmup, total = int(arrays["warmup"][case]), int(arrays["total"][case])
    ours = [warmup_cosine(step, warmup, total) for step in range(total + 1)]
    np.testing.assert_allclose(ours, arrays[key], rtol=1e-4, atol=1e-7)


def test_finetune_loss():
    arrays = golden("finetune_loss.npz")
    close(
        balanced_cross_entropy(torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"])), arrays["loss"]
    )
