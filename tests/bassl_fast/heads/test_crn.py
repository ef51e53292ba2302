"""The contextual relation network."""

from __future__ import annotations

import pytest
import torch

from bassl_fast.heads import ContextualRelationNetwork
from shard_tools.errors import ConfigError


@pytest.mark.parametrize("layers", [1, 3])
def test_the_centre_alone_is_what_the_whole_window_gives_it_with_the_same_gradients(layers: int):
    torch.manual_seed(0)
    crn = ContextualRelationNetwork(6, 8, 16, heads=2, layers=layers, shots=5, dropout=0.0).double()
    shots, pull = torch.randn(3, 5, 6).double(), torch.randn(3, 8).double()
    gradients = []
    for found in (crn(shots)[:, 3], crn.centre(shots)):
        torch.testing.assert_close(found, crn.centre(shots))
        crn.zero_grad()
        (found * pull).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in crn.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*gradients)


def test_a_network_without_layers_is_refused():
    with pytest.raises(ConfigError, match="layers 0"):
        ContextualRelationNetwork(6, 8, 16, heads=2, layers=0)
