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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from shard_tools.annotations import movienet
from shard_tools.annotations.labels import Annotated, ShotLabels
from shard_tools.errors import ShardError, SourceError, with_fix
from shard_tools.shards import format as fmt
from shard_tools.shards.jpeg import Decoder, pillow_faults
from shard_tools.sources import keyframe_folder
from shard_tools.sources.detect import Reading, open_layout
from shard_tools.sources.films import annotations_folder
from shard_tools.sources.source import Source
from shard_tools.storage.output import PARTS, Place, open_place
from shard_tools.storage.remote import absolute, is_remote

from .adding import Earlier, annotated_by, read_earlier
from .completeness import Completeness, carried_over, compare
from .manifest import signed
from .pack_shard import Job, note_name
from .subtitles import Lines, read_lines, speech_of_films, with_speech
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
            f"{place.uri}: already holds a finished set of shards; choose another folder, or add films to it with --add"
        )


@contextmanager
def _writing(place: Place, add: bool) -> Iterator[None]:
    """Lock `place` for this process, and turn disk errors into one line.

    Raises:
        ShardError: a finished set unless `add`, another pack running there, a full disk, no permission.
    """
    refuse = (lambda _: None) if add else refuse_finished
    try:
        refuse(place)
        with place.writing():
            refuse(place)
            yield
    except OSError as error:
        raise ShardError(with_fix(error, place.uri)) from error


