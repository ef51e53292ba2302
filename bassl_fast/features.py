"""Cached shot features: one `[S, D]` array a film, the labels of its shots, and where all of it came from.

<root>/<film>.npy        float16 or float32, a row a shot
<root>/sequences.npy     films, splits, first rows: as in the shards
<root>/shots.npy         shot numbers, labels, times: as in the shards
<root>/features.json     size, and the checksums of checkpoint and shards; written last
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import FeatureError
from shard_tools.format import SEQUENCES, SHOTS

PROVENANCE = "features.json"


@dataclass(frozen=True)
class Film:
    """One film of a feature set: name, features `[S, D]` (memory-mapped) and its rows of `shots.npy` `[S]`."""

    name: str
    features: np.ndarray
    shots: np.ndarray


@dataclass(frozen=True)
class FeatureSet:
    """Features opened for reading.

    Attributes:
        root: the folder.
        provenance: `dim`, `dtype`, `checkpoint`, `checkpoint_sha256`, `shards`, `manifest_sha256`, `transform`.
        sequences, shots: as in the shards.
    """

    root: Path
    provenance: dict[str, Any]
    sequences: np.ndarray
    shots: np.ndarray

    @classmethod
    def open(cls, root: str | Path) -> FeatureSet:
        """Open a finished feature folder.

        Raises:
            FeatureError: it is not there, not finished, or cannot be read.
        """
        root = Path(root)
        path = root / PROVENANCE
        if not path.is_file():
            raise FeatureError(f"{path}: missing, so these features are not finished; run `bassl-fast extract` (again)")
        try:
            provenance = json.loads(path.read_text(encoding="utf-8"))
            arrays = [np.load(root / name, allow_pickle=False) for name in (SEQUENCES, SHOTS)]
        except (OSError, ValueError) as error:
            raise FeatureError(f"{root}: cannot be read ({error}); extract the features again") from None
        return cls(root, provenance, *arrays)

    def films(self, split: str | None) -> list[Film]:
        """The films of a split ("train", "val", "test"), or all for None; an unknown split has none.

        Raises:
            FeatureError: a film's array is missing, or has another shape than its labels.
        """
        chosen = [row for row in self.sequences if split is None or row["split"].decode() == split]
        return [self._film(row) for row in chosen]

    def _film(self, row: np.ndarray) -> Film:
        name, first, count = row["name"].decode(), int(row["first_shot"]), int(row["shots"])
        path = self.root / f"{name}.npy"
        try:
            features = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path}: cannot be read ({error}); extract the features again") from None
        if features.shape != (count, self.provenance["dim"]):
            raise FeatureError(
                f"{path}: shape {list(features.shape)}, expected [{count}, {self.provenance['dim']}]; extract again"
            )
        return Film(name, features, self.shots[first : first + count])
