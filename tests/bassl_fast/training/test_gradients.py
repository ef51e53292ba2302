"""Every parameter of every method has a gradient, whichever losses are on: DDP on GPUs looks for no unused ones.

And none waits for the GPU, as counted by `test_budget`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from bassl_fast.encoders import ResNet
from bassl_fast.methods import BYOL, SCE, SCRL, BaSSL, BaSSLShotCoL, Instance, Method, ShotCoL, Supervised, Temporal
from pipelines.samples import Centers
from pipelines.views import TrainViews

from .test_budget import Budget, count_methods

SWITCHES = ("shot_scene_matching", "contextual_group_matching", "pseudo_boundary_prediction", "masked_shot_modelling")
SMALL = {"hidden": 8, "intermediate": 8, "heads": 2, "nce_hidden": 8, "nce_dim": 8}
VIEWS = TrainViews(size=64)
BATCH = 4

CASES: list[tuple[type[Method], dict[str, Any]]] = [
    *(
        (BaSSL, SMALL | dict(zip(SWITCHES, on, strict=True)))
        for on in itertools.product((True, False), repeat=4)
        if any(on)
    ),
    *((kind, SMALL | {"run_length": 4, "negatives_apart": 4}) for kind in (BaSSL, BaSSLShotCoL)),
    (BaSSLShotCoL, SMALL),
    (ShotCoL, {"run_length": 4, "negatives_apart": 4}),
    *((kind, {"negatives_apart": 4}) for kind in (Instance, Temporal)),
    *((kind, {}) for kind in (Instance, Temporal, ShotCoL)),
    *((BYOL, {"second": VIEWS, "classes": classes}) for classes in (None, 3)),
    *((SCRL, {"second": VIEWS, "classes": classes}) for classes in (None, 3)),
    *((SCE, {"second": VIEWS, "queue": 16, "classes": classes}) for classes in (None, 3)),
    (Supervised, {"classes": 3}),
]


def batch_of(method: Method) -> dict[str, Any]:
    one = np.ones(BATCH, np.int64)
    centers = Centers(0 * one, 20 * one, 60 * one, 0 * one, 3 * one, 90 * one, 160 * one)
    drawn = method.sample(centers, np.random.default_rng(0))
    batch = {
        name: rows if name in drawn.on_host else torch.from_numpy(np.ascontiguousarray(rows))
        for name, rows in drawn.extras.items()
    }
    batch["images"] = torch.randn(*drawn.views.shape, 3, 64, 64)
    return batch | {"label": torch.tensor([0, 1, 2, 0]), "film": torch.arange(BATCH), "position": torch.arange(BATCH)}


@pytest.mark.parametrize(("kind", "arguments"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_every_parameter_has_a_gradient_and_nothing_waits(
    kind: type[Method], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    encoder = ResNet(18, width=4)
    method = kind(encoder.dim, views=VIEWS, **arguments)
    method.attach(encoder)
    batch = batch_of(method)
    budget = Budget()
    count_methods(budget, monkeypatch)
    with budget:
        sum(method(method.embed(encoder, batch), batch).values()).backward()
    assert not budget.found
    for part in (encoder, method):
        missing = [name for name, p in part.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing
