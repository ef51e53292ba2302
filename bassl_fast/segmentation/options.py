"""Options of fine-tuning as they are in a config. Nothing here needs torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bassl_fast.training.options import Optimiser
from shard_tools.errors import ConfigError

Layout = Literal["film", "reference"]  # of features: one array per film, or one file per shot
Head = Literal["crn", "similarity", "both", "film"]  # what a boundary is found by
BestEpoch = Literal["validation", "last", "test_as_the_reference_does"]

PUBLISHED = Optimiser(name="adam", lr=2.5e-6, weight_decay=0.0, warmup=0.0)  # of BaSSL's fine-tuning


@dataclass(frozen=True)
class Data:
    """Training data.

    Args:
        features: folder or address that `bassl-fast extract` wrote to; for all heads but "crn" also several, with other
            features of the same films. The first says which films there are, their splits and labels.
        corrections: instead of `features`, a folder of results folders of `bassl-fast scenes`, some of them corrected
            by hand; the weights that come with the package are adapted to these films.
        train: split to train on.
        val: split that chooses the best epoch and the threshold, not the test split; if it has no boundary, the last
            epoch is kept and the threshold is chosen on the training films.
        batch: windows per step.

    Raises:
        ConfigError: no folder, or features and corrections.
    """

    features: list[str] | str = field(default_factory=list)
    corrections: str | None = None
    train: str = "train"
    val: str = "val"
    batch: int = 1024

    def __post_init__(self) -> None:
        if self.corrections is not None and self.features:
            raise ConfigError("data.features and data.corrections: two sources of labels; give one of them")
        if self.corrections is None and not self.features:
            raise ConfigError("data.features: empty; give at least one folder of features, or --data.corrections")

    @property
    def folders(self) -> list[str]:
        """`features` as a list."""
        return [self.features] if isinstance(self.features, str) else self.features


@dataclass(frozen=True)
class CRN:
    """Shape of a new contextual relation network; one from a checkpoint keeps its own.

    Args:
        hidden: width of the transformer.
        intermediate: width of its feed-forward layers.
        heads: attention heads.
        layers: number of layers.
        shots: shots in a window, odd.
        dropout: fraction of activations dropped in training.
        similarity_init: start with attention to similar shots.

    Raises:
        ConfigError: an even or too small number of shots.
    """

    hidden: int = 768
    intermediate: int = 3072
    heads: int = 8
    layers: int = 2
    shots: int = 17
    dropout: float = 0.1
    similarity_init: bool = False

    def __post_init__(self) -> None:
        if self.shots < 3 or self.shots % 2 == 0:
            raise ConfigError(f"crn.shots {self.shots}: a window needs an odd number of shots, at least 3")
