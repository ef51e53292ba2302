"""Migration of checkpoints of earlier versions, when they are read.

    version 1    the model was built from `recipe`, the parsed command line
    version 2    `model` says what to build; `resume` which options a resumed run must share; `recipe` is only a record

A new version adds one function here, and a checkpoint of the previous version to the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shard_tools.errors import CheckpointError

VERSION = 2
_CRN = "bassl_fast.heads.ContextualRelationNetwork"


def migrated(state: Any, path: str | Path) -> dict[str, Any] | None:
    """The content of a checkpoint in the current version; None if it is not a checkpoint of bassl-fast.

    Raises:
        CheckpointError: the version is newer than this program, or a section is damaged.
    """
    if not isinstance(state, dict):
        return None
    if "model" not in state:
        recipe = state.get("recipe")
        if not isinstance(recipe, dict) or "verb" not in recipe:
            return None
        try:
            return _from_1(state, recipe, path)
        except (KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{path}: its recipe is damaged; copy it again") from None
    model = state["model"]
    if not (isinstance(model, dict) and ("version" in model or "kind" in model)):  # weights under this name
        return None
    version = model.get("version")
    if not isinstance(version, int) or version < VERSION:
        raise CheckpointError(f"{path}: its section `model` is damaged; copy it again")
    if version > VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {version}, but this program reads up to {VERSION}; upgrade bassl-fast"
        )
    return state


def _from_1(state: dict[str, Any], recipe: dict[str, Any], path: str | Path) -> dict[str, Any]:
    if recipe["verb"] == "finetune":
        trained_on = {"features": recipe.get("data", {}).get("features"), "pretrained": recipe.get("pretrained")}
        return state | {"model": _scenes_from_1(state, path), "trained_on": trained_on}
    if recipe["verb"] != "pretrain":
        return state | {"model": {"version": VERSION, "kind": recipe["verb"]}}
    encoder, method = recipe["encoder"], recipe.get("method")
    model = {"version": VERSION, "kind": "encoder", "encoder": encoder, "method": method, "views": None}
    found = state | {"model": model}
    if method is not None and method["class_path"].endswith(".Supervised"):
        found["recipe"] = recipe | {"verb": "train"}  # version 1 recorded it as `pretrain`
    if "optimiser" in recipe:
        data, training = recipe["data"], recipe["training"]
        found["resume"] = {
            "data": {key: data[key] for key in ("split", "global_batch", "pool") if key in data},
            "training": {key: training[key] for key in ("epochs", "steps", "clip", "accumulate") if key in training},
            "optimiser": recipe["optimiser"],
            "seed": recipe["seed"],
        }
    return found


def _scenes_from_1(state: dict[str, Any], path: str | Path) -> dict[str, Any]:
    crn, encoder = state["crn"], state["encoder"]
    if crn is not None and crn.get("pooling", "center") != "center":
        raise CheckpointError(
            f"{path}: its network pools by {crn['pooling']!r}, which is no longer supported; fine-tune again"
        )
    shape = None if crn is None else {key: value for key, value in crn.items() if key != "pooling"}
    return {
        "version": VERSION,
        "kind": "scenes",
        "head": None if shape is None else {"class_path": _CRN, "init_args": shape},
        "dim": state["dim"],
        "views": state["views"],
        "encoder": None if encoder is None else _from_1(encoder, encoder["recipe"], path),
    }
