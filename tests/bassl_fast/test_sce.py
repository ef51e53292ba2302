"""SCE gives the published code's numbers: loss, queue, schedules, heads, and whole training steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bassl_fast.encoders import ResNet3D
from bassl_fast.methods.momentum import cosine_momentum, mlp
from bassl_fast.methods.sce import SCE, KeyQueue, similarities, soft_contrastive
from bassl_fast.optim import LARS, split_parameters, warmup_cosine_sce
from bassl_fast.released import SCE_VIDEOS, load_released
from shard_tools.errors import CheckpointError, ConfigError
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
    with pytest.raises(ConfigError, match=r"method.queue 64: each step brings 24 keys, .* take 72"):
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


def test_released_checkpoints():
    """A whole one, an encoder alone, and what is not one."""
    encoder, method = ResNet3D(18), SCE(512, hidden=8, outputs=4, queue=4)
    method.attach(encoder)
    model = nn.ModuleDict({"encoder": encoder, "method": method})
    keys = facts("sce_trunk_keys")["resnet3d18"]["keys"]
    bare = {key.removeprefix("model."): tensor(key, tuple(shape)) for key, (_, shape) in keys.items()}
    whole = {f"{trunk}.model.{key}": value for trunk in ("trunk", "momentum_trunk") for key, value in bare.items()}
    for name in ("projector", "predictor", "momentum_projector"):
        head = getattr(method, name.replace("momentum", "target"))
        whole |= {f"{name}.layers.{key}": value + 1 for key, value in head.state_dict().items()}
    whole |= {"queue": torch.ones(4, 4), "queue_ptr": torch.tensor([2]), "train_transform.mean": torch.zeros(3)}
    assert load_released(model, whole, SCE_VIDEOS, "sce.ckpt") == []
    assert method.queue.at == 2
    assert torch.equal(
        method.target_encoder.stage4[1].conv_b.weight, bare["blocks.4.res_blocks.1.branch2.conv_b.weight"]
    )

    missing = load_released(model, bare, SCE_VIDEOS, "r3d18.pth")
    assert missing
    assert all(name.startswith("method.") for name in missing)
    with pytest.raises(CheckpointError, match=r"x.pth: holds no tensor of this network, but fc.weight"):
        load_released(model, {"fc.weight": torch.zeros(1)}, SCE_VIDEOS, "x.pth")
    with pytest.raises(CheckpointError, match=r"x.pth: queue is \[4, 8\], ours \[4, 4\]; build the network it is of"):
        load_released(model, {"queue": torch.zeros(4, 8)}, SCE_VIDEOS, "x.pth")
