"""Cached shot features: one `[S, D]` array per film, the labels of its shots, and their provenance.

<root>/<film>.npy        float16 or float32, one row per shot
<root>/sequences.npy     films, splits, first rows, as in the shards
<root>/shots.npy         shot numbers, labels, times, as in the shards
<root>/features.json     provenance: size, checksums of checkpoint and shards; "sha256" of the files above; written last

Features of colours have "colours" in place of the checkpoint and of its checksum; a row is the histograms of hue of
the K key-frames of a shot, end to end, and after them K grey images of 16 x 9 pixels.

Files are compared with their checksums when a process first opens them. `extract` makes those that differ again. Sets
written by earlier versions have no checksums.

`import_features` converts the reference's layout: one file per shot, `<film>/shot_0000.npy`. If `extract` wrote it, it
has a features.json too, with the sha256 of each film's values, shot after shot.
"""

from __future__ import annotations

import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.errors import FeatureError, ShardError
from shard_tools.shards.format import SEQUENCES, SHA256, SHOT, SHOTS, columns_of, npy_bytes, sequence_dtype
from shard_tools.shards.index import check_text
from shard_tools.storage.cache import local_file
from shard_tools.storage.checksums import sha256_once
from shard_tools.storage.output import Place
from shard_tools.storage.remote import is_remote
from shard_tools.storage.untrusted import is_plain_name, map_npy, one_line, parse_json

