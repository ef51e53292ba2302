"""The reference implementation's answers, number for number."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

from bassl_fast.checkpoints.reference import rename
from bassl_fast.encoders import ResNet
from bassl_fast.heads.crn import ContextualRelationNetwork
from bassl_fast.methods import BaSSL, BaSSLShotCoL, Instance, Method, ShotCoL, Temporal
from bassl_fast.methods.losses import balanced_cross_entropy
from bassl_fast.methods.pseudo_boundary import pseudo_boundary
from bassl_fast.training.optim import LARS, split_parameters, warmup_cosine
from shard_tools.errors import ConfigError
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
        plain, masked, centre = crn(x), crn(x, mask), crn.centre(x)
    close(plain, arrays[f"crn_{size}_h"])
    close(masked, arrays[f"crn_{size}_hm"])
    close(masked[:, 9], arrays[f"crn_{size}_pm"])
    close(centre, arrays[f"crn_{size}_p"])


def test_pseudo_boundary():
    arrays = golden("boundary.npz")
    found = pseudo_boundary(torch.from_numpy(arrays["sparse"]), torch.from_numpy(arrays["dense"]))
    assert found.tolist() == arrays["boundary"].tolist()


SWITCHES = ("shot_scene_matching", "contextual_group_matching", "pseudo_boundary_prediction", "masked_shot_modelling")
SMALL_HEAD = {"nce_hidden": 64, "nce_dim": 32}


def small_bassl(kind: type[BaSSL] = BaSSL, **switches: bool) -> BaSSL:
    method = kind(64, hidden=48, intermediate=96, dropout=0.0, **SMALL_HEAD, **switches)
    load(method, "method.", REFERENCE_KEYS)
    return method


def small_shot_level(kind: type[Method]) -> Method:
    method = kind(64, **SMALL_HEAD)
    load(method, "method.", REFERENCE_KEYS)
    return method


def golden_batch(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Shot features that require a gradient, and a batch whose picks always take the first candidate."""
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    return x, {"mask": torch.from_numpy(arrays["mask"]).bool(), "pick": torch.zeros(len(x), 3)}


@pytest.mark.parametrize(("kind", "name"), [(BaSSL, "bassl"), (BaSSLShotCoL, "bassl_shotcol")])
def test_bassl_losses_and_their_gradient(kind: type[BaSSL], name: str):
    arrays = golden(f"loss_{name}.npz")
    x, batch = golden_batch(arrays)
    losses = small_bassl(kind)(x, batch)
    sum(losses.values()).backward()
    expected = {key.removesuffix("_loss"): arrays[key] for key in arrays if key.endswith("_loss") or key == "shotcol"}
    assert set(losses) == set(expected)
    for loss, value in losses.items():
        close(value, expected[loss])
    close(x.grad, arrays["grad_x"])


@pytest.mark.parametrize(("kind", "name", "read"), [
    (Instance, "instance", slice(0, None)),
    (Temporal, "temporal", slice(0, None)),
    (ShotCoL, "shotcol", slice(2, None)),  # the reference encodes both ends of the window too, for no loss
])  # fmt: skip
def test_shot_level_losses_and_their_gradient(kind: type[Method], name: str, read: slice):
    arrays = golden(f"loss_{name}.npz")
    x = torch.from_numpy(arrays["x"]).requires_grad_()
    (loss,) = small_shot_level(kind)(x[:, read], {}).values()
    loss.backward()
    close(loss, arrays["simclr_loss"])
    close(x.grad, arrays["grad_x"])


@pytest.mark.parametrize(("switch", "loss"), list(zip(SWITCHES, ("ssm", "cgm", "pp", "msm"), strict=True)))
def test_each_loss_works_alone_and_can_be_left_out(switch: str, loss: str):
    arrays = golden("loss_bassl.npz")
    x, batch = golden_batch(arrays)
    alone = small_bassl(**{other: other == switch for other in SWITCHES})(x, batch)
    assert list(alone) == [loss]
    close(alone[loss], arrays[f"{loss}_loss"])
    assert loss not in small_bassl(**{switch: False})(x, batch)
    arrays = golden("loss_bassl_shotcol.npz")
    x, batch = golden_batch(arrays)
    beside = small_bassl(BaSSLShotCoL, **{other: other == switch for other in SWITCHES})(x, batch)
    assert set(beside) == {loss, "shotcol"}
    close(beside[loss], arrays[f"{loss}_loss"])
    close(beside["shotcol"], arrays["shotcol"])


@pytest.mark.parametrize("kind", [BaSSL, BaSSLShotCoL])
def test_what_is_built_is_used_and_gets_a_gradient_whatever_is_on(kind: type[BaSSL]):
    arrays = golden("loss_bassl.npz" if kind is BaSSL else "loss_bassl_shotcol.npz")
    for on in itertools.product((True, False), repeat=4):
        switches = dict(zip(SWITCHES, on, strict=True))
        if not any(on):
            with pytest.raises(ConfigError, match="all four losses are off"):
                small_bassl(kind, **switches)
            continue
        method = small_bassl(kind, **switches)
        x, batch = golden_batch(arrays)
        sum(method(x, batch).values()).backward()
        wanting = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
        assert not wanting, on
        ssm, cgm, pp, msm = on
        assert hasattr(method, "crn") == (cgm or pp or msm)
        # The NCE head also finds the pseudo-boundary, so it is there if any loss needs one or the other.
        assert hasattr(method, "head_nce") == (ssm or cgm or pp or kind is BaSSLShotCoL)
        frozen = {name.split(".")[0] for name, p in method.named_parameters() if not p.requires_grad}
        assert frozen <= {"head_nce", "crn"}
        assert ("head_nce" in frozen) == (kind is BaSSL and not ssm and (cgm or pp))
        assert ("crn" in frozen) == ((cgm or pp) and not msm)  # its mask vector


@pytest.mark.parametrize("kind", [Instance, Temporal, ShotCoL])
def test_a_shot_level_method_builds_its_head_alone(kind: type[Method]):
    assert [name for name, _ in small_shot_level(kind).named_children()] == ["head_nce"]


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
