"""A labelled film, as the similarity head is fitted to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelledFilm:
    """A film to train on.

    Attributes:
        name: for errors.
        kinds: name of a kind -> features, `[S, D]` or `[S, K, D]` for K key-frames per shot.
        seconds: `[S]`, how long the shots last.
        boundary: `[S]`, 1 = last shot of its scene, 0 = not, -1 = unlabelled; that of the last shot is ignored.
        speech: `[S, G]` statistics of speech, see `heads.speech`; None for a head that does not read them.
    """

    name: str
    kinds: Mapping[str, np.ndarray]
    seconds: np.ndarray
    boundary: np.ndarray
    speech: np.ndarray | None = None
