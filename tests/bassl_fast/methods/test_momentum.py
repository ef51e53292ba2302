"""Methods with a momentum encoder: two real processes (gloo) against one, and who follows whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bassl_fast.encoders import ResNet
from bassl_fast.methods.boxes import Boxes
from bassl_fast.methods.byol import BYOL
from bassl_fast.methods.momentum import MomentumMethod
from bassl_fast.methods.sce import SCE
from bassl_fast.methods.scrl import SCRL
from pipelines.samples import Centers
from pipelines.views import TrainViews
from tests.ranks import run_ranks

pytestmark = pytest.mark.slow

BATCH, SIZE, STEPS = 8, 32, 3
METHODS = {
    "sce": lambda dim: SCE(dim, TrainViews(size=SIZE), hidden=16, outputs=8, queue=32),
    "sce_batch_keys": lambda dim: SCE(dim, TrainViews(size=SIZE), hidden=16, outputs=8, queue=32, batch_keys=True),
    "byol": lambda dim: BYOL(dim, TrainViews(size=SIZE), hidden=16, outputs=8),
    "scrl": lambda dim: SCRL(dim, TrainViews(size=SIZE), Boxes(3, least=8), hidden=16, outputs=8),
}


class Model(nn.Module):
    """Encoder and method, called as the trainer does."""

    def __init__(self, encoder: nn.Module, method: MomentumMethod) -> None:
        super().__init__()
        self.encoder, self.method = encoder, method
        method.attach(encoder)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum(self.method(self.method.embed(self.encoder, batch), batch).values())


def make(name: str) -> Model:
    torch.manual_seed(0)
    encoder = ResNet(18, width=4)
    return Model(encoder, METHODS[name](encoder.dim))


def global_batch(method: MomentumMethod, step: int) -> dict[str, torch.Tensor]:
    one = np.ones(BATCH, np.int64)
    centers = Centers(0 * one, 5 * one, 20 * one, 0 * one, 3 * one, 90 * one, 160 * one)
    drawn = method.sample(centers, np.random.default_rng(step))
    noise = torch.Generator().manual_seed(step)
    batch = {"images": torch.randn(*drawn.views.shape, 3, SIZE, SIZE, generator=noise)}
    return batch | {key: torch.from_numpy(rows) for key, rows in drawn.extras.items()}


def train(name: str, rank: int, world_size: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Mean loss of each step, and what is left in the end."""
    model = make(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()  # it sees a process's part alone; without, the parts add up exactly
    shared = DistributedDataParallel(model) if world_size > 1 else model
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses, mine = [], slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    for step in range(STEPS):
        batch = global_batch(model.method, step)
        loss = shared({key: rows[mine] for key, rows in batch.items()})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        model.method.after_step(model.encoder, step, STEPS + 1)
        everyone = loss.detach().clone()
        if world_size > 1:
            dist.all_reduce(everyone)
        losses.append(everyone.item() / world_size)
    return losses, model.state_dict()


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save({name: train(name, rank, 2) for name in METHODS}, f"{folder}/found-{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path, warm: str):
    run_ranks(warm, work, 2, tmp_path)
    found = [torch.load(tmp_path / f"found-{rank}.pt", weights_only=True) for rank in range(2)]
    for name in METHODS:
        losses, state = train(name, 0, 1)
        assert losses == pytest.approx(found[0][name][0], rel=1e-5), name
        for key, value in state.items():
            torch.testing.assert_close(found[0][name][1][key], value, rtol=1e-4, atol=1e-6)
            assert torch.equal(found[0][name][1][key], found[1][name][1][key]), key


@pytest.mark.parametrize("name", METHODS)
def test_the_target_follows_and_gets_no_gradient(name: str):
    model = make(name)
    batch = global_batch(model.method, 0)
    batch["images"].requires_grad_()
    model(batch).backward()
    method = model.method
    targets = [*method.target_encoder.parameters(), *method.target_projector.parameters()]
    online = [*model.encoder.parameters(), *method.projector.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in targets)
    assert all(p.grad is not None for p in [*online, *method.predictor.parameters()])
    with torch.no_grad():
        for p in online:
            p += 1
    before = [p.clone() for p in targets]
    method.after_step(model.encoder, 0, 10)
    for old, now in zip(before, targets, strict=True):
        torch.testing.assert_close(now, old + (1 - method.momentum), rtol=1e-4, atol=1e-5)
    method.after_step(model.encoder, 10 - 1 if isinstance(method, SCE) else 10, 10)
    for old, now in zip(before, targets, strict=True):
        torch.testing.assert_close(now, old + (1 - method.momentum), rtol=1e-4, atol=1e-5)
