"""Models from checkpoints: the recipe inside says what to build, the weights fill it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bassl_fast import config
from bassl_fast.encoders import Encoder
from bassl_fast.methods import Method
from pipelines.views import TestViews, TrainViews
from shard_tools.errors import CheckpointError

from . import checkpoint


def build_pretrained(path: str | Path) -> tuple[Encoder, Method | None, dict[str, Any]]:
    """Encoder, method and recipe of a checkpoint of `bassl-fast pretrain` or `import-checkpoint`.

    The method is None for weights that are an encoder and no more.

    Raises:
        CheckpointError: it cannot be read, its run was stopped early, or its weights do not fit its recipe.
    """
    state = checkpoint.load(path, "pretrain")
    done, total = state.get("global_step"), state.get("total_steps")
    if not (isinstance(done, int) and isinstance(total, int)):
        raise CheckpointError(f"{path}: does not say at which step of how many it is; copy it again")
    if done < total:
        raise CheckpointError(f"{path}: stopped at step {done} of {total}; go on with the same command and --resume")
    return from_state(state, path)


def from_state(state: dict[str, Any], path: str | Path) -> tuple[Encoder, Method | None, dict[str, Any]]:
    """As `build_pretrained`, from the checkpoint's content; `path` stands in errors."""
    make = partial(build, state["recipe"], path)
    encoder, method = checkpoint.fill(make, state["state_dict"], ("encoder.", "method."), path)
    return encoder, method, {key: value for key, value in state["recipe"].items() if key != "verb"}


def build(recipe: dict[str, Any], path: str | Path) -> tuple[Encoder, Method | None]:
    """New encoder and, where the recipe has one, method; `path` stands in errors."""
    from bassl_fast.training.pretrain import pretrain

    _check_classes(recipe, path)
    parser = config.make_parser(pretrain if "method" in recipe else _encoder_alone)
    given = {key: value for key, value in recipe.items() if key != "verb"}
    arguments = parser.instantiate(config.parse_dict(parser, given, str(path)))
    encoder = arguments.encoder()
    if "method" not in recipe:
        return encoder, None
    method = arguments.method(encoder.dim)
    method.attach(encoder)
    return encoder, method


def test_views(encoder: Encoder, method: Method | None) -> TestViews:
    """The test view that goes with the views a model was trained on; of imported weights, with those published."""
    return (TrainViews(mean=encoder.mean, std=encoder.std) if method is None else method.views).at_test()


def encoder_state(path: str | Path) -> dict[str, Any]:
    """What another checkpoint needs to carry the encoder of the one at `path`: `recipe` and `state_dict`, from which
    `from_state` builds it.

    Raises:
        CheckpointError: it cannot be read.
    """
    state = checkpoint.load(path, "pretrain")
    weights = {name: value for name, value in state["state_dict"].items() if name.startswith("encoder.")}
    return {"recipe": encoder_recipe(state["recipe"]["encoder"]), "state_dict": weights}


def encoder_recipe(encoder: dict[str, Any]) -> dict[str, Any]:
    """Recipe of a checkpoint that holds an encoder (`class_path`, `init_args`) and no method."""
    parser = config.make_parser(_encoder_alone)
    return {"verb": "pretrain", **config.as_dict(parser, config.parse_dict(parser, {"encoder": encoder}, "encoder"))}


def _encoder_alone(encoder: Callable[[], Encoder]) -> None:
    """Its signature is the schema of such a recipe.

    Args:
        encoder: class and arguments of the shot encoder.
    """


def _check_classes(recipe: Any, path: str | Path) -> None:
    """A file that comes from elsewhere must not make us import what nobody here asked for."""
    if not isinstance(recipe, dict):
        return
    if "class_path" in recipe:
        module = str(recipe["class_path"]).rpartition(".")[0]
        if module.split(".")[0] != "bassl_fast" and module not in sys.modules:
            raise CheckpointError(f"{path}: is of class {recipe['class_path']}; import {module} first if you trust it")
    for value in recipe.values():
        _check_classes(value, path)
