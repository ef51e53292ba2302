"""A fine-tuned model on the shots of a film: test views, encoder and windows are those of `extract` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bassl_fast.checkpoints.checkpoint import sha256
from bassl_fast.checkpoints.model import from_state, load_model
from bassl_fast.encoders import Encoder
from bassl_fast.heads.similarity import alike
from bassl_fast.runtime import hardware
from bassl_fast.segmentation.features import COLOURS, Film
from bassl_fast.segmentation.model import load_finetuned
from bassl_fast.segmentation.statistics import statistics_of
from bassl_fast.segmentation.windows import Windows
from pipelines.jpeg_stream import view_jpegs
from pipelines.views import TestViews
from shard_tools.annotations.movienet import KEYFRAMES_PER_SHOT
from shard_tools.errors import CheckpointError, masked
from shard_tools.shards.format import SHOT

from .shot_features import kinds_of, shot_features


class ShotEncoder:
    """An encoder on the shots of a film.

    Args:
        encoder: takes key-frames.
        views: how key-frames are cropped and resized for it.
        batch: shots encoded at a time.
        threads: CPU threads that decode key-frames; 0 uses all cores.
    """

    def __init__(self, encoder: Encoder, views: TestViews, batch: int, threads: int) -> None:
        hardware.say_device()
        self.device = hardware.device()
        self._precision = hardware.precision("auto")
        encoder = encoder.frozen(self._precision)
        self._encoder = encoder.to(self.device, memory_format=encoder.memory_format)  # type: ignore[call-overload]  # torch's stubs
        self._views, self._batch, self._threads = views, batch, hardware.threads(threads)

    @torch.inference_mode()
    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        """Features `[D]` of each shot, from the JPEG bytes of its key-frames."""
        jpegs = chain.from_iterable(shots)
        for images in view_jpegs(jpegs, self._views, self._batch * KEYFRAMES_PER_SHOT, self.device, self._threads):
            with hardware.autocast(self._precision):
                found = self._encoder.of_shots(images.unflatten(0, (-1, KEYFRAMES_PER_SHOT)))
            yield from found.cpu().numpy()


class Network:
    """See `SceneDetector.from_checkpoint`."""

    def __init__(self, checkpoint: str | Path, encoder: str | Path | None, batch: int, threads: int) -> None:
        model, state = load_finetuned(checkpoint)
        self._kinds = _kinds(checkpoint, state)
        self._encoder = None
        if any(kind != COLOURS for kind in self._kinds):
            network = _encoder_of(checkpoint, state, encoder)
            self._encoder = ShotEncoder(network, TestViews(**state["model"]["views"]), batch, threads)
        elif encoder is not None:
            raise CheckpointError(f"{checkpoint}: was fine-tuned on colours; leave out --encoder")
        self.reads_speech = model.reads_speech
        self._device = hardware.device()
        self._model = model.eval().to(self._device)
        self.method = f"model {masked(str(checkpoint))}"
        self.made_by: dict[str, Any] = {
            "checkpoint_sha256": sha256(checkpoint),
            # Of imported features the state may not know it.
            "encoder_sha256": state["checkpoint_sha256"] if encoder is None else sha256(encoder),
        }
        self.threshold: float | None = float(state["threshold"])
        self.threshold_from = f"chosen on the {state['threshold_from']} films"

    def features(self, shots: Iterator[tuple[bytes, ...]]) -> Iterator[np.ndarray]:
        encode = None if self._encoder is None else self._encoder.features
        return shot_features(shots, encode, COLOURS in self._kinds)

    def probability(self, features: np.ndarray, seconds: np.ndarray, speech: np.ndarray | None = None) -> np.ndarray:
        kinds = kinds_of(features, COLOURS in self._kinds)
        dim = self._model.dim  # of what the network reads, if any
        read = (features if self._kinds[0] == COLOURS else kinds[-1])[:, :dim]
        reads = self._model.reads
        statistics = None if reads is None else statistics_of(list(map(alike, kinds)), seconds, speech, reads)
        film = Film("", read, np.zeros(len(features), SHOT))
        windows = Windows.load([film], self._model.shots, self._device, statistics)
        return windows.scores(self._model)[0].probability


def _kinds(checkpoint: str | Path, state: dict[str, Any]) -> list[str | None]:
    """What made the features, see `segmentation.model`; those of the network first.

    Raises:
        CheckpointError: several encoders.
    """
    similarity = state["model"].get("similarity")
    kinds = similarity["kinds"] if similarity else [state["checkpoint_sha256"]]
    if sum(kind != COLOURS for kind in kinds) > 1:  # two unknown ones, both None, may differ
        raise CheckpointError(
            f"{checkpoint}: was fine-tuned on features of several encoders, and `scenes` has one; fine-tune on those "
            "of one, with or without colours"
        )
    return kinds


def _encoder_of(checkpoint: str | Path, state: dict[str, Any], given: str | Path | None) -> Encoder:
    """The encoder whose features the model was fine-tuned on: in its checkpoint, or in one of its own."""
    if state["model"]["encoder"] is not None:
        if given is not None:
            raise CheckpointError(f"{checkpoint}: holds its own encoder; leave out --encoder")
        return from_state(state["model"]["encoder"], checkpoint).encoder
    if given is None:
        raise CheckpointError(
            f"{checkpoint}: does not hold its encoder; give the checkpoint of the encoder with --encoder"
        )
    if state["checkpoint_sha256"] not in (None, sha256(given)):
        raise CheckpointError(
            f"{given}: not the encoder that {checkpoint} was fine-tuned on; give that one with --encoder"
        )
    return load_model(given).encoder
