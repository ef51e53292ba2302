"""Shot encoders: what a switch changes, and what it does not."""

from __future__ import annotations

import os
import subprocess

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


NARROW = """
import torch
from bassl_fast.encoders import ResNet

encoder = ResNet(18, 4).to(memory_format=torch.channels_last)
exact = ResNet(18, 4).double()
exact.load_state_dict(encoder.state_dict())
for _ in range(20):
    pictures = torch.randn(12, 3, 32, 32).to(memory_format=torch.channels_last)
    encoder(pictures).sum().backward()
    exact(pictures.double()).sum().backward()
for ours, other in zip(encoder.parameters(), exact.parameters(), strict=True):
    torch.testing.assert_close(ours.grad.double(), other.grad, rtol=1e-3, atol=1e-2)
"""


@pytest.mark.slow
def test_a_narrow_network_trains_on_a_cpu_with_avx2(warm):
    """Where oneDNN writes past the memory of a strided 1x1 convolution of fewer than 8 channels."""
    done = subprocess.run(
        [warm, "-c", NARROW], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
