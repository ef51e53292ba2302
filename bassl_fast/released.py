"""Released checkpoints of SCRL, SCE, X3D and VoV3D: names of their tensors, and ours for them.

Pairs (released, ours); a star is the same on both sides, see `reference.translate`. Ours are those of an encoder
`encoder` and a method `method`, or of a `VideoClassifier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from shard_tools.errors import CheckpointError

from .reference import translate

Names = list[tuple[str, str]]

# `model_state` of a SlowFast-style checkpoint -> a `VideoClassifier` of X3D or VoV3D.
SLOWFAST: Names = [
    ("s1.pathway0_stem.*", "encoder.stem.*"),
    ("s*.pathway0_res*.branch1.*", "encoder.stage*.*.shortcut.*"),
    ("s*.pathway0_res*.branch1_bn.*", "encoder.stage*.*.shortcut_bn.*"),
    ("s*.pathway0_res*.branch2.*", "encoder.stage*.*.*"),
    ("head.projection.*", "classifier.*"),
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
# `state_dict` of SCE on pictures -> `ResNet` and `SCE`.
SCE_PICTURES: Names = [*_SCE_HEADS, ("trunk.*", "encoder.*"), ("momentum_trunk.*", "method.target_encoder.*")]

_SCRL_ENCODER = [("0", "conv1"), ("1", "bn1"), *((str(3 + stage), f"layer{stage}") for stage in range(1, 5))]
# The dicts `<name>_state_dict` of SCRL, as `<name>.<key>` -> `ResNet` and `SCRL` or `BYOL`.
SCRL: Names = [
    *((f"online_network.encoder.{theirs}.*", f"encoder.{ours}.*") for theirs, ours in _SCRL_ENCODER),
    *((f"target_network.encoder.{theirs}.*", f"method.target_encoder.{ours}.*") for theirs, ours in _SCRL_ENCODER),
    ("online_network.projector.net.*", "method.projector.*"),
    ("target_network.projector.net.*", "method.target_projector.*"),
    ("predictor.net.*", "method.predictor.*"),
]


def ours_of(keys: Iterable[str], names: Names) -> dict[str, str]:
    """Our name -> released name, of every one of the released `keys`.

    Raises:
        KeyError: a key that `names` does not know.
    """
    return {translate(key, names): key for key in keys}


def load_released(network: nn.Module, state: Mapping[str, Tensor], names: Names, path: str) -> list[str]:
    """Fill `network` with what `state` has for it; returns the names of ours that it has nothing for, which stay.

    Tensors that `names` does not know, such as those of a loader or an optimiser, are passed over.

    Args:
        network: with the names of ours in `names`, or some of them.
        state: released tensors by name.
        names: one of the tables above.
        path: where they come from, for errors.

    Raises:
        CheckpointError: nothing fits, or a tensor is of another shape.
    """
    own, found = network.state_dict(), {}
    for key, value in state.items():
        try:
            name = translate(key, names)
        except KeyError:
            continue
        if name in own:
            if own[name].shape != value.shape:
                raise CheckpointError(
                    f"{path}: {key} is {list(value.shape)}, ours {list(own[name].shape)}; build the network it is of"
                )
            found[name] = value
    if not found:
        raise CheckpointError(f"{path}: holds no tensor of this network, but {', '.join(list(state)[:3]) or 'nothing'}")
    network.load_state_dict(found, strict=False)
    return [name for name in own if name not in found]
