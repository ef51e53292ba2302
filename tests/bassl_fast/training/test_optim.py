"""Which parameters are decayed, and learning rates, as the published codes have them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bassl_fast.checkpoints.released import SCRL, SLOWFAST
from bassl_fast.cli.complexity import classifier
from bassl_fast.encoders import X3D, ResNet, VoV3D
from bassl_fast.encoders.backbone import Backbone
from bassl_fast.methods.byol import BYOL
from bassl_fast.training.optim import (
    LARS,
    build_optimiser,
    cosine,
    drops,
    split_parameters,
    warmup_cosine_scrl,
    warmup_into,
)
from bassl_fast.training.options import Optimiser
from pipelines.views import TestViews
from shard_tools.errors import ConfigError
from tests.golden_seeds import arrays, close, facts, ours_of


def names(module: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    of = {parameter: name for name, parameter in module.named_parameters()}
    return {of[parameter] for parameter in parameters}


@pytest.mark.parametrize("run", facts("vov3d_lr"), ids=lambda run: run["run"])
def test_learning_rates_of_clips(run: dict):
    start, points = run["warmup_start_lr"] / run["base_lr"], tuple(run["steps"][1:])
    for epoch, lr in zip(run["epoch"], run["lr"], strict=True):
        factor = warmup_into(
            lambda at: drops(at, points) if points else cosine(at, run["max_epoch"]), epoch, run["warmup_epochs"], start
        )
        assert run["base_lr"] * factor == pytest.approx(lr, rel=1e-6)


@pytest.mark.parametrize("run", facts("vov3d_lr"), ids=lambda run: run["run"])
def test_the_recipe_of_clips_follows_them_step_by_step(run: dict):
    """At steps that are the recorded fractions of an epoch."""
    base, epochs, per_epoch = run["base_lr"], run["max_epoch"], 1000
    recipe = Optimiser(
        "sgd",
        lr=base,
        lr_batch=0,
        warmup=run["warmup_epochs"] / epochs,
        schedule="slowfast",
        warmup_start=run["warmup_start_lr"] / base,
        drops=tuple(point / epochs for point in run["steps"][1:]),
    )
    built = build_optimiser(recipe, nn.Linear(2, 2), 64, epochs * per_epoch)
    factor = built["lr_scheduler"]["scheduler"].lr_lambdas[0]
    for epoch, lr in zip(run["epoch"], run["lr"], strict=True):
        assert base * factor(round(epoch * per_epoch)) == pytest.approx(lr, rel=1e-6)


def test_learning_rates_of_scrl():
    given = arrays("scrl_lr_schedule")
    steps = int(given["iters_per_epoch"])
    warmup, total = int(given["warmup_epochs"]) * steps, int(given["epochs"]) * steps
    ours = [float(given["base_lr"]) * warmup_cosine_scrl(step, warmup, total) for step in range(total)]
    assert ours == pytest.approx(given["lr"].tolist(), rel=1e-4, abs=1e-9)


def test_lars_of_scrl():
    given = arrays("scrl_lars")
    weights = [nn.Parameter(given[f"init_{i}"].clone()) for i in range(4)]
    adapted, free = ([weights[i] for i in given[f"params_in_group{group}"]] for group in (0, 1))
    groups = [
        {"params": adapted, "weight_decay": float(given["weight_decay_group0"])},
        {"params": free, "weight_decay": 0.0, "adapt": False, "lr_twice": True},
    ]
    optimiser = LARS(groups, lr=1.0, momentum=float(given["momentum"]), trust=float(given["trust"]))
    for step, lr in enumerate(given["lr"].tolist()):
        for group in optimiser.param_groups:
            group["lr"] = lr
        for i, weight in enumerate(weights):
            weight.grad = given[f"grad_step{step}_{i}"]
        optimiser.step()
        for i, weight in enumerate(weights):
            close(weight, given[f"weight_after_step{step}_{i}"])


def test_what_scrl_decays():
    """By the same rule of names. Only the gain of the stem differs: its norm is `encoder.1` there, `bn1` here."""
    groups = facts("scrl_lars_param_groups")
    with torch.device("meta"):
        model = nn.ModuleDict({"encoder": ResNet(50), "method": BYOL(2048, classes=1000)})
        model["method"].attach(model["encoder"])
    adapted, excluded = (set(ours_of(groups[k], SCRL)) for k in ("lars_and_weight_decay", "excluded"))
    decayed, free = (names(model, part) for part in split_parameters(model))
    assert decayed == adapted - {"encoder.bn1.weight"}
    assert free == excluded | {"encoder.bn1.weight"}


@pytest.mark.parametrize(("name", "kind", "size"), [("x3d_m", X3D, "M"), ("vov3d_m", VoV3D, "M")])
def test_what_clips_decay(name: str, kind: type, size: str):
    of = ours_of(facts(f"{name}_keys"), SLOWFAST)
    groups = {group["weight_decay"]: set(group["names"]) for group in facts("vov3d_models")[name]["optimizer_groups"]}
    with torch.device("meta"):
        model = classifier(kind(size), 400)
    decayed, free = split_parameters(model, "names_with_bn")
    assert {of[n] for n in names(model, free)} == groups[0.0]
    assert {of[n] for n in names(model, decayed)} == groups[5e-5]
    kept = {n for n, p in model.named_parameters() if p.ndim == 1 and "se." not in n and "classifier" not in n}
    assert names(model, split_parameters(model, "norms")[1]) == kept


def test_sgd_and_what_only_some_optimisers_have():
    model = nn.Linear(3, 2)
    recipe = Optimiser("sgd", lr=0.1, lr_batch=0, weight_decay=5e-5, nesterov=True, exempt="vectors")
    built = build_optimiser(recipe, model, 8, 100)
    weight, bias = built["optimizer"].param_groups
    assert (weight["weight_decay"], bias["weight_decay"], bias["nesterov"]) == (5e-5, 0.0, True)
    for wrong in ({"nesterov": True}, {"name": "adam", "lr_twice": True}, {"warmup_start": 0.1}, {"drops": (0.5,)}):
        with pytest.raises(ConfigError, match=r"leave (it|them) out"):
            Optimiser(**wrong)


class Layers(Backbone):
    """Embedding, three layers with batch normalisation, and a last linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.views, self.patch = TestViews(8, 8), 4
        self.embed = nn.Conv2d(3, 4, 4, 4)
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)) for _ in range(3))
        self.last = nn.Linear(4, 2)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        found = self.embed(images)
        for layer in self.layers:
            found = layer(found)
        return self.last(found.mean((2, 3)))


