"""Synchronised batch normalisation on real processes (gloo), against torch's own on the whole batch in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from bassl_fast.training.sync_norm import SyncedBatchNorm, _Normalise, _sums, synchronised
from tests.ranks import run_ranks

pytestmark = pytest.mark.slow

PARTS = (5, 1, 2)  # images of a process
SHAPES = {"2d": (6, 4, 3), "1d": (6,)}  # channels first
FAR = 3.0  # the mean, in deviations


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6) if kind == "2d" else nn.BatchNorm1d(6, affine=False)
    if norm.affine:
        nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    return nn.Sequential(norm, nn.Tanh())


def batches(kind: str) -> torch.Tensor:
    """Three batches `[3, N, ...]`, whose mean is far from 0."""
    draw = torch.Generator().manual_seed(1)
    return torch.randn(3, sum(PARTS), *SHAPES[kind], generator=draw) + FAR


def run(net: nn.Module, kind: str, mine: slice) -> dict[str, torch.Tensor]:
    """Three batches: outputs and gradients of the last, and the state."""
    outputs, x = None, None
    for batch in batches(kind):
        net.zero_grad()
        x = batch[mine].clone().requires_grad_()
        outputs = net(x)
        weights = torch.arange(batch.numel()).view_as(batch).sin()[mine]
        (outputs * weights).sum().backward()
    gradients = {f"grad {name}": p.grad for name, p in net.named_parameters()}
    found = {"outputs": outputs.detach(), "grad x": x.grad, **gradients, **net.state_dict()}
    return {name.replace("_orig_mod.", ""): rows for name, rows in found.items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=len(PARTS))
    first = sum(PARTS[:rank])
    found = {}
    for kind in SHAPES:
        for compiled in (False, True):
            net = synchronised(network(kind))
            if compiled:
                net = torch.compile(net, fullgraph=True, backend="aot_eager")
            found[kind, compiled] = run(net, kind, slice(first, first + PARTS[rank]))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_it_equals_torchs_on_the_whole_batch_and_compiles_whole(tmp_path: Path, warm: str):
    run_ranks(warm, work, len(PARTS), tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(len(PARTS))]
    for kind in SHAPES:
        whole = run(network(kind), kind, slice(None))
        for compiled in (False, True):
            found = [parts[kind, compiled] for parts in ranks]
            assert found[0].keys() == whole.keys()
            for name, expected in whole.items():
                ours = [part[name] for part in found]
                if name in ("outputs", "grad x"):
                    ours = [torch.cat(ours)]
                elif name.startswith("grad"):
                    ours = [torch.stack(ours).sum(0)]
                for one in ours:
                    torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-6, msg=lambda m: f"{name}: {m}")  # noqa: B023


def test_half_precision_is_summed_in_float32():
    x = torch.randn(64, 5, 9, 9, generator=torch.Generator().manual_seed(0)).add(3).bfloat16()
    first, second, count = _sums(x)
    wide = x.double()
    torch.testing.assert_close(first, wide.sum((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(second, wide.square().sum((0, 2, 3)), rtol=1e-5, atol=0)
    assert count.tolist() == [64 * 81]
    assert [sums.tolist() for sums in _sums(x[:0])] == [[0.0] * 5, [0.0] * 5, [0.0]]


def test_gradients_in_half_precision_are_those_of_torch(tmp_path: Path):
    """In a group of one process, where the whole of our own arithmetic runs."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = []
        for ours in (True, False):
            norm = network("2d")[0]
            x = batches("2d")[0].bfloat16().requires_grad_()
            if ours:
                y, *_ = _Normalise.apply(x, norm.weight, norm.bias, norm.eps, dist.group.WORLD.group_name)
            else:
                y = norm(x)
            (y.float() * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
            assert y.dtype == x.grad.dtype == torch.bfloat16
            found.append([y.float(), x.grad.float(), norm.weight.grad, norm.bias.grad])
        for one, other in zip(*found, strict=True):
            assert (one - other).norm() < 0.01 * other.norm()
    finally:
        dist.destroy_process_group()


def test_alone_it_is_torchs_bit_for_bit():
    compiled = torch.compile(synchronised(network("2d")), fullgraph=True, backend="eager")
    plain, *others = (run(net, "2d", slice(None)) for net in (network("2d"), synchronised(network("2d")), compiled))
    for ours in others:
        assert all(torch.equal(rows, ours[name]) for name, rows in plain.items())


def test_names_parameters_and_buffers_stay():
    net = network("2d")
    before = {name: rows.data_ptr() for name, rows in net.state_dict().items()}
    net.eval()
    synced = synchronised(net)
    assert isinstance(synced[0], SyncedBatchNorm)
    assert not synced[0].training
    assert {name: rows.data_ptr() for name, rows in synced.state_dict().items()} == before
    assert next(synced.parameters()) is synced[0].weight
