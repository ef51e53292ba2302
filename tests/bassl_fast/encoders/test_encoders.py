"""Shot encoders: what a switch changes, and what it does not."""

from __future__ import annotations

import pytest
import torch

from bassl_fast.encoders import ResNet
from shard_tools.errors import ConfigError


def train_step(encoder: ResNet) -> int:
    """Forward and backward of one batch; bytes kept for the backward pass, without the weights."""
    kept, weights = {}, {p.data_ptr() for p in encoder.parameters()}
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = encoder(pictures).square().sum()
    loss.backward()
    return sum(kept.values())


def test_activation_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain, frugal = ResNet(50, 8), ResNet(50, 8, activation_checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    for _ in range(2):
        memory = [train_step(encoder) for encoder in (plain, frugal)]
        assert 0 < memory[1] < memory[0] / 2
        for (name, p), q in zip(plain.named_parameters(), frugal.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name
        for name, value in plain.state_dict().items():  # running statistics among it
            assert torch.equal(value, frugal.state_dict()[name]), name


def test_activation_checkpointing_and_compile_exclude_each_other():
    with pytest.raises(ConfigError, match="exclude each other"):
        ResNet(18, 4, activation_checkpointing=True).compile()