PROVENANCE = "features.json"
STARTED = PROVENANCE + ".part"
NOTED = ("dim", "dtype", "checkpoint", "checkpoint_sha256", "shards", "manifest_sha256")  # keys of the provenance
CHECKSUMS = "sha256"  # key of the provenance; no part of it where it is compared
COLOURS = "colours"  # in place of a checkpoint
_READERS = 8  # films fetched and checked in parallel


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
        root: folder or address.
        provenance: `dim`, `dtype`, `checkpoint`, `checkpoint_sha256`, `shards`, `manifest_sha256`, `transform`; None
            where imported features do not tell.
        sequences, shots: as in the shards.
        checksums: sha256 of files by name; empty if an earlier version wrote them.
    """

    root: str
    provenance: dict[str, Any]
    sequences: np.ndarray
    shots: np.ndarray
    checksums: dict[str, str]

    @property
    def of_colours(self) -> bool:
        """Whether they are of colours, not of an encoder; see `colours.colour_kinds`."""
        return self.provenance["checkpoint"] == COLOURS

    @classmethod
    def open(cls, root: str | Path) -> FeatureSet:
        """Open a finished feature folder, local or at an address.

        Raises:
            FeatureError: it is missing, unfinished, damaged, or in the reference's layout.
            RemoteError, ShardError: an address cannot be reached in time, or the cache cannot be used.
        """
        from bassl_fast.checkpoints.checkpoint import find  # here, because it imports torch

        root = str(root).rstrip("/")
        path = f"{root}/{PROVENANCE}"
        if (found := find(path)) is None:
            if not is_remote(root) and not Path(root).is_dir():
                raise FeatureError(f"{root}: no such folder; give the one that `bassl-fast extract` wrote")
            if not is_remote(root) and any(Path(root).glob("*/shot_*.npy")):
                raise FeatureError(f"{root}: in the reference's layout; convert it with `bassl-fast import-features`")
            raise FeatureError(f"{path}: missing, so these features are unfinished; run `bassl-fast extract` (again)")
        try:
            provenance = parse_json(found.read_text(encoding="utf-8"))
            if not isinstance(provenance, dict):
                raise ValueError("not a JSON object")
            checksums = checksums_of(provenance)
        except (OSError, ValueError) as error:
            raise FeatureError(
                f"{path}: damaged ({one_line(error)}); delete the folder and make the features again"
            ) from None
        if provenance.get("layout") == "reference":
            raise FeatureError(f"{root}: in the reference's layout; convert it with `bassl-fast import-features`")
        try:
            sequences, shots = (_open_array(root, name, checksums) for name in (SEQUENCES, SHOTS))
            _check(provenance, sequences, shots)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{root}: cannot be read ({one_line(error)}); {_fix(provenance)}") from None
        return cls(root, provenance, sequences, shots, checksums)

    def films(self, split: str | None) -> list[Film]:
        """The films of a split ("train", "val", "test"), or all for None; empty for an unknown split.

        Raises:
            FeatureError: a film's array is missing, cut or altered, or has another shape or type than the others.
        """
        chosen = [row for row in self.sequences if split is None or row["split"].decode() == split]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._film, chosen))

    def film(self, name: str) -> Film | None:
        """A film by its name; None if it is not here.

        Raises:
            FeatureError: see `films`.
        """
        found = self.sequences[self.sequences["name"] == name.encode()]
        return self._film(found[0]) if len(found) else None

    def _film(self, row: np.void) -> Film:
        name, first, count = row["name"].decode(), int(row["first_shot"]), int(row["shots"])
        path = f"{self.root}/{name}.npy"
        try:
            features = _open_array(self.root, f"{name}.npy", self.checksums)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path}: cannot be read ({one_line(error)}); {_fix(self.provenance)}") from None
        if features.shape != (count, self.provenance["dim"]) or features.dtype != self.provenance["dtype"]:
            raise FeatureError(
                f"{path}: {features.dtype} {list(features.shape)}, expected {self.provenance['dtype']} "
                f"[{count}, {self.provenance['dim']}]; {_fix(self.provenance)}"
            )
        return Film(name, features, self.shots[first : first + count])


def checksums_of(provenance: dict[str, Any]) -> dict[str, str]:
    """Take the checksums out of what a features.json holds.

    Raises:
        ValueError: they are none.
    """
    found = provenance.pop(CHECKSUMS, {})
    if not isinstance(found, dict) or not all(isinstance(one, str) and SHA256.fullmatch(one) for one in found.values()):
        raise ValueError(f"{CHECKSUMS} holds no checksums")
    return found


def _open_array(root: str, name: str, checksums: dict[str, str]) -> np.ndarray:
    """Raises: ValueError or OSError if it is not the file that was written."""
    path = local_file(f"{root}/{name}")
    if name in checksums and sha256_once(path) != checksums[name]:
        raise ValueError(f"{name} differs from its checksum in features.json")
    return map_npy(path)


def _fix(provenance: dict[str, Any]) -> str:
    return f"run `bassl-fast {'import-features' if 'imported' in provenance else 'extract'}` again"


def _check(provenance: dict[str, Any], sequences: np.ndarray, shots: np.ndarray) -> None:
    """Raises: ValueError if the files do not have the expected keys, columns and counts."""
    if missing := [key for key in NOTED if key not in provenance]:
        raise ValueError(f"{PROVENANCE} lacks {', '.join(missing)}")
    if not isinstance(provenance["dim"], int) or provenance["dtype"] not in ("float16", "float32"):
        raise ValueError(f"{PROVENANCE}: dim {provenance['dim']!r} and dtype {provenance['dtype']!r}")
    for name, array, columns in ((SEQUENCES, sequences, sequence_dtype([])), (SHOTS, shots, SHOT)):
        known = columns_of(columns) or []
        if array.ndim != 1 or (columns_of(array.dtype) or [])[: len(known)] != known:
            raise ValueError(f"{name} has unexpected columns")
    try:
        check_text(Path(SEQUENCES), sequences)
    except ShardError as error:
        raise ValueError(str(error)) from None
    names = [name.decode() for name in sequences["name"].tolist()]
    if not all(map(is_plain_name, names)) or len(set(names)) < len(names):
        raise ValueError(f"{SEQUENCES}: a film's name is duplicated or is not a plain file name")
    counts = sequences["shots"].astype(np.int64)
    if len(shots) != counts.sum() or not np.array_equal(sequences["first_shot"], np.cumsum(counts) - counts):
        raise ValueError(f"{SHOTS} does not fit {SEQUENCES}")


def write_index(
    place: Place, sequences: np.ndarray, shots: np.ndarray, provenance: dict[str, Any], checksums: dict[str, str]
) -> None:
    """Finish a folder whose arrays are written: labels and provenance.

    Args:
        sequences: rows of the films, as in the shards; `first_shot` is set here.
        shots: rows of `SHOT`, film by film.
        checksums: sha256 of the arrays of the films, by file.
    """
    sequences = sequences.copy()
    sequences["first_shot"] = np.cumsum(sequences["shots"]) - sequences["shots"]
    arrays = {SEQUENCES: npy_bytes(sequences), SHOTS: npy_bytes(shots)}
    for name, data in arrays.items():
        place.write(name, data)
    write_provenance(place, provenance, {**checksums, **{name: sha256(data) for name, data in arrays.items()}})


def write_provenance(
    place: Place, provenance: dict[str, Any], checksums: dict[str, str], name: str = PROVENANCE
) -> None:
    """Write features.json, or another file like it."""
    known = {**provenance, CHECKSUMS: dict(sorted(checksums.items()))}
    place.write(name, (json.dumps(known, indent=1) + "\n").encode())


def sha256(data: bytes) -> str:
    """sha256 of `data`, as hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_array(data: bytes, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether the contents of a `.npy` file are a whole array of this shape and type."""
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:  # numpy raises many kinds of errors for a damaged header
        return False
    return array.shape == shape and array.dtype == dtype


def shot_name(number: int) -> str:
    """File name of one shot in the reference's layout."""
    return f"shot_{number:04d}.npy"


def holds_files(place: Place) -> bool:
    """Whether the folder holds anything but hidden files."""
    return any(not name.startswith(".") for name in place.names(""))
