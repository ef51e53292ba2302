"""The reference implementation's names of weights and methods, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# `LOSS.sampling_method.name` of the reference's config.json -> our class.
METHODS = {
    "instance": "bassl_fast.methods.Instance",
    "temporal": "bassl_fast.methods.Temporal",
    "shotcol": "bassl_fast.methods.ShotCoL",
    "bassl": "bassl_fast.methods.BaSSL",
    "bassl+shotcol": "bassl_fast.methods.BaSSLShotCoL",
}

# (reference, ours); a star matches the same text on both sides. The first matching pair counts.
_NAMES = [
    ("shot_encoder.*", "encoder.*"),
    ("loss.head_nce.model.*", "method.head_nce.*"),
    ("loss.head_msm.predictions.transform.dense.*", "method.head_msm.0.*"),
    ("loss.head_msm.predictions.transform.LayerNorm.*", "method.head_msm.2.*"),
    ("loss.head_msm.predictions.decoder.*", "method.head_msm.3.*"),
    ("loss.head_pp.*", "method.head_pp.*"),
    ("loss.head_cgm.*", "method.head_cgm.*"),
    ("crn.shot_embedding.shot_embedding.*", "method.crn.project.*"),
    ("crn.shot_embedding.position_embedding.*", "method.crn.position.*"),
    ("crn.shot_embedding.mask_embedding.*", "method.crn.mask_embedding.*"),
    ("crn.shot_embedding.LayerNorm.*", "method.crn.norm.*"),
    ("crn.encoder.layer.*.attention.self.query.*", "method.crn.layers.*.query.*"),
    ("crn.encoder.layer.*.attention.self.key.*", "method.crn.layers.*.key.*"),
    ("crn.encoder.layer.*.attention.self.value.*", "method.crn.layers.*.value.*"),
    ("crn.encoder.layer.*.attention.output.dense.*", "method.crn.layers.*.attention_out.*"),
    ("crn.encoder.layer.*.attention.output.LayerNorm.*", "method.crn.layers.*.attention_norm.*"),
    ("crn.encoder.layer.*.intermediate.dense.*", "method.crn.layers.*.up.*"),
    ("crn.encoder.layer.*.output.dense.*", "method.crn.layers.*.down.*"),
    ("crn.encoder.layer.*.output.LayerNorm.*", "method.crn.layers.*.output_norm.*"),
]
_MASK, _POSITIONS, _DECODER_BIAS = (
    "crn.attention_mask",
    "crn.shot_embedding.pos_ids",
    "loss.head_msm.predictions.bias",
)


def rename(key: str) -> str | None:
    """Our name of the reference's parameter `key`; None if it is not needed.

    Raises:
        KeyError: not a name of the reference.
    """
    # Constant buffers, and a second name for `decoder.bias`.
    return None if key in (_MASK, _POSITIONS, _DECODER_BIAS) else translate(key, _NAMES)


def in_reference_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a pretraining checkpoint under the reference's names, with the buffers that only the reference stores.

    Raises:
        KeyError: a weight that the reference does not have.
    """
    theirs = {translate(name, [(ours, reference) for reference, ours in _NAMES]): w for name, w in state.items()}
    if (positions := theirs.get("crn.shot_embedding.position_embedding.weight")) is not None:
        theirs[_MASK] = torch.zeros(1, 1, 1, len(positions))  # added to attention scores: nothing is masked
        theirs[_POSITIONS] = torch.arange(len(positions))
    if (bias := theirs.get("loss.head_msm.predictions.decoder.bias")) is not None:
        theirs[_DECODER_BIAS] = bias.clone()
    return theirs


def translate(key: str, names: list[tuple[str, str]]) -> str:
    """`key` translated by the first matching pair of `names`; a star matches the same text on both sides.

    Raises:
        KeyError: no pair matches.
    """
    for source, target in names:
        if match := re.fullmatch(re.escape(source).replace(r"\*", "(.+)"), key):
            parts = iter(match.groups())
            return re.sub(r"\*", lambda _: next(parts), target)  # noqa: B023 (used at once)
    raise KeyError(key)
