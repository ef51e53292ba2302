"""Export the weights of a checkpoint as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch

from bassl_fast.runtime.run_folder import RunFolder, folder_of
from shard_tools.errors import CheckpointError, masked
from shard_tools.storage.atomic import whole_file

from . import checkpoint
from .reference import in_reference_names

SAFETENSORS = ".safetensors"


def export_weights(source: str, out: str, names: str) -> str:
    """See `exchange.export_checkpoint`."""
    folder, name = RunFolder(folder_of(out)), Path(out).name
    if not name.endswith(SAFETENSORS):
        raise CheckpointError(
            f"{out}: weights are exported as safetensors; name the file {Path(out).stem}{SAFETENSORS}"
        )
    state = checkpoint.load(source, checkpoint.ENCODER, checkpoint.SCENES)
    weights = state["state_dict"]
    if names == "reference":
        try:
            weights = in_reference_names(weights)
        except KeyError as error:
            raise CheckpointError(
                f"{source}: the reference has no name for {error.args[0]}; leave out --names"
            ) from None
    target = folder.path / name
    target.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt", "model": json.dumps(_described(state["model"])), "recipe": json.dumps(state["recipe"])}
    with whole_file(target) as tmp:
        safetensors.torch.save_file({key: value.contiguous() for key, value in weights.items()}, tmp, metadata)
    folder.publish()
    print(f"weights: {masked(str(out))} ({len(weights)} tensors)", flush=True)
    return out


def _described(section: dict[str, Any]) -> dict[str, Any]:
    """The section `model` without the weights of the encoder in it."""
    encoder = section.get("encoder")
    if section["kind"] == checkpoint.SCENES and encoder is not None:
        return section | {"encoder": encoder["model"]}
    return section
