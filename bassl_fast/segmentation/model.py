"""The model that finds scene boundaries, and how a checkpoint of kind "scenes" holds it.

    {"version", "kind", "head": {"class_path", "init_args"} or None, "similarity": {"statistics", "kinds"} or None,
     "dim", "views", "encoder"}

`similarity` has the names of the statistics, and for each feature folder the sha256 of the checkpoint that made the
features (None if it is not known), or "colours". Checkpoints of older versions do not have this key.
`encoder` is the content of a checkpoint of kind "encoder" (`model`, `state_dict`), or None if the encoder that made the
features was not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, cat, nn

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.migrate import VERSION
from bassl_fast.checkpoints.model import plain_views
from bassl_fast.checkpoints.weights import fill
from bassl_fast.config.described import describe, make
from bassl_fast.heads import ContextualRelationNetwork, similarity, speech
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError


class SceneBoundary(nn.Module):
    """Contextual relation network and a linear layer: is the centre shot the last of its scene?

    Args:
        crn: the network; None for a linear probe, which sees only the centre shot.
        dim: size D of a shot feature; 0 for the similarity head alone.
        statistics: number F of statistics of the similarity of shots, and of speech, that the linear layer sees too;
            see `names_of_statistics`.
    """

    def __init__(self, crn: ContextualRelationNetwork | None, dim: int, statistics: int = 0) -> None:
        super().__init__()
        self.crn, self.dim, self.statistics = crn, dim, statistics
        self.head = nn.Linear((dim if crn is None else crn.hidden) + statistics, 2)

    @property
    def reads_speech(self) -> bool:
        """Whether it reads when somebody speaks."""
        return self.statistics == len(names_of_statistics(reads_speech=True))

    @property
    def shots(self) -> int:
        """Length T of the windows."""
        return 1 if self.crn is None else self.crn.shots

    def represent(self, windows: Tensor) -> Tensor:
        """What the linear layer sees of the features, `[B, hidden]` or `[B, D]`; it sees statistics as well, if any.

        Args:
            windows: features `[B, T, D]` of any dtype.
        """
        windows = windows.float()
        return windows[:, 0] if self.crn is None else self.crn.centre(windows)

    def forward(self, windows: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Logits `[B, 2]` from windows of features `[B, T, D]` and statistics `[B, F]`."""
        found = self.represent(windows)
        return self.head(found if statistics is None else cat([found, statistics], 1))


def names_of_statistics(reads_speech: bool) -> list[str]:
    """What a similarity head reads of a cut; `reads_speech`: with when somebody speaks."""
    return similarity.statistic_names() + (speech.statistic_names() if reads_speech else [])


def section_of(
    model: SceneBoundary, views: TestViews, encoder: dict[str, Any] | None, kinds: Sequence[str | None] = (None,)
) -> dict[str, Any]:
    """The section `model` of a checkpoint of `model`; `kinds`: of its feature folders, for the similarity head."""
    names = names_of_statistics(model.reads_speech)
    return {
        "version": VERSION,
        "kind": checkpoint.SCENES,
        "head": None if model.crn is None else describe(model.crn),
        "similarity": {"statistics": names, "kinds": list(kinds)} if model.statistics else None,
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
    of_statistics = section.get("similarity")
    if of_statistics is not None and not _is_current(of_statistics):
        raise CheckpointError(f"{path}: its similarity head is of another version; fine-tune again")

    def build() -> tuple[SceneBoundary]:
        try:
            head = None if section["head"] is None else make(section["head"], ContextualRelationNetwork)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return (SceneBoundary(head, section["dim"], len(of_statistics["statistics"]) if of_statistics else 0),)

    (model,) = fill(build, state["state_dict"], ("",), path)
    return model, state


def _is_current(section: Any) -> bool:
    known = [names_of_statistics(reads_speech) for reads_speech in (False, True)]
    if not isinstance(section, dict) or section.get("statistics") not in known:
        return False
    kinds = section.get("kinds")
    return isinstance(kinds, list) and bool(kinds) and all(isinstance(kind, str | None) for kind in kinds)
