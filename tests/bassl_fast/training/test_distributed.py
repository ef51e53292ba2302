"""Two and four real processes (gloo) compute what one process does with the same global batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bassl_fast.methods import BaSSL, BaSSLShotCoL, Instance, Method, ShotCoL, Temporal
from pipelines.samples import Centers
from tests.ranks import run_ranks

pytestmark = pytest.mark.slow

BATCH, SIZE = 8, 8
WORLD_SIZES = (4, 2)
METHODS = (Instance, Temporal, ShotCoL, BaSSL, BaSSLShotCoL)


class Model(nn.Module):
    """A method on an encoder of one layer: what is shared out is the loss."""

    def __init__(self, kind: type[Method]) -> None:
        super().__init__()
        torch.manual_seed(0)
        small = {"hidden": 8, "intermediate": 8, "heads": 2, "dropout": 0.0} if issubclass(kind, BaSSL) else {}
        self.encoder = nn.Linear(3 * SIZE * SIZE, 16)
        self.method = kind(16, nce_hidden=16, nce_dim=8, **small)

    def forward(self, images: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(self.method(self.encoder(images.flatten(2)), batch).values()))


def run(kind: type[Method], rank: int, world_size: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The losses `[L]` and the gradient of their sum of this process's part of one global batch."""
    model = Model(kind)
    one = np.ones(BATCH, np.int64)
    where = Centers(0 * one, 20 * one, 60 * one, 0 * one, 3 * one, 90 * one, 160 * one)
    drawn = model.method.sample(where, np.random.default_rng(0))
    images = torch.randn(*drawn.views.shape, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    mine = slice(rank * BATCH // world_size, (rank + 1) * BATCH // world_size)
    batch = {name: torch.from_numpy(rows[mine]) for name, rows in drawn.extras.items()}
    shared = DistributedDataParallel(model) if world_size > 1 else model
    losses = shared(images[mine], batch)
    losses.sum().backward()
    return losses.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for world_size in WORLD_SIZES:
        if rank >= world_size:
            break
        dist.init_process_group("gloo", f"file://{folder}/meet-{world_size}", rank=rank, world_size=world_size)
        found = {}
        for kind in METHODS:
            losses, gradients = run(kind, rank, world_size)
            dist.all_reduce(losses)
            found[kind.__name__] = losses / world_size, gradients
        if rank == 0:
            torch.save(found, f"{folder}/found-{world_size}.pt")
        dist.destroy_process_group()


def test_every_method_gives_the_losses_and_gradients_of_one_process(tmp_path: Path, warm: str):
    run_ranks(warm, work, max(WORLD_SIZES), tmp_path)
    for kind in METHODS:
        losses, gradients = run(kind, 0, 1)
        for world_size in WORLD_SIZES:
            found = torch.load(tmp_path / f"found-{world_size}.pt", weights_only=True)
            shared_losses, shared_gradients = found[kind.__name__]
            torch.testing.assert_close(shared_losses, losses, rtol=1e-5, atol=1e-6)
            assert gradients.keys() == shared_gradients.keys()
            for name, gradient in gradients.items():
                apart = (shared_gradients[name] - gradient).norm()
                assert apart < 1e-4 * gradient.norm() + 1e-8, f"{kind.__name__}: {name}"
