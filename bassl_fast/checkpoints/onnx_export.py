"""Export a network as ONNX, for programs without torch.

    an encoder                  images [N, 3, S, S] float32, normalised     ->  features [N, D]
    an encoder of clips         images [N, 3, T, S, S]                      ->  features [N, D]
    a scene boundary model      features [N, T, D] float32, windows         ->  probability [N] that the centre shot is
                                                                                the last of its scene

N, and T of clips, are free. The metadata hold `model`, the description of the model, and `views`: size, mean and
deviation of its images.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bassl_fast.config.described import make
from bassl_fast.encoders import ClipEncoder
from bassl_fast.heads import ContextualRelationNetwork
from bassl_fast.runtime.run_folder import RunFolder, folder_of
from shard_tools.errors import CheckpointError, ConfigError, MissingDependency, masked
from shard_tools.storage.atomic import whole_file
from shard_tools.storage.untrusted import one_line

from . import checkpoint
from .model import from_state
from .weights import fill

SUFFIX = ".onnx"


def export_onnx(source: str, out: str) -> str:
    """See `exchange.export_checkpoint`."""
    try:
        import onnxscript  # noqa: F401  # for torch, which imports it late
    except ModuleNotFoundError:
        raise MissingDependency("--format onnx: needs onnx and onnxscript; pip install 'bassl-fast[onnx]'") from None
    if not out.endswith(SUFFIX):
        raise CheckpointError(f"{out}: a network is exported as ONNX; name the file {Path(out).stem}{SUFFIX}")
    state = checkpoint.load(source, checkpoint.ENCODER, checkpoint.SCENES)
    is_encoder = state["model"]["kind"] == checkpoint.ENCODER
    network, example = _encoder(state, source) if is_encoder else _boundaries(state, source)
    names = ("images", "features") if is_encoder else ("features", "probability")
    program = _exported(network, example, names, source)
    section = {key: value for key, value in state["model"].items() if key != "encoder" or is_encoder}
    program.model.metadata_props.update({"model": json.dumps(section), "views": json.dumps(section["views"])})
    folder = RunFolder(folder_of(out))
    target = folder.path / Path(out).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as tmp:
        program.save(str(tmp), external_data=False)
    folder.publish()
    print(f"network: {masked(out)} ({names[0]} {_shape(example)} -> {names[1]})", flush=True)
    return out


class SceneProbability(nn.Module):
    """What a scene boundary model with features alone computes.

    Args:
        crn: None for a linear probe, which sees only the centre shot.
        dim: size D of a shot feature.
    """

    def __init__(self, crn: ContextualRelationNetwork | None, dim: int) -> None:
        super().__init__()
        self.crn = crn
        self.head = nn.Linear(dim if crn is None else crn.hidden, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities `[N]` of windows `[N, T, D]`."""
        shot = features[:, 0] if self.crn is None else self.crn.centre(features)
        return self.head(shot).softmax(-1)[:, 1]


def _encoder(state: dict[str, Any], source: str) -> tuple[nn.Module, Tensor]:
    """The encoder of a checkpoint, and two of its inputs."""
    model = from_state(state, source)
    frames = [4] if isinstance(model.encoder, ClipEncoder) else []
    return model.encoder, torch.zeros(2, 3, *frames, model.views.size, model.views.size)


def _boundaries(state: dict[str, Any], source: str) -> tuple[nn.Module, Tensor]:
    """The head of a checkpoint of `finetune`, and two of its inputs.

    Raises:
        CheckpointError: a head that compares all shots of a film, or weights that do not fit.
    """
    section = state["model"]
    if section.get("similarity") is not None:
        raise CheckpointError(
            f"{source}: its head compares all shots of a film, which the exported network cannot do; "
            "fine-tune with --head crn"
        )

    def build() -> tuple[SceneProbability]:
        try:
            head = None if section["head"] is None else make(section["head"], ContextualRelationNetwork)
        except ConfigError as error:
            raise CheckpointError(f"{source}: {error}") from None
        return (SceneProbability(head, section["dim"]),)

    (network,) = fill(build, state["state_dict"], ("",), source)
    return network, torch.zeros(2, 1 if network.crn is None else network.crn.shots, section["dim"])


def _exported(network: nn.Module, example: Tensor, names: tuple[str, str], source: str) -> torch.onnx.ONNXProgram:
    """Raises: CheckpointError if torch cannot express the network in ONNX."""
    free = {0: torch.export.Dim("batch", min=1)}
    if example.ndim == 5:
        free[2] = torch.export.Dim("frames", min=1)
    try:
        with _quiet(), torch.no_grad():
            traced = torch.export.export(network.eval(), (example,), dynamic_shapes=(free,), strict=False)
            program = torch.onnx.export(
                traced, input_names=[names[0]], output_names=[names[1]], dynamo=True, verbose=False
            )
    except Exception as error:  # whatever torch's exporter raises
        reason = one_line(error).split("  ")[0]
        raise CheckpointError(
            f"{source}: {type(network).__name__} cannot be exported as ONNX ({reason[:200]}); export its weights as "
            "safetensors"
        ) from error
    assert program is not None, "it is exported by dynamo"
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _shape(example: Tensor) -> str:
    frames = ["T"] if example.ndim == 5 else []
    return f"[{', '.join(['N', *map(str, example.shape[1:2]), *frames, *map(str, example.shape[2 + len(frames) :])])}]"
