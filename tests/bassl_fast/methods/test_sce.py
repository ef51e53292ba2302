"""SCE gives the published code's numbers: loss, queue, schedules, heads, and whole training steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bassl_fast.methods.momentum import cosine_momentum, mlp
from bassl_fast.methods.sce import SCE, KeyQueue, similarities, soft_contrastive
from bassl_fast.training.optim import LARS, split_parameters, warmup_cosine_sce
from shard_tools.errors import ConfigError
from tests.golden_seeds import arrays, close, facts
from tests.golden_weights import fill, tensor


@pytest.mark.parametrize("case", facts("sce_loss_cases"), ids=lambda case: str(case["case"]))
def test_loss_and_gradient(case: dict):
    given = arrays("sce_loss")
    query, key = given["q"].requires_grad_(), given["k"]
    columns = [given["k_all"].T] * case["use_keys"] + [given["queue"]] * case["use_queue"]
    own = case["rank"] * len(key) + torch.arange(len(key)) if case["use_keys"] else None
    compared = similarities(query, key, torch.cat(columns, 1), own)
    loss = soft_contrastive(*compared, case["tau"], case["tau_m"], case["coeff"])
    loss.backward()
    close(loss, given[f"loss_{case['case']}"])
    close(query.grad, given[f"grad_q_{case['case']}"])


def test_queue():
    given = arrays("sce_queue")
    queue = KeyQueue(16, 64)
    queue.keys.copy_(given["queue_before"])
    for i in range(3):
        queue.push(given[f"enqueue{i}"])
        assert torch.equal(queue.keys, given[f"queue_after{i}"])
        assert torch.equal(queue.at, given[f"ptr_after{i}"])


def test_a_queue_that_the_batch_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match=r"method.queue 64: must be a multiple of the 24 keys per step; take 72"):
        KeyQueue(4, 64).push(torch.zeros(24, 4))


def test_momentum():
    run = next(run for run in facts("sce_momentum") if run["rule"] == "cosine")
    method = SCE(4, hidden=4, outputs=4, queue=4, momentum=run["m0"])
    total = run["steps_per_epoch"] * run["epochs"]
    assert [method.momentum_at(step, total) for step in range(total)] == pytest.approx(run["used"], rel=1e-9)
    assert cosine_momentum(total - 2, total - 1, run["m0"]) == pytest.approx(run["value_after_last_step"], rel=1e-9)


def test_learning_rates():
    given = arrays("sce_lr_schedule")
    warmup, total = int(given["warmup_steps"]), int(given["total_steps"])
    ours = [float(given["base_lr"]) * warmup_cosine_sce(step, warmup, total) for step in range(total)]
    assert ours == pytest.approx(given["lr"].tolist(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("name", "sizes"), [("r50", (2048, 4096, 4096, 256)), ("r3d18", (512, 1024, 1024, 256))])
@torch.no_grad()
def test_heads(name: str, sizes: tuple[int, ...]):
    given, keys = arrays("sce_heads"), facts("sce_heads_keys")
    heads = {"projector": mlp(*sizes, last_norm=True), "predictor": mlp(sizes[-1], *sizes[-2:])}
    for kind, head in heads.items():
        prefix = f"{name}_{kind}"
        theirs = {key.removeprefix("layers."): shape for key, (_, shape) in keys[prefix]["keys"].items()}
        assert theirs == {key: list(value.shape) for key, value in head.state_dict().items()}
        fill(head, {key: f"{prefix}.layers.{key}" for key in theirs})
        close(head(given[f"{prefix}_x"]), given[f"{prefix}_y"])


@pytest.mark.parametrize("crops", [2, 6])
def test_training_steps(crops: int):
    given = arrays(f"sce_steps_{crops}crops")
    encoder = nn.Linear(24, 32)
    method = SCE(
        32,
        hidden=48,
        outputs=16,
        temperature=float(given["tau"]),
        target_temperature=float(given["tau_m"]),
        positive=float(given["coeff"]),
        queue=64,
        momentum=float(given["initial_momentum"]),
    )
    method.attach(encoder)
    parts = {
        "trunk.": encoder,
        "projector.layers.": method.projector,
        "predictor.layers.": method.predictor,
        "momentum_trunk.": method.target_encoder,
        "momentum_projector.layers.": method.target_projector,
    }
    for prefix, part in parts.items():
        part.load_state_dict({key: tensor(prefix + key, tuple(v.shape)) for key, v in part.state_dict().items()})
    method.queue.keys.copy_(given["queue_before"])

    model = nn.ModuleDict({"encoder": encoder, "method": method})
    decayed, free = split_parameters(model, "vectors")
    groups = [{"params": decayed}, {"params": free, "weight_decay": 0.0, "adapt": False}]
    optimiser = LARS(
        groups, float(given["lr"]), float(given["sgd_momentum"]), float(given["weight_decay"]), float(given["trust"])
    )
    total = int(given["steps_per_epoch"] * given["epochs"])
    for step in range(3):
        batch = {"images": given[f"step{step}_inputs"].transpose(0, 1)}
        (loss,) = method(method.embed(encoder, batch), batch).values()
        optimiser.zero_grad()
        loss.backward()
        close(loss, given[f"step{step}_loss"])
        for prefix, part in parts.items():
            for key, parameter in part.named_parameters():
                if parameter.requires_grad:
                    close(parameter.grad, given[f"step{step}_grad_{prefix}{key}"])
        optimiser.step()
        method.after_step(encoder, step, total)
        close(method.queue.keys, given[f"step{step}_queue_after"])
        assert torch.equal(method.queue.at, given[f"step{step}_queue_ptr_after"])
        for prefix, part in parts.items():
            for key, value in part.state_dict().items():
                if not key.endswith("num_batches_tracked"):
                    close(value, given[f"step{step}_after_{prefix}{key}"])
