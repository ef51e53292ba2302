"""Tensor names in released checkpoints of SCRL, SCE, X3D and VoV3D, and ours.

Pairs (released, ours); a star matches the same text on both sides, see `reference.translate`. Our names start with
`encoder.` or `method.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from .reference import translate

Names = list[tuple[str, str]]

# `model_state` of a SlowFast-style checkpoint -> `X3D` or `VoV3D`, and `Supervised`.
SLOWFAST: Names = [
    ("s1.pathway0_stem.*", "encoder.stem.*"),
    ("s*.pathway0_res*.branch1.*", "encoder.stage*.*.shortcut.*"),
    ("s*.pathway0_res*.branch1_bn.*", "encoder.stage*.*.shortcut_bn.*"),
    ("s*.pathway0_res*.branch2.*", "encoder.stage*.*.*"),
    ("head.projection.*", "method.classifier.*"),
    ("head.*", "encoder.head.*"),
]

_R3D = [
    ("blocks.0.*", "*"),
    ("blocks.*.res_blocks.*.branch1_*", "stage*.*.shortcut_*"),
    ("blocks.*.res_blocks.*.branch2.*", "stage*.*.*"),
]
_SCE_HEADS: Names = [
    ("projector.layers.*", "method.projector.*"),
    ("predictor.layers.*", "method.predictor.*"),
    ("momentum_projector.layers.*", "method.target_projector.*"),
    ("queue", "method.queue.keys"),
    ("queue_ptr", "method.queue.at"),
    ("classifier.layers.0.*", "method.classifier.*"),
    ("classifier.proj.*", "method.classifier.*"),
]
# `state_dict` of SCE on videos -> `ResNet3D` and `SCE`; downloaded encoders have no `trunk.model.`.
SCE_VIDEOS: Names = _SCE_HEADS + [
    (prefix + theirs, ours_prefix + ours)
    for prefix, ours_prefix in (
        ("trunk.model.", "encoder."),
        ("momentum_trunk.model.", "method.target_encoder."),
        ("", "encoder."),
    )
    for theirs, ours in _R3D
]
# `state_dict` of SCE on images -> `ResNet` and `SCE`.
SCE_IMAGES: Names = [*_SCE_HEADS, ("trunk.*", "encoder.*"), ("momentum_trunk.*", "method.target_encoder.*")]

_SCRL_ENCODER = [("0", "conv1"), ("1", "bn1"), *((str(3 + stage), f"layer{stage}") for stage in range(1, 5))]
# The dicts `<name>_state_dict` of SCRL, as `<name>.<key>` -> `ResNet` and `SCRL` or `BYOL`.
SCRL: Names = [
    *((f"online_network.encoder.{theirs}.*", f"encoder.{ours}.*") for theirs, ours in _SCRL_ENCODER),
    *((f"target_network.encoder.{theirs}.*", f"method.target_encoder.{ours}.*") for theirs, ours in _SCRL_ENCODER),
    ("online_network.projector.net.*", "method.projector.*"),
    ("target_network.projector.net.*", "method.target_projector.*"),
    ("predictor.net.*", "method.predictor.*"),
    ("evaluator.linear.*", "method.classifier.*"),
]


def renamed(raw: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Tensors of a released checkpoint under our names; None if it is of none of these systems.

    Tensors that are in no table, such as the state of an optimiser, are left out.

    Args:
        raw: content of the file.
    """
    if isinstance(raw.get("online_network_state_dict"), Mapping):
        parts = ("online_network", "target_network", "predictor", "evaluator")
        found = {part: raw.get(f"{part}_state_dict") for part in parts}
        weights: Mapping[str, Any] = {
            f"{part}.{key}": w for part, of in found.items() if isinstance(of, Mapping) for key, w in of.items()
        }
    else:
        weights = next((raw[key] for key in ("state_dict", "model_state") if isinstance(raw.get(key), Mapping)), raw)
    weights = {key: value for key, value in weights.items() if isinstance(key, str) and isinstance(value, Tensor)}
    names = next((names for mark, names in _MARKS if any(key.startswith(mark) for key in weights)), None)
    if names is None:
        return None
    state = {}
    for key, value in weights.items():
        with suppress(KeyError):
            state[translate(key, names)] = value
    return state


# (prefix, table): the first prefix that any key has selects the table for all keys.
_MARKS = (
    ("online_network.encoder.", SCRL),
    ("s1.pathway0_stem.", SLOWFAST),
    ("trunk.model.blocks.", SCE_VIDEOS),
    ("blocks.0.", SCE_VIDEOS),
    ("trunk.", SCE_IMAGES),
)


def method_of(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Class and sizes of the method whose heads are in `state` (see `renamed`); None if it has no heads.

    SCRL and BYOL have the same heads; both are taken for SCRL.
    """
    sizes = {"hidden": ("method.projector.0.weight", 0), "classes": ("method.classifier.weight", 0)}
    if "method.projector.6.weight" in state or "method.queue.keys" in state:
        kind = "SCE"
        sizes |= {"outputs": ("method.projector.6.weight", 0), "queue": ("method.queue.keys", 1)}
    elif "method.projector.3.weight" in state:
        kind = "SCRL"
        sizes |= {"outputs": ("method.projector.3.weight", 0)}
    elif "method.classifier.weight" in state:
        kind = "Supervised"
    else:
        return None
    found = {argument: state[name].shape[side] for argument, (name, side) in sizes.items() if name in state}
    return {"class_path": f"bassl_fast.methods.{kind}", "init_args": found}
