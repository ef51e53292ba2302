"""Names of tensors in the released checkpoints of SCRL, SCE, X3D and VoV3D, and ours for them.

Pairs (released, ours); a star is the same on both sides, see `reference.translate`.
"""

from __future__ import annotations

from collections.abc import Iterable

from .reference import translate

# `model_state` of a SlowFast-style checkpoint -> a `VideoClassifier` of X3D or VoV3D.
SLOWFAST = [
    ("s1.pathway0_stem.*", "encoder.stem.*"),
    ("s*.pathway0_res*.branch1.*", "encoder.stage*.*.shortcut.*"),
    ("s*.pathway0_res*.branch1_bn.*", "encoder.stage*.*.shortcut_bn.*"),
    ("s*.pathway0_res*.branch2.*", "encoder.stage*.*.*"),
    ("head.projection.*", "classifier.*"),
    ("head.*", "encoder.head.*"),
]

# The trunk of an SCE checkpoint of videos -> `ResNet3D`. Downloaded encoders lack `trunk.model.`.
SCE_VIDEO_TRUNK = [
    ("trunk.model.blocks.0.*", "*"),
    ("trunk.model.blocks.*.res_blocks.*.branch1_*", "stage*.*.shortcut_*"),
    ("trunk.model.blocks.*.res_blocks.*.branch2.*", "stage*.*.*"),
]

# `online_network_state_dict` of an SCRL checkpoint -> `ResNet` and the projector.
SCRL_NETWORK = [
    ("encoder.0.*", "encoder.conv1.*"),
    ("encoder.1.*", "encoder.bn1.*"),
    ("encoder.4.*", "encoder.layer1.*"),
    ("encoder.5.*", "encoder.layer2.*"),
    ("encoder.6.*", "encoder.layer3.*"),
    ("encoder.7.*", "encoder.layer4.*"),
    ("projector.net.*", "projector.*"),
]


def ours_of(keys: Iterable[str], names: list[tuple[str, str]]) -> dict[str, str]:
    """Our name -> released name, of every one of the released `keys`.

    Raises:
        KeyError: a key that `names` does not know.
    """
    return {translate(key, names): key for key in keys}