def write_index(
    place: Place,
    source: Source,
    packed: list[PackedShard],
    labels: list[ShotLabels],
    report: Completeness,
    earlier: Earlier = Earlier(),  # noqa: B008 (frozen)
    speech: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> None:
    """Write the index of all shards, which are in order of name; the manifest last.

    Args:
        labels: of the films, in the same order; empty for pictures and clips.
        report: on the films, kept in the manifest.
        earlier: the set that films were added to.
        speech: film -> rows `[S]` with the columns of `fmt.SPEECH`, of films with subtitles; with any, the set is of
            version 1.1.
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
        shots = with_speech({shard.name: _rows(known) for shard, known in zip(packed, labels, strict=True)}, speech)
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
        file = earlier.next_file(name)
        index[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        index[name] |= {"file": file} if file != name else {}
        place.write(file, data)
    manifest = {
        "version": fmt.VERSION_WITH_SPEECH if speech else fmt.VERSION,
        "kind": source.kind,
        **({"edition": earlier.edition + 1} if earlier.edition else {}),
        **({} if source.kind == fmt.FILMS else {"classes": source.classes, "reading": source.reading}),
        "completeness": carried_over(earlier.report, report.as_json(), (shard.name for shard in packed)),
        "index": index,
        "shards": [
            {"name": f"{shard.name}.tar", "bytes": shard.size, "sha256": shard.sha256, "frames": len(shard.frames)}
            for shard in packed
        ],
    }
    place.settle()  # the manifest must not be on disk before the shards are
    manifest = signed(manifest)
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
    unsure: int = 1,
    strict: bool = False,
    decoder: Decoder = pillow_faults,
    add: bool = False,
    subtitles: str | Path | None = None,
) -> Completeness:
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
        unsure: what -1 in MovieNet's own labels counts as, see `label318.read_label318`.
        decoder: for `check`.
        strict: of films: refuse to finish a set that lacks anything its annotations promise.
        add: add films to the finished set in `dst`, see `adding`.
        subtitles: folder with a file of subtitles for each film, see `subtitles.find_subtitles`; the set then has times
            of speech. Films may be missing there.

    Returns:
        What annotations promise, held against what was packed; empty for pictures and clips.

    Raises:
        SourceError: the source has no known layout, a picture is missing or broken, `annotations` label nothing, or
            see `strict`.
        ShardError: `dst` already holds a finished set (with `add`: none, or one of these films) or other tars, is
            among the film folders, or cannot be written.
        RemoteError: an address cannot be read or written.
    """
    place = open_place(dst)
    refuse_around(source, dst)
    found = open_layout(source if each is None else absolute(source), annotations, reading, workers, quiet)
    _refuse_among(source, dst)
    lines = {} if subtitles is None else _read_subtitles(Path(subtitles), found)
    job = Job(found.kind, decoder if check == "decode" else None, recheck)
    of_films = found.kind == fmt.FILMS
    with _annotations_of(found, source, annotations, unsure) as (known, annotated), _writing(place, add):
        earlier = read_earlier(place, found) if add else Earlier()
        packed = earlier.with_films(pack_shards(place, found.shards, job, workers, quiet, each))
        _remove_gone(place, {shard.name for shard in packed})
        films = [
            (film.name, film.shots, earlier.annotated.get(film.name) or annotated(film)) for film in packed if of_films
        ]
        report = compare(known | earlier.annotated, films)
        if of_films:
            _check_complete(report, place.uri, annotations, strict)
        labels = [known.on(shots) for _, shots, known in films]
        of_film = {film: _rows(known) for (film, *_), known in zip(films, labels, strict=True)}
        speech = earlier.speech | speech_of_films(lines, of_film)
        write_index(place, found, packed, labels, report, earlier, speech)
    place.clear()
    return report


def refuse_around(source: str | Path, dst: str | Path) -> None:
    """Raises: ShardError if the folder of the shards contains the source."""
    if is_remote(source) != is_remote(dst):
        return
    if is_remote(source):
        inside = f"{str(source).rstrip('/')}/".startswith(f"{str(dst).rstrip('/')}/")
    else:
        inside = Path(source).resolve().is_relative_to(Path(dst).resolve())
    if inside:
        raise ShardError(f"{dst}: contains the source, {source}; choose a folder of its own for the shards")


def _refuse_among(source: str | Path, dst: str | Path) -> None:
    """Raises: ShardError if the shards would be written among the film folders."""
    if not is_remote(source) and not is_remote(dst) and Path(source).is_dir():
        frames_dir = keyframe_folder.frames_dir(Path(source))
        if Path(dst).resolve().is_relative_to(frames_dir.resolve()):
            raise ShardError(f"{dst}: is among the film folders of {frames_dir}; choose a folder outside it")


def _read_subtitles(folder: Path, source: Source) -> Lines:
    """Raises: SourceError if the source has no films, or see `read_lines`."""
    if source.kind != fmt.FILMS:
        raise SourceError(f"{folder}: subtitles are of films, and the source has {source.kind}; leave them out")
    return read_lines(folder, [shard.name for shard in source.shards])


def _rows(labels: ShotLabels) -> np.ndarray:
    """Rows `[S]` of `fmt.SHOT`."""
    shots = np.empty(len(labels.shot), fmt.SHOT)
    for column in fmt.SHOT.names or ():
        shots[column] = getattr(labels, column)
    return shots


@contextmanager
def _annotations_of(
    found: Source, source: str | Path, given: str | Path | None, unsure: int
) -> Iterator[tuple[dict[str, Annotated], Callable[[PackedShard], Annotated]]]:
    """Annotations by film, and a function from a packed film to its own, with times.

    Raises:
        SourceError: annotations were given, and none is of a film of the source.
    """
    if found.kind != fmt.FILMS:
        yield {}, lambda film: Annotated()
    elif found.labels is not None:
        known = {film: annotated_by(labels) for film, labels in found.labels.items()}
        yield known, partial(_of_source, found.labels, known)
    else:
        with annotations_folder(source, given) as folder:
            known = movienet.read_labels(folder, unsure)
            films = {shard.name for shard in found.shards}
            if given is not None and not films & known.keys():
                raise SourceError(
                    f"{given}: labels none of the {len(films)} films of {source} (it has {next(iter(known), 'none')}, "
                    f"the source {min(films)}); give the annotations of these films, or leave them out"
                )
            yield known, lambda film: movienet.annotated_film(folder, film.name, known)


def _of_source(labels: dict[str, ShotLabels], known: dict[str, Annotated], film: PackedShard) -> Annotated:
    """Raises: SourceError if the source has no labels of the film, or labels of other shots."""
    if film.name not in labels or not np.array_equal(labels[film.name].shot, film.shots):
        raise SourceError(
            f"film {film.name}: its source must give labels for exactly its {len(film.shots)} shots; fix its plug-in"
        )
    return known[film.name]


def _check_complete(report: Completeness, uri: str, annotations: str | Path | None, strict: bool) -> None:
    """Raises: SourceError if given annotations label no shot or, with `strict`, if anything they promise is missing."""
    if annotations is not None and report.splits and not report.labelled:
        raise SourceError(f"{annotations}: labels none of the packed shots; give the annotations of these films")
    if strict and not report.splits:
        raise SourceError(f"{uri}: not finished; --strict needs annotations, and there are none: give --annotations")
    if strict and (faults := report.faults()):
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise SourceError(f"{uri}: not finished; {faults[0]}{more}; add what is missing, or run this without --strict")
