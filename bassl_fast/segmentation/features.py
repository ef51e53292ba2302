"""Cached shot features: one `[S, D]` array per film, the labels of its shots, and their provenance.

<root>/<film>.npy        float16 or float32, one row per shot
<root>/sequences.npy     films, splits, first rows, as in the shards
<root>/shots.npy         shot numbers, labels, times, as in the shards
<root>/features.json     provenance: size, checksums of checkpoint and shards; written last

`bassl-fast import-features` converts the reference's layout: one file per shot, `<film>/shot_0000.npy`.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bassl_fast.checkpoints import checkpoint as checkpoints
from shard_tools.annotations import movienet
from shard_tools.errors import FeatureError, ShardError, masked
from shard_tools.shards.format import SEQUENCES, SHOT, SHOTS, columns_of, npy_bytes, sequence_dtype
from shard_tools.shards.index import check_text
from shard_tools.storage.cache import local_file
from shard_tools.storage.output import Place, open_place
from shard_tools.storage.remote import absolute, is_remote
from shard_tools.storage.untrusted import is_plain_name, map_npy, one_line, parse_json

PROVENANCE = "features.json"
STARTED = PROVENANCE + ".part"
_FETCHERS = 8  # films fetched in parallel
_NOTED = ("dim", "dtype", "checkpoint", "checkpoint_sha256", "shards", "manifest_sha256")
_SHOT = re.compile(r"shot_([0-9]{1,9})\.npy")


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
    """

    root: str
    provenance: dict[str, Any]
    sequences: np.ndarray
    shots: np.ndarray

    @classmethod
    def open(cls, root: str | Path) -> FeatureSet:
        """Open a finished feature folder, local or at an address.

        Raises:
            FeatureError: it is missing, unfinished, in the reference's layout, or cannot be read.
            RemoteError: an address cannot be reached in time.
        """
        root = str(root).rstrip("/")
        path = f"{root}/{PROVENANCE}"
        if (found := checkpoints.find(path)) is None:
            if not is_remote(root) and any(Path(root).glob("*/shot_*.npy")):
                raise FeatureError(f"{root}: in the reference's layout; convert it with `bassl-fast import-features`")
            raise FeatureError(f"{path}: missing, so these features are unfinished; run `bassl-fast extract` (again)")
        try:
            provenance = parse_json(found.read_text(encoding="utf-8"))
            if isinstance(provenance, dict) and provenance.get("layout") == "reference":
                raise FeatureError(f"{root}: in the reference's layout; convert it with `bassl-fast import-features`")
            sequences, shots = (map_npy(local_file(f"{root}/{name}")) for name in (SEQUENCES, SHOTS))
            _check(provenance, sequences, shots)
        except (OSError, ValueError, ShardError) as error:
            raise FeatureError(f"{root}: cannot be read ({one_line(error)}); extract the features again") from None
        return cls(root, provenance, sequences, shots)

    def films(self, split: str | None) -> list[Film]:
        """The films of a split ("train", "val", "test"), or all for None; empty for an unknown split.

        Raises:
            FeatureError: a film's array is missing, or has another shape or type than the others.
        """
        chosen = [row for row in self.sequences if split is None or row["split"].decode() == split]
        with ThreadPoolExecutor(_FETCHERS if is_remote(self.root) else 1) as pool:
            return list(pool.map(self._film, chosen))

    def _film(self, row: np.void) -> Film:
        name, first, count = row["name"].decode(), int(row["first_shot"]), int(row["shots"])
        path = f"{self.root}/{name}.npy"
        try:
            features = map_npy(local_file(path))
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path}: cannot be read ({error}); extract the features again") from None
        if features.shape != (count, self.provenance["dim"]) or features.dtype != self.provenance["dtype"]:
            raise FeatureError(
                f"{path}: {features.dtype} {list(features.shape)}, expected {self.provenance['dtype']} "
                f"[{count}, {self.provenance['dim']}]; extract again"
            )
        return Film(name, features, self.shots[first : first + count])


def _check(provenance: Any, sequences: np.ndarray, shots: np.ndarray) -> None:
    """Raises: ValueError if the files do not have the expected keys, columns and counts."""
    if not isinstance(provenance, dict) or (missing := [key for key in _NOTED if key not in provenance]):
        raise ValueError(f"{PROVENANCE} lacks {', '.join(missing) if isinstance(provenance, dict) else 'all keys'}")
    if not isinstance(provenance["dim"], int) or provenance["dtype"] not in ("float16", "float32"):
        raise ValueError(f"{PROVENANCE}: dim {provenance['dim']!r} and dtype {provenance['dtype']!r}")
    for name, array, columns in ((SEQUENCES, sequences, sequence_dtype([])), (SHOTS, shots, SHOT)):
        known = columns_of(columns) or []
        if array.ndim != 1 or (columns_of(array.dtype) or [])[: len(known)] != known:
            raise ValueError(f"{name} has unexpected columns")
    check_text(Path(SEQUENCES), sequences)
    names = [name.decode() for name in sequences["name"].tolist()]
    if not all(map(is_plain_name, names)) or len(set(names)) < len(names):
        raise ValueError(f"{SEQUENCES}: a film's name is duplicated or is not a plain file name")
    counts = sequences["shots"].astype(np.int64)
    if len(shots) != counts.sum() or not np.array_equal(sequences["first_shot"], np.cumsum(counts) - counts):
        raise ValueError(f"{SHOTS} does not fit {SEQUENCES}")


