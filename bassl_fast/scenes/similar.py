"""Scenes from how alike shots are, with the weights that come with the package: nothing to train, nothing to download.

Kinds of features: hue and light of each key-frame and, if they are given, those of an encoder of images and those of an
encoder of words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bassl_fast.config.choices import Detail
from bassl_fast.segmentation.similarity import SHIPPED, SimilarityModel
from shard_tools.errors import masked

from .shot_features import kinds_of, shot_features

if TYPE_CHECKING:
    from bassl_fast.encoders.text import TextEncoder

    from .network import ShotEncoder

_GREY = 0.99  # share of a black-and-white image whose hue is 0


class SimilarShots:
    """See `SceneDetector.by_similarity`."""

    def __init__(
        self, encoder: str | Path | None, detail: Detail, batch: int, threads: int, text_encoder: str | None = None
    ) -> None:
        self._model = SimilarityModel.load()
        self._encoder: ShotEncoder | None = None
        self.made_by: dict[str, Any] = {"similarity_sha256": hashlib.sha256(SHIPPED.read_bytes()).hexdigest()}
        self.method = "similarity of colours, and how long shots last"
        if encoder is not None:
            from bassl_fast.checkpoints.checkpoint import sha256  # these need torch and DALI, and colours do not
            from bassl_fast.checkpoints.model import load_model

            from .network import ShotEncoder

            pretrained = load_model(encoder)
            self._encoder = ShotEncoder(pretrained.encoder, pretrained.views, batch, threads)
            self.made_by["encoder_sha256"] = sha256(encoder)
            self.method = f"similarity of colours and of features of {masked(str(encoder))}, and how long shots last"
        self._text_encoder: TextEncoder | None = None
        self.words_by = text_encoder and masked(text_encoder)
        if text_encoder is not None:
            from bassl_fast.checkpoints import hub
            from bassl_fast.runtime import hardware

            self._text_encoder = hub.text_encoder(text_encoder).to(hardware.device())
        self.threshold: float | None = self._model.thresholds[detail]
        self.threshold_from = f"detail {detail}"

    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        """`[DIM]` of colours, see `segmentation.colours`, and after them `[D]` of the encoder."""
        encode = None if self._encoder is None else self._encoder.features
        return shot_features(shots, encode, colours=True)

    def probability(self, features: np.ndarray, seconds: np.ndarray, words: Sequence[str] | None = None) -> np.ndarray:
        kinds = kinds_of(features, colours=True)
        if self._encoder is None and (kinds[0][..., 0] > _GREY).all():
            print("note: the film has no colours, so its shots are compared by light alone", flush=True)
        said = None if self._text_encoder is None or words is None else self._text_encoder.of_texts(words)
        return self._model.probability(kinds, seconds, words=said)
