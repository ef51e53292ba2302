"""Models in checkpoints: the section `model` says what to build, the weights fill it.

    kind "encoder"   {"version", "kind", "encoder": {"class_path", "init_args"}, "method": the same or None, "views"}
                     weights: `encoder.*`, `method.*`

`views` are the test views for the encoder. For kind "scenes" see `segmentation.model`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bassl_fast.config.described import Description, describe, make
from bassl_fast.encoders import Encoder
from bassl_fast.methods import Method
from pipelines.views import TestViews
from shard_tools.errors import CheckpointError, ConfigError

from . import checkpoint
from .migrate import VERSION
from .weights import fill, without_memory


@dataclass(frozen=True)
class Pretrained:
    """What a checkpoint of kind "encoder" holds.

    Attributes:
        encoder: with its weights, on the CPU.
        method: the method that trained it; None if only the encoder is known, as for ImageNet weights.
        views: the test views for it.
    """

    encoder: Encoder
    method: Method | None
    views: TestViews


def load_model(path: str | Path) -> Pretrained:
    """The model in a checkpoint of `bassl-fast pretrain`, `train` or `import-checkpoint`.

    Raises:
        CheckpointError: it cannot be read, its run was stopped early, or its weights do not fit.
    """
    state = checkpoint.load(path, checkpoint.ENCODER)
    finished = 0 if "imported" in state else None  # of imported weights, the step is unknown
    done, total = state.get("global_step", finished), state.get("total_steps", finished)
    if not (isinstance(done, int) and isinstance(total, int)):
        raise CheckpointError(f"{path}: lacks its step or the number of steps; copy it again")
    if done < total:
        raise CheckpointError(
            f"{path}: stopped at step {done} of {total}; finish it with the same command and --resume"
        )
    return from_state(state, path)


def from_state(state: dict[str, Any], path: str | Path) -> Pretrained:
    """`load_model` from the content of a checkpoint; `path` is for errors."""
    section, weights = (state.get(key) if isinstance(state, dict) else None for key in ("model", "state_dict"))
    if not (isinstance(section, dict) and isinstance(section.get("encoder"), dict) and isinstance(weights, dict)):
        raise CheckpointError(f"{path}: its section `model` names no encoder; copy it again")

    def build() -> tuple[Encoder, Method | None]:
        return new_model(section["encoder"], section.get("method"), path)

    encoder, method = fill(build, weights, ("encoder.", "method."), path)
    try:
        views = test_views(encoder, method) if section.get("views") is None else TestViews(**section["views"])
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: damaged views in its section `model` ({error}); copy it again") from None
    return Pretrained(encoder, method, views)


def new_model(encoder: Description, method: Description | None, path: str | Path) -> tuple[Encoder, Method | None]:
    """A new encoder and method from their descriptions; `path` is for errors."""
    try:
        made: Encoder = make(encoder, Encoder)  # type: ignore[type-abstract]
        if method is None:
            return made, None
        task: Method = make(method, Method, made.dim)  # type: ignore[type-abstract]
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from None
    task.attach(made)
    return made, task


def section_of(encoder: Encoder, method: Method | None) -> dict[str, Any]:
    """The section `model` of a checkpoint of `encoder` and `method`."""
    return {
        "version": VERSION,
        "kind": checkpoint.ENCODER,
        "encoder": describe(encoder),
        "method": None if method is None else describe(method, skip=1),
        "views": plain_views(test_views(encoder, method)),
    }


def full_section(encoder: Description, method: Description | None, path: str | Path) -> dict[str, Any]:
    """`section_of` from descriptions that may leave out arguments; allocates no memory."""
    with without_memory():
        return section_of(*new_model(encoder, method, path))


def test_views(encoder: Encoder, method: Method | None) -> TestViews:
    """The test views that match the training views; for imported weights, those published with them."""
    return encoder.test_views() if method is None else method.views.at_test()


def plain_views(views: TestViews) -> dict[str, Any]:
    """Test views as plain values."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(views).items()}


def encoder_alone(path: str | Path) -> dict[str, Any]:
    """`model` and `state_dict` of the encoder in the checkpoint at `path`, to be kept in another checkpoint.

    `from_state` builds the encoder from them.

    Raises:
        CheckpointError: it cannot be read.
    """
    state = checkpoint.load(path, checkpoint.ENCODER)
    found = from_state(state, path)
    weights = {name: value for name, value in state["state_dict"].items() if name.startswith("encoder.")}
    section = section_of(found.encoder, None) | {"views": plain_views(found.views)}
    return {"model": section, "state_dict": weights}