def write_index(place: Place, sequences: np.ndarray, shots: np.ndarray, provenance: dict[str, Any]) -> None:
    """Finish a folder whose arrays are written: labels and provenance.

    Args:
        sequences: rows of the films, as in the shards; `first_shot` is set here.
        shots: rows of `SHOT`, film by film.
    """
    sequences = sequences.copy()
    sequences["first_shot"] = np.cumsum(sequences["shots"]) - sequences["shots"]
    place.write(SEQUENCES, npy_bytes(sequences))
    place.write(SHOTS, npy_bytes(shots))
    place.write(PROVENANCE, (json.dumps(provenance, indent=1) + "\n").encode())


def shot_name(number: int) -> str:
    """File name of one shot in the reference's layout."""
    return f"shot_{number:04d}.npy"


def import_features(source: str, annotations: str, features: str, checkpoint: str | None = None) -> str:
    """Convert features that the reference extracted, one file per shot, for `finetune`.

    Args:
        source: folder of `<film>/shot_0000.npy`, such as data/movienet/features/<LOAD_FROM>.
        annotations: MovieNet folder whose anno/ and scene318/ label the shots.
        features: new folder or address for the features.
        checkpoint: our checkpoint whose encoder made them, so that `finetune --pretrained` accepts it.

    Raises:
        FeatureError: a folder or file is missing, or a file does not hold one feature.
        CheckpointError: `checkpoint` cannot be used.
        SourceError: the annotations cannot be read.
    """
    root, anno, out = Path(source), Path(annotations), open_place(features)
    folders = sorted({path.parent for path in root.glob("*/shot_*.npy")})
    if not folders:
        raise FeatureError(f"{root}: holds no <film>/{shot_name(0)}; give the folder of all films")
    if (root / STARTED).exists():
        raise FeatureError(f"{root}: these features are unfinished; run `bassl-fast extract` again")
    if holds_files(out) and out.size(STARTED) is None:
        raise FeatureError(f"{features}: not empty; choose a new folder")
    labelled = movienet.read_labels(anno)
    if not labelled:
        raise FeatureError(f"{anno}: holds no anno/anno.{{train,val,test}}.ndjson; give the MovieNet folder")
    provenance = _provenance_of(root, checkpoint)
    out.write(STARTED, b"")
    sequences, labels = np.zeros(len(folders), sequence_dtype([folder.name.encode() for folder in folders])), []
    for row, folder in zip(sequences, tqdm(folders, desc="import", unit="film", disable=None), strict=True):
        numbers, array = _read_film(folder)
        if provenance.setdefault("dim", array.shape[1]) != array.shape[1]:
            raise FeatureError(f"{folder}: features of size {array.shape[1]}, others have {provenance['dim']}")
        known = movienet.labels_of_film(anno, folder.name, numbers, labelled)
        row["name"], row["split"], row["shots"] = folder.name.encode(), known.split.encode(), len(numbers)
        rows = np.zeros(len(numbers), SHOT)
        for column in SHOT.names or ():
            rows[column] = getattr(known, column)
        labels.append(rows)
        out.write(f"{folder.name}.npy", npy_bytes(array))
    write_index(out, sequences, np.concatenate(labels), provenance)
    out.delete(STARTED)
    if missing := sorted(labelled.keys() - {folder.name for folder in folders}):
        print(f"{len(missing)} labelled films have no features: {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}")
    print(
        f"features: {masked(str(features))} ({len(folders)} films, {int(sequences['shots'].sum())} shots)", flush=True
    )
    return features


def holds_files(place: Place) -> bool:
    """Whether the folder holds anything but hidden files."""
    return any(not name.startswith(".") for name in place.names(""))


def _read_film(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Shot numbers `[S]` and features `[S, D]` float32 of one film's folder."""
    numbers = {int(match[1]): path for path in folder.iterdir() if (match := _SHOT.fullmatch(path.name))}
    rows = []
    for _, path in sorted(numbers.items()):
        try:
            row = map_npy(path)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{path}: cannot be read ({error}); extract it again") from None
        if row.shape[-1:] != (row.size,) or not np.issubdtype(row.dtype, np.floating) or not np.isfinite(row).all():
            raise FeatureError(f"{path}: {row.dtype} {list(row.shape)} is not one finite feature; extract it again")
        rows.append(row.reshape(-1).astype(np.float32))
    if len({len(row) for row in rows}) > 1:
        raise FeatureError(f"{folder}: features of different sizes in one film; extract it again")
    return np.array(sorted(numbers), np.int64), np.stack(rows)


def _provenance_of(root: Path, checkpoint: str | None) -> dict[str, Any]:
    """Provenance of features in the reference's layout: complete if `extract` wrote them, else only `checkpoint`."""
    if checkpoint is not None:
        checkpoints.load(checkpoint, checkpoints.ENCODER)
    if (root / PROVENANCE).is_file():
        try:
            noted = parse_json((root / PROVENANCE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise FeatureError(f"{root / PROVENANCE}: damaged ({error}); extract the features again") from None
        if not isinstance(noted, dict) or any(key not in noted for key in _NOTED):
            raise FeatureError(f"{root / PROVENANCE}: lacks keys; extract the features again")
        if checkpoint is not None and noted["checkpoint_sha256"] != checkpoints.sha256(checkpoint):
            raise FeatureError(f"{root}: extracted with another checkpoint than {checkpoint}; leave out --checkpoint")
        return {**noted, "layout": "film"}
    return {
        "dtype": "float32",
        "layout": "film",
        "imported": str(root.resolve()),
        "checkpoint": checkpoint and masked(absolute(checkpoint)),
        "checkpoint_sha256": checkpoint and checkpoints.sha256(checkpoint),
        "shards": None,
        "manifest_sha256": None,
        "transform": None,
    }
