"""Names of the reference implementation's checkpoints, in ours."""

from __future__ import annotations

import re

# Applied in order to a reference key; the first that matches renames it.
_RENAMES = [
    (r"shot_encoder\.(.+)", r"encoder.\1"),
    (r"loss\.head_nce\.model\.(\d)\.(.+)", r"method.head_nce.\1.\2"),
    (r"loss\.head_msm\.predictions\.transform\.dense\.(.+)", r"method.head_msm.0.\1"),
    (r"loss\.head_msm\.predictions\.transform\.LayerNorm\.(.+)", r"method.head_msm.2.\1"),
    (r"loss\.head_msm\.predictions\.decoder\.(.+)", r"method.head_msm.3.\1"),
    (r"loss\.(head_pp|head_cgm)\.(.+)", r"method.\1.\2"),
    (r"crn\.shot_embedding\.shot_embedding\.(.+)", r"method.crn.project.\1"),
    (r"crn\.shot_embedding\.position_embedding\.(.+)", r"method.crn.position.\1"),
    (r"crn\.shot_embedding\.mask_embedding\.(.+)", r"method.crn.mask_embedding.\1"),
    (r"crn\.shot_embedding\.LayerNorm\.(.+)", r"method.crn.norm.\1"),
    (r"crn\.encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.(.+)", r"method.crn.layers.\1.\2.\3"),
    (r"crn\.encoder\.layer\.(\d+)\.attention\.output\.dense\.(.+)", r"method.crn.layers.\1.attention_out.\2"),
    (r"crn\.encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(.+)", r"method.crn.layers.\1.attention_norm.\2"),
    (r"crn\.encoder\.layer\.(\d+)\.intermediate\.dense\.(.+)", r"method.crn.layers.\1.up.\2"),
    (r"crn\.encoder\.layer\.(\d+)\.output\.dense\.(.+)", r"method.crn.layers.\1.down.\2"),
    (r"crn\.encoder\.layer\.(\d+)\.output\.LayerNorm\.(.+)", r"method.crn.layers.\1.output_norm.\2"),
]
# Constant buffers, and a second name of `decoder.bias`.
_UNUSED = {"crn.attention_mask", "crn.shot_embedding.pos_ids", "loss.head_msm.predictions.bias"}


def rename(key: str) -> str | None:
    """Our name of the reference parameter `key`; None for one that we do not need.

    Raises:
        KeyError: not a name of the reference.
    """
    if key in _UNUSED:
        return None
    for pattern, ours in _RENAMES:
        if match := re.fullmatch(pattern, key):
            return match.expand(ours)
    raise KeyError(key)
