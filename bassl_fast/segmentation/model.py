"""The model that finds scene boundaries, and how a checkpoint of kind "scenes" holds it.

    {"version", "kind", "head": {"class_path", "init_args"} or None, "dim", "views", "encoder"}

`encoder` is the content of a checkpoint of kind "encoder" (`model`, `state_dict`), or None if the encoder that made the
features was not found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.migrate import VERSION
from bassl_fast.checkpoints.model import plain_views
from bassl_fast.checkpoints.weights import fill
from bassl_fast.config.described import describe, make
from bassl_fast.heads import ContextualRelationNetwork
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError


class SceneBoundary(nn.Module):
    """Contextual relation network and a linear layer: is the centre shot the last of its scene?

    Args:
        crn: the network; None for a linear probe, which sees only the centre shot.
        dim: size D of a shot feature.
    """

    def __init__(self, crn: ContextualRelationNetwork | None, dim: int) -> None:
        super().__init__()
        self.crn, self.dim = crn, dim
        self.head = nn.Linear(dim if crn is None else crn.hidden, 2)

    @property
    def shots(self) -> int:
        """Length T of the windows."""
        return 1 if self.crn is None else self.crn.shots

    def represent(self, windows: Tensor) -> Tensor:
        """Input of the linear layer, `[B, hidden]` or `[B, D]`, from windows of features `[B, T, D]` of any dtype."""
        windows = windows.float()
        return windows[:, 0] if self.crn is None else self.crn.pool(self.crn(windows))

    def forward(self, windows: Tensor) -> Tensor:
        """Logits `[B, 2]` from windows of features `[B, T, D]`."""
        return self.head(self.represent(windows))


def section_of(model: SceneBoundary, views: TestViews, encoder: dict[str, Any] | None) -> dict[str, Any]:
    """The section `model` of a checkpoint of `model`."""
    return {
        "version": VERSION,
        "kind": checkpoint.SCENES,
        "head": None if model.crn is None else describe(model.crn),
        "dim": model.dim,
        "views": plain_views(views),
        "encoder": encoder,
    }


def load_finetuned(path: str | Path) -> tuple[SceneBoundary, dict[str, Any]]:
    """Model (on the CPU) and full content of a checkpoint of `bassl-fast finetune`.

    Raises:
        CheckpointError: it cannot be read, or its weights do not fit.
    """
    state = checkpoint.load(path, checkpoint.SCENES)
    section = state["model"]

    def build() -> tuple[SceneBoundary]:
        try:
            head = None if section["head"] is None else make(section["head"], ContextualRelationNetwork)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return (SceneBoundary(head, section["dim"]),)

    (model,) = fill(build, state["state_dict"], ("",), path)
    return model, state
