"""The model that finds scene boundaries, and how a checkpoint of kind "scenes" holds it.

    {"version", "kind", "head": {"class_path", "init_args"} or None, "similarity": {"statistics", "kinds"} or None,
     "film": like head, "dim", "views", "encoder"}

`similarity` has the names of the statistics, and for each feature folder the sha256 of the checkpoint that made the
features (None if it is not known), or "colours". `film` is the head that reads the statistics, if it is a network.
Checkpoints of older versions do not have these keys.
`encoder` is the content of a checkpoint of kind "encoder" (`model`, `state_dict`), or None if the encoder that made the
features was not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, cat, nn

from bassl_fast.checkpoints import checkpoint
from bassl_fast.checkpoints.migrate import VERSION
from bassl_fast.checkpoints.model import plain_views
from bassl_fast.checkpoints.weights import fill
from bassl_fast.config.described import describe, make
from bassl_fast.heads import ContextualRelationNetwork, FilmHead
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError

from .statistics import Reads, names


class SceneBoundary(nn.Module):
    """Contextual relation network and a linear layer: is the centre shot the last of its scene?

    Args:
        crn: the network; None for a linear probe, which sees only the centre shot.
        dim: size D of a shot feature; 0 for the similarity head alone and the film head.
        reads: which statistics of a cut the linear layer sees too, see `statistics`; None for none.
        film: reads these statistics in place of the linear layer, which sees only its output.
    """

    def __init__(
        self,
        crn: ContextualRelationNetwork | None,
        dim: int,
        reads: Reads | None = None,
        film: FilmHead | None = None,
    ) -> None:
        super().__init__()
        self.crn, self.dim, self.reads, self.film = crn, dim, reads, film
        self.statistics = 0 if reads is None else len(names(reads))
        self.head = nn.Linear(film.hidden if film else (dim if crn is None else crn.hidden) + self.statistics, 2)

    @property
    def reads_speech(self) -> bool:
        """Whether it reads when somebody speaks."""
        return self.reads in ("heard", "film")

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
        if self.film is not None:
            return self.head(self.film(statistics))
        found = self.represent(windows)
        return self.head(found if statistics is None else cat([found, statistics], 1))


def section_of(
    model: SceneBoundary, views: TestViews, encoder: dict[str, Any] | None, kinds: Sequence[str | None] = (None,)
) -> dict[str, Any]:
    """The section `model` of a checkpoint of `model`; `kinds`: of its feature folders, for the similarity head."""
    return {
        "version": VERSION,
        "kind": checkpoint.SCENES,
        "head": None if model.crn is None else describe(model.crn),
        "similarity": {"statistics": names(model.reads), "kinds": list(kinds)} if model.reads else None,
        "film": None if model.film is None else describe(model.film),
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
    reads = None if of_statistics is None else _reads(of_statistics)
    if (of_statistics is not None and reads is None) or (section.get("film") is None) == (reads == "film"):
        raise CheckpointError(f"{path}: its similarity head is of another version of bassl-fast; fine-tune again")

    def build() -> tuple[SceneBoundary]:
        try:
            head = None if section["head"] is None else make(section["head"], ContextualRelationNetwork)
            film = None if section.get("film") is None else make(section["film"], FilmHead)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None
        if film is not None and len(film.mean) != len(names("film")):
            raise CheckpointError(
                f"{path}: its head reads {len(film.mean)} statistics, not {len(names('film'))}; fine-tune again"
            )
        return (SceneBoundary(head, section["dim"], reads, film),)

    (model,) = fill(build, state["state_dict"], ("",), path)
    return model, state


def _reads(section: Any) -> Reads | None:
    """Which statistics a checkpoint's model reads; None if they are of another version."""
    kinds = section.get("kinds") if isinstance(section, dict) else None
    if not (isinstance(kinds, list) and kinds and all(isinstance(kind, str | None) for kind in kinds)):
        return None
    return next((reads for reads in get_args(Reads) if section.get("statistics") == names(reads)), None)
