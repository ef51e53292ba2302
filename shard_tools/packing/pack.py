"""Pack films, pictures and clips into shards: bytes are copied and checked, and decoded only on request.

Shards are packed in parallel, each into `.pack/<shard>.tar.tmp`, which is moved into place when whole; a note about
each finished shard is kept under `.pack/` until all are done. A film is one shard; which pictures and clips share one
is decided before the first is read, so it depends on the source alone. A pack stopped at any moment resumes and ends
with the same bytes: a shard whose files changed meanwhile is packed again, one whose source is gone is removed. The
manifest is written last; without it nothing opens the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.annotations import movienet
from shard_tools.annotations.labels import ShotLabels
from shard_tools.errors import ShardError, SourceError, with_fix
from shard_tools.shards import format as fmt
from shard_tools.sources import keyframe_folder
from shard_tools.sources.detect import Reading, open_layout
from shard_tools.sources.films import annotations_folder
from shard_tools.sources.source import Source
from shard_tools.storage.output import PARTS, Place, open_place
from shard_tools.storage.remote import absolute, is_remote

from .pack_shard import Job, note_name
from .workers import Each, pack_shards
from .writer import PackedShard


def _remove_gone(place: Place, shards: set[str]) -> None:
    """Remove shards that a stopped run packed and that are no longer in the source."""
    for part in place.names(PARTS):
        if part.endswith(".npz") and (shard := part.removesuffix(".npz")) not in shards:
            for name in (f"{shard}.tar", f"{shard}.idx", f"{shard}.idx.tmp", note_name(shard)):
                place.delete(name)


def refuse_finished(place: Place) -> None:
    """Raises: ShardError if `place` holds a finished set."""
    if place.size(fmt.MANIFEST) is not None:
        raise ShardError(
            f"{place.uri}: already holds a finished set of shards; choose another folder or delete this one"
        )


@contextmanager
def _writing(place: Place) -> Iterator[None]:
    """Lock `place` for this process, and turn disk errors into one line.

    Raises:
        ShardError: a finished set, another pack running there, a full disk, no permission.
    """
    try:
        refuse_finished(place)
        with place.writing():
            refuse_finished(place)
            yield
    except OSError as error:
        raise ShardError(with_fix(error, place.uri)) from error


def write_index(place: Place, source: Source, packed: list[PackedShard], labels: list[ShotLabels]) -> None:
    """Write the index of all shards, which are in order of name; the manifest last.

    Args:
        labels: of the films, in the same order; empty for pictures and clips.
    """
    rows = np.concatenate([shard.sequences for shard in packed])
    sequences = np.zeros(len(rows), fmt.sequence_dtype([bytes(rows.dtype["name"].itemsize)], source.kind))
    for column in rows.dtype.names or ():
        sequences[column] = rows[column]
    each = [len(shard.sequences) for shard in packed]
    sequences["shard"] = np.repeat(np.arange(len(packed)), each)
    counts = rows["shots"].astype(np.int64)
    sequences["first_shot"] = np.cumsum(counts) - counts
    counts *= rows["frames_per_shot"]
    sequences["first_frame"] = np.cumsum(counts) - counts
    if source.kind == fmt.FILMS:
        sequences["split"] = [known.split.encode() for known in labels]
        shots = np.empty(int(rows["shots"].sum()), fmt.SHOT)
        for column in fmt.SHOT.names or ():
            shots[column] = np.concatenate([getattr(known, column) for known in labels])
    else:
        sequences["split"] = np.repeat([shard.split.encode() for shard in source.shards], each)
        sequences["label"] = np.concatenate([shard.labels for shard in source.shards])
        shots = np.full(len(rows), np.array((0, -1, -1, -1, -1), fmt.SHOT))
    if source.kind == fmt.CLIPS:
        sequences["fps"] = source.fps
    frames = np.concatenate([shard.frames for shard in packed])
    index = {}
    for name, array in ((fmt.FRAMES, frames), (fmt.SEQUENCES, sequences), (fmt.SHOTS, shots)):
        data = fmt.npy_bytes(array)
        index[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        place.write(name, data)
    manifest = {
        "version": fmt.VERSION,
        "kind": source.kind,
        **({} if source.kind == fmt.FILMS else {"classes": source.classes, "reading": source.reading}),
        "index": index,
        "shards": [
            {"name": f"{shard.name}.tar", "bytes": shard.size, "sha256": shard.sha256, "frames": len(shard.frames)}
            for shard in packed
        ],
    }
    place.settle()  # the manifest must not be on disk before the shards are
    place.write(fmt.MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    place.settle()  # before the notes are deleted


def pack(
    source: str | Path,
    dst: str | Path,
    workers: int = 2,
    quiet: bool | None = None,
    annotations: str | Path | None = None,
    check: str = "header",
    recheck: bool = False,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
    each: Each | None = None,
) -> dict[str, list[range]]:
    """Pack films, pictures or clips into `dst`; resumes a stopped pack.

    Args:
        source: key-frame folder, zip of per-film tars or folder of per-film tars, local or remote, see
            `films.open_source`; or a folder of pictures or clips, see `detect.open_layout`.
        dst: folder or address for the shards; created if missing.
        workers: shards packed at a time. Long work is done by processes, so a script that calls this needs
            `if __name__ == "__main__":`.
        quiet: no progress bar; None shows one on a terminal.
        annotations: folder that holds `anno/` and `scene318/`, or the lists of clips; by default the source, or the
            folder of the zip.
        check: "header" checks the ends and the size of each JPEG, "decode" decodes it.
        recheck: read shards that a stopped run finished again, instead of trusting its notes.
        reading: how pictures and clips are found, and how videos become frames.
        each: runs the work elsewhere. Called with a function, the shards, and a function that names one; calls the
            first with every shard, on machines that can read `source` and write `dst`, and yields the results in any
            order. None: `workers` processes on this machine.

    Returns:
        Film -> ranges of shot numbers without key-frames, for films that have any.

    Raises:
        SourceError: the source has no known layout, or a picture is missing or broken.
        ShardError: `dst` already holds a finished set or other tars, is among the film folders, or cannot be written.
        RemoteError: an address cannot be read or written.
    """
    place = open_place(dst)
    found = open_layout(source if each is None else absolute(source), annotations, reading, workers, quiet)
    _check_outside(source, dst)
    job = Job(found.kind, check == "decode", recheck)
    with _labels_of(found, source, annotations) as labels_of, _writing(place):
        packed = pack_shards(place, found.shards, job, workers, quiet, each)
        _remove_gone(place, {shard.name for shard in packed})
        write_index(place, found, packed, [labels_of(film) for film in packed] if labels_of else [])
    place.clear()
    return {film.name: missing for film in packed if found.kind == fmt.FILMS and (missing := gaps(film.shots))}


def _check_outside(source: str | Path, dst: str | Path) -> None:
    """Raises: ShardError if the shards would be written among the film folders."""
    if not is_remote(source) and not is_remote(dst) and Path(source).is_dir():
        frames_dir = keyframe_folder.frames_dir(Path(source))
        if Path(dst).resolve().is_relative_to(frames_dir.resolve()):
            raise ShardError(f"{dst}: is among the film folders of {frames_dir}; choose a folder outside it")


@contextmanager
def _labels_of(
    found: Source, source: str | Path, annotations: str | Path | None
) -> Iterator[Callable[[PackedShard], ShotLabels] | None]:
    """A function from a packed film to the labels of its shots; None for pictures and clips."""
    if found.kind != fmt.FILMS:
        yield None
    elif found.labels is not None:
        yield partial(_source_labels, found.labels)
    else:
        with annotations_folder(source, annotations) as folder:
            yield partial(_movienet_labels, folder, movienet.read_labels(folder))


def _movienet_labels(folder: Path, known: dict[str, Any], film: PackedShard) -> ShotLabels:
    return movienet.labels_of_film(folder, film.name, film.shots, known)


def _source_labels(known: dict[str, ShotLabels], film: PackedShard) -> ShotLabels:
    """Raises: SourceError if the source has no labels of the film, or labels of other shots."""
    labels = known.get(film.name)
    if labels is None or not np.array_equal(labels.shot, film.shots):
        raise SourceError(
            f"film {film.name}: its source has no labels for exactly its {len(film.shots)} shots; fix the reader"
        )
    return labels


def gaps(shots: np.ndarray) -> list[range]:
    """Ranges of numbers missing from ascending shot numbers `[S]`, from shot 0 on."""
    before = np.concatenate([[-1], shots[:-1]])
    return [range(int(b) + 1, int(s)) for b, s in zip(before, shots, strict=True) if s > b + 1]
