"""`bassl-fast import-features`: features in the reference's layout, one file per shot -> features for `finetune`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from shard_tools.annotations import movienet
from shard_tools.errors import FeatureError, masked
from shard_tools.shards.format import SHOT, npy_bytes, sequence_dtype
from shard_tools.storage.output import Place, open_place
from shard_tools.storage.untrusted import map_npy, parse_json

from .features import NOTED, PROVENANCE, STARTED, checksums_of, holds_files, sha256, shot_name, write_index

_SHOT = re.compile(r"shot_([0-9]{1,9})\.npy")


def import_features(source: str, annotations: str, features: str, checkpoint: str | None = None) -> str:
    """Convert features that the reference extracted, one file per shot, for `finetune`.

    Run again on the folder that it wrote, it writes files again that were cut or altered.

    Args:
        source: folder of `<film>/shot_0000.npy`, such as data/movienet/features/<LOAD_FROM>.
        annotations: MovieNet folder whose anno/ and scene318/ label the shots.
        features: new folder or address for the features.
        checkpoint: our checkpoint whose encoder made them, so that `finetune --pretrained` accepts it.

    Raises:
        FeatureError: a folder or file is missing, a file does not hold one feature, or a film was altered since it was
            extracted.
        CheckpointError: `checkpoint` cannot be used.
        SourceError: the annotations cannot be read.
    """
    root, anno, out = Path(source), Path(annotations), open_place(features)
    if not root.is_dir():
        raise FeatureError(f"{root}: no such folder; give the folder of <film>/{shot_name(0)}")
    folders = sorted({path.parent for path in root.glob("*/shot_*.npy")})
    if not folders:
        raise FeatureError(f"{root}: holds no <film>/{shot_name(0)}; give the folder of all films")
    if (root / STARTED).exists():
        raise FeatureError(f"{root}: these features are unfinished; run `bassl-fast extract` again")
    provenance, extracted = _provenance_of(root, checkpoint)
    if holds_files(out) and out.size(STARTED) is None and not _holds_these(out, provenance):
        raise FeatureError(f"{features}: not empty; choose a new folder")
    labelled = movienet.read_labels(anno)
    if not labelled:
        raise FeatureError(f"{anno}: holds no anno/anno.{{train,val,test}}.ndjson; give the folder of MovieNet")
    out.write(STARTED, b"")
    checksums = {}
    sequences, labels = np.zeros(len(folders), sequence_dtype([folder.name.encode() for folder in folders])), []
    for row, folder in zip(sequences, tqdm(folders, desc="import", unit="film", disable=None), strict=True):
        numbers, array = _read_film(folder)
        if extracted.get(folder.name, checksum := sha256(array.tobytes())) != checksum:
            raise FeatureError(f"{folder}: cut or altered; run `bassl-fast extract` again")
        if provenance.setdefault("dim", array.shape[1]) != array.shape[1]:
            raise FeatureError(
                f"{folder}: features of size {array.shape[1]}, others have {provenance['dim']}; extract all films with "
                "one checkpoint"
            )
        known = movienet.labels_of_film(anno, folder.name, numbers, labelled)
        row["name"], row["split"], row["shots"] = folder.name.encode(), known.split.encode(), len(numbers)
        rows = np.zeros(len(numbers), SHOT)
        for column in SHOT.names or ():
            rows[column] = getattr(known, column)
        labels.append(rows)
        name, data = f"{folder.name}.npy", npy_bytes(array)
        checksums[name] = sha256(data)
        if out.size(name) is None or out.sha256(name) != checksums[name]:
            out.write(name, data)
    write_index(out, sequences, np.concatenate(labels), provenance, checksums)
    out.delete(STARTED)
    if missing := sorted(labelled.keys() - {folder.name for folder in folders}):
        print(f"{len(missing)} labelled films have no features: {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}")
    print(
        f"features: {masked(str(features))} ({len(folders)} films, {int(sequences['shots'].sum())} shots)", flush=True
    )
    return features


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


def _holds_these(out: Place, provenance: dict[str, Any]) -> bool:
    """Whether the folder was finished with features of the same provenance."""
    try:
        earlier = parse_json(out.read(PROVENANCE) or b"")
    except ValueError:
        return False
    return isinstance(earlier, dict) and provenance.items() <= earlier.items()


def _provenance_of(root: Path, checkpoint: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Provenance of features in the reference's layout, and checksums of films, as far as they are known."""
    from bassl_fast.checkpoints import checkpoint as checkpoints  # here, so that `--help` does not wait for torch

    if checkpoint is not None:
        checkpoints.load(checkpoint, checkpoints.ENCODER)
    if (root / PROVENANCE).is_file():
        try:
            noted = parse_json((root / PROVENANCE).read_text(encoding="utf-8"))
            extracted = checksums_of(noted) if isinstance(noted, dict) else {}
        except ValueError as error:
            raise FeatureError(f"{root / PROVENANCE}: damaged ({error}); extract the features again") from None
        if not isinstance(noted, dict) or any(key not in noted for key in NOTED):
            raise FeatureError(f"{root / PROVENANCE}: lacks keys; extract the features again")
        if checkpoint is not None and noted["checkpoint_sha256"] != checkpoints.sha256(checkpoint):
            raise FeatureError(f"{root}: extracted with another checkpoint than {checkpoint}; leave out --checkpoint")
        return {**noted, "layout": "film"}, extracted
    imported = {
        "dtype": "float32",
        "layout": "film",
        "imported": str(root.resolve()),
        "checkpoint": checkpoint and masked(checkpoints.absolute(checkpoint)),
        "checkpoint_sha256": checkpoint and checkpoints.sha256(checkpoint),
        "shards": None,
        "manifest_sha256": None,
        "transform": None,
    }
    return imported, {}
