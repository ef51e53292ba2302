"""Models from checkpoints: the recipe inside says what to build, the weights fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shard_tools.errors import CheckpointError

from . import checkpoint, config
from .encoders import Encoder
from .methods import Method


def build_pretrained(path: str | Path) -> tuple[Encoder, Method, dict[str, Any]]:
    """Encoder, method and recipe of a checkpoint of `bassl-fast pretrain`.

    Raises:
        CheckpointError: it cannot be read, its run was stopped early, or its weights do not fit its recipe.
    """
    from .pretrain import pretrain

    state = checkpoint.load(path, "pretrain")
    done, total = state["global_step"], state["total_steps"]
    if done < total:
        raise CheckpointError(
            f"{path}: stopped at step {done} of {total}; go on with the same command and --resume true"
        )
    recipe = {key: value for key, value in state["recipe"].items() if key != "verb"}
    parser = config.make_parser(pretrain)
    arguments = parser.instantiate(config.parse_dict(parser, recipe, str(path)))
    encoder = arguments.encoder()
    method = arguments.method(encoder.dim)
    checkpoint.load_weights(encoder, state["state_dict"], "encoder.", path)
    checkpoint.load_weights(method, state["state_dict"], "method.", path)
    return encoder, method, recipe
