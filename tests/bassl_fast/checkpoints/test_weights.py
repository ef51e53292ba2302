"""Models without memory."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from bassl_fast.checkpoints.weights import without_memory
from bassl_fast.encoders import X3D, ResNet
from bassl_fast.methods import BaSSL


class Operations(TorchDispatchMode):
    """Remembers the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict | None = None) -> Any:
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


def test_a_model_without_memory_is_not_initialised():
    with Operations() as seen, without_memory():
        models = ResNet(50), X3D("M"), BaSSL(32)
    assert all(p.is_meta for model in models for p in model.parameters())
    assert "aten::empty.memory_format" in seen.names
    assert not seen.names & {"aten::normal_", "aten::uniform_"}