def trained(**options) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": Layers(), "method": nn.Linear(2, 2)})
    if options.get("frozen_layers"):
        model.encoder.freeze(options["frozen_layers"])
    recipe = Optimiser(
        "sgd", lr=1.0, lr_batch=0, momentum=0, weight_decay=0.1, schedule="constant", warmup=0, **options
    )
    optimiser = build_optimiser(recipe, model, 8, 100)["optimizer"]
    model.method(model.encoder(torch.randn(4, 3, 8, 8))).square().sum().backward()
    return model, optimiser


def test_the_rate_falls_layer_by_layer():
    """By what a step really changes: without momentum and decay it is the rate times the gradient."""
    model, optimiser = trained(layer_decay=0.5)
    for group in optimiser.param_groups:
        group["weight_decay"] = 0.0
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser.step()
    rates = {"encoder.embed": 0.0625, "encoder.layers.0": 0.125, "encoder.layers.1": 0.25, "encoder.layers.2": 0.5}
    for name, parameter in model.named_parameters():
        rate = next((rate for start, rate in rates.items() if name.startswith(start)), 1.0)
        torch.testing.assert_close(before[name] - parameter, rate * parameter.grad, rtol=1e-4, atol=1e-6)


def test_layers_keep_their_groups_and_decay():
    _, optimiser = trained(layer_decay=0.5)
    found = sorted((group["weight_decay"], group["lr"], len(group["params"])) for group in optimiser.param_groups)
    decayed = [(0.1, 0.0625, 1), (0.1, 0.125, 1), (0.1, 0.25, 1), (0.1, 0.5, 1), (0.1, 1.0, 2)]  # weights
    assert found == [(0.0, *row[1:]) for row in decayed] + decayed  # and as many biases


def test_frozen_layers_do_not_change():
    model, optimiser = trained(frozen_layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()  # as Lightning does
    optimiser.step()
    model.encoder(torch.randn(4, 3, 8, 8))
    frozen = ("encoder.embed", "encoder.layers.0", "encoder.layers.1")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(frozen), name
    with pytest.raises(ConfigError, match=r"optimiser.frozen_layers 4: Layers has 3; choose at most 3"):
        Layers().freeze(4)


def test_options_of_layers_need_layers():
    model = nn.ModuleDict({"encoder": ResNet(18, width=4)})
    with pytest.raises(ConfigError, match=r"ResNet has no list of layers; choose another encoder"):
        build_optimiser(Optimiser(layer_decay=0.5), model, 8, 100)
    with pytest.raises(ConfigError, match="ResNet has none to freeze"):
        model.encoder.freeze(1)
    with pytest.raises(ConfigError, match=r"layer_decay 0.5: there is no encoder to train here"):
        build_optimiser(Optimiser(layer_decay=0.5), nn.Linear(2, 2), 8, 100)
    for wrong in ({"layer_decay": 0}, {"layer_decay": 1.5}, {"frozen_layers": -1}):
        with pytest.raises(ConfigError, match=r"optimiser\.(layer_decay|frozen_layers) "):
            Optimiser(**wrong)
