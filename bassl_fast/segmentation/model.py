"""The model that finds scene boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bassl_fast.checkpoints import checkpoint
from bassl_fast.heads.crn import ContextualRelationNetwork


class SceneBoundary(nn.Module):
    """Contextual relation network and a linear head: is the centre shot the last of its scene?

    Args:
        crn: the network; None for a linear probe, which sees the centre shot alone.
        dim: size D of a shot feature.
    """

    def __init__(self, crn: ContextualRelationNetwork | None, dim: int) -> None:
        super().__init__()
        self.crn, self.dim = crn, dim
        self.head = nn.Linear(dim if crn is None else crn.hidden, 2)

    @property
    def shots(self) -> int:
        """Length T of its windows."""
        return 1 if self.crn is None else self.crn.shape["shots"]

    def represent(self, windows: Tensor) -> Tensor:
        """What the head sees, `[B, hidden]` or `[B, D]`, of windows of features `[B, T, D]` of any precision."""
        windows = windows.float()
        return windows[:, 0] if self.crn is None else self.crn.pool(self.crn(windows))

    def forward(self, windows: Tensor) -> Tensor:
        """Logits `[B, 2]` from windows of features `[B, T, D]`."""
        return self.head(self.represent(windows))


def load_finetuned(path: str | Path) -> tuple[SceneBoundary, dict[str, Any]]:
    """Model (on the CPU) and whole state of a checkpoint of `bassl-fast finetune`.

    Raises:
        CheckpointError: it cannot be read, or its weights do not fit its shape.
    """
    state = checkpoint.load(path, "finetune")

    def make() -> tuple[SceneBoundary]:
        crn = None if state["crn"] is None else ContextualRelationNetwork(**state["crn"])
        return (SceneBoundary(crn, state["dim"]),)

    (model,) = checkpoint.fill(make, state["state_dict"], ("",), path)
    return model, state
