"""What an earlier `bassl-fast extract` left in a folder: whether it may resume there, and which films are whole."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from shard_tools.errors import FeatureError, masked
from shard_tools.shards.format import SEQUENCES, SHOTS
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.output import Place
from shard_tools.storage.untrusted import map_npy, one_line, parse_json

from .features import PROVENANCE, STARTED, checksums_of, holds_files, is_array, sha256, shot_name
from .options import Layout


def check_folder(place: Place, provenance: dict[str, Any]) -> dict[str, str]:
    """The checksums that the folder has on record.

    Raises:
        FeatureError: it holds other features.
    """
    out, checksums = place.uri, dict[str, str]()
    notes = {f"{out}/{name}": note for name in (PROVENANCE, STARTED) if (note := place.read(name)) is not None}
    if not notes and holds_files(place):
        raise FeatureError(f"{out}: holds files of an unknown checkpoint; choose another folder")
    for path, note in notes.items():
        try:
            earlier = parse_json(note)
            if not isinstance(earlier, dict):
                raise ValueError("not a JSON object")
            checksums |= checksums_of(earlier)
        except ValueError as error:
            raise FeatureError(f"{path}: damaged ({error}); delete the folder and extract again") from None
        keys = ["checkpoint_sha256", "manifest_sha256", "dtype", "layout", "transform"]
        for key in [*keys, "precision"] if provenance["precision"] else keys:  # colours have none
            if earlier.get(key) != provenance[key]:
                what = key.removesuffix("_sha256").replace("manifest", "set of shards")
                raise FeatureError(f"{out}: holds features of another {what}; choose another folder")
    return checksums


def earlier_speech(place: Place, recorded: dict[str, str]) -> dict[str, np.ndarray]:
    """Film -> rows `[S]` with the columns of `format.SPEECH`, of the films that have times of speech in the folder.

    They may be from subtitles that are not given again.
    """
    found = {name: data for name in (SEQUENCES, SHOTS) if (data := place.read(name)) is not None}
    if len(found) < 2:
        return {}
    try:
        for name, data in found.items():
            if recorded.get(name, sha256(data)) != sha256(data):
                raise ValueError("differs from its checksum")
        films, shots = (np.load(io.BytesIO(data), allow_pickle=False) for data in found.values())
        if "speech" not in (shots.dtype.names or ()):
            return {}
        ends = np.cumsum(films["shots"], dtype=np.int64)
        rows = {row["name"].decode(): shots[end - row["shots"] : end] for row, end in zip(films, ends, strict=True)}
    except Exception as error:  # numpy raises many kinds of errors for a damaged header
        what = f"{place.uri}: {SHOTS} or {SEQUENCES} is damaged ({one_line(error)})"
        print(masked(f"{what}; made again, with times of speech only if --subtitles is given"), flush=True)
        return {}
    return {name: known for name, known in rows.items() if np.isfinite(known["speech"]).all()}


def file_name(index: ShardIndex, film: int, layout: Layout) -> str:
    """The file of a film, or its folder in the reference's layout."""
    return index.films[film] + ("" if layout == "reference" else ".npy")


def whole_films(
    place: Place,
    index: ShardIndex,
    films: list[int],
    provenance: dict[str, Any],
    recorded: dict[str, str],
    quiet: bool,
) -> dict[str, str]:
    """Checksums of those of `films` that are there as they were written, by file; the others are named and deleted.

    Args:
        recorded: checksums that the folder has; of films without one only shape and type are compared.
    """
    there, found = set(place.names("")), {}
    names = {name: film for film in films if (name := file_name(index, film, provenance["layout"])) in there}
    for name, film in tqdm(names.items(), desc="check", unit="film", disable=quiet or None):
        checksum = _checksum(place, name, index.shots_of(film)["shot"], provenance)
        if checksum is None or recorded.get(name, checksum) != checksum:
            print(masked(f"{place.uri}/{name}: cut or altered; extracting it again"), flush=True)
            _delete(place, name, provenance["layout"])  # or a run that is stopped before it is made would leave it
        else:
            found[name] = checksum
    return found


def _checksum(place: Place, name: str, numbers: np.ndarray, provenance: dict[str, Any]) -> str | None:
    """That of a film of these shots `[S]`; None if it is not an array, or a folder, of the right shape."""
    if provenance["layout"] == "film":
        data = place.read(name)
        whole = data is not None and is_array(data, (len(numbers), provenance["dim"]), provenance["dtype"])
        return sha256(data) if data is not None and whole else None
    try:
        # Copied, as each map keeps a file open.
        shots = [np.array(map_npy(Path(place.uri) / name / shot_name(number))) for number in numbers.tolist()]
    except (OSError, ValueError):
        return None
    if any(shot.shape != (provenance["dim"],) or shot.dtype != provenance["dtype"] for shot in shots):
        return None
    return sha256(np.stack(shots).tobytes())


def _delete(place: Place, name: str, layout: Layout) -> None:
    if layout == "film":
        place.delete(name)
    else:
        shutil.rmtree(Path(place.uri) / name)
