"""Key-frames -> shards: bytes are copied and checked, and decoded only if asked.

Films are packed side by side, each into `.pack/<film>.tar.tmp` that is moved to its place when whole; what is known of
a finished film is kept under `.pack/` until all are done. A pack stopped at any moment goes on where it was and ends
with the same bytes; a film whose key-frames changed meanwhile is packed again, one that is gone is taken out. The
manifest comes last: without it nothing downstream opens the folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import multiprocessing
import os
import signal
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from . import format as fmt
from . import movienet
from .errors import ShardError, SourceError
from .jpeg import decode_fault, picture_size
from .place import Place, open_place
from .remote import is_remote
from .sources import Buffer, Keyframe, SourceFilm, open_source
from .sources import annotations as annotations_folder

_PIECE = 1 << 20  # bytes written at a time
_WORTH_PROCESSES = 2.0  # seconds of work that processes, which take half a second to start, are started for


class _Job(NamedTuple):
    """How to pack: decode every key-frame, and read again what is done already."""

    decode: bool = False
    recheck: bool = False


@dataclass(frozen=True)
class PackedFilm:
    """What the index needs to know of one finished shard."""

    name: str
    source: str  # fingerprint of the key-frame files
    bytes: int
    sha256: str
    size: tuple[int, int]  # height, width
    shots: np.ndarray  # [S] shot numbers
    frames: np.ndarray  # [S, K] of FRAME

    def note(self) -> bytes:
        """The fields as the bytes of a file that `load` reads."""
        buffer = io.BytesIO()
        facts = json.dumps({"source": self.source, "bytes": self.bytes, "sha256": self.sha256, "size": self.size})
        np.savez(buffer, facts=np.array(facts), shots=self.shots, frames=self.frames)
        return buffer.getvalue()

    @classmethod
    def load(cls, name: str, note: bytes) -> PackedFilm | None:
        """What `note` made; None where that is damaged, which only costs packing the film again."""
        try:
            with np.load(io.BytesIO(note), allow_pickle=False) as saved:
                facts = json.loads(str(saved["facts"]))
                facts["size"] = tuple(facts["size"])
                return cls(name, **facts, shots=saved["shots"], frames=saved["frames"])
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
            return None


class ShardWriter:
    """Writes one film's tar. Writing and sha256 have a thread of their own, as neither needs Python's lock.

    Leaving the context deletes the file, unless somebody moved it away before.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self._file, self._digest = open(path, "wb", buffering=0), hashlib.sha256()  # noqa: SIM115 (see __exit__)
        self._thread, self._under_way = ThreadPoolExecutor(1), None
        self._parts, self._written = [], 0
        self._rows: list[tuple[int, int, int]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._file.close()
        self.path.unlink(missing_ok=True)

    def add(self, member: str, data: Buffer) -> None:
        """Append a member; it is written beside what the caller does next."""
        size = len(data)
        header, filling = fmt.tar_header(member, size), fmt.padding(size)
        start = self.bytes + len(header)
        self._rows.append((start, size, zlib.crc32(data)))
        self._parts += (header, data, filling)
        self.bytes = start + size + len(filling)
        if self.bytes - self._written > _PIECE:
            self._hand_over()

    def end(self) -> None:
        """No member comes any more."""
        self._parts.append(fmt.END_OF_TAR)
        self.bytes += len(fmt.END_OF_TAR)
        self._hand_over()

    def settle(self) -> tuple[np.ndarray, str]:
        """Return when all is on disk: rows `[F]` of FRAME, and the sha256 of the file."""
        self._under_way.result()
        os.fsync(self._file.fileno())
        return np.array(self._rows, fmt.FRAME), self._digest.hexdigest()

    def _hand_over(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
        self._under_way = self._thread.submit(self._write, self._parts)
        self._parts, self._written = [], self.bytes

    def _write(self, parts: list[Buffer]) -> None:
        # One piece: a thread that takes Python's lock for every part is in the reader's way.
        piece = memoryview(b"".join(parts))
        self._digest.update(piece)
        while piece:
            piece = piece[self._file.write(piece) :]


def copy_keyframes(
    film: str, shots: np.ndarray, keyframes: list[list[Keyframe]], writer: ShardWriter, decode: bool = False
) -> tuple[int, int]:
    """Hand all key-frames of a film to `writer`; returns their size (height, width).

    Raises:
        SourceError: a key-frame cannot be read, is empty, truncated, no JPEG, or of another size than the film's first.
    """
    size = None
    for shot, images in zip(shots.tolist(), keyframes, strict=True):
        for k, image in enumerate(images):
            data = image.read()
            found = picture_size(data, image.name)
            size = size or found
            if found != size:
                raise SourceError(
                    f"{image.name}: {found[1]}x{found[0]} pixels where the film has {size[1]}x{size[0]}; "
                    "extract its key-frames again at one size"
                )
            if decode and (fault := decode_fault(data)):
                raise SourceError(f"{image.name}: cannot be decoded ({fault}); extract this key-frame again")
            writer.add(fmt.member_name(film, shot, k), data)
    writer.end()
    return size


def begin_film(film: SourceFilm, place: Place, job: _Job = _Job()) -> Callable[[], PackedFilm]:  # noqa: B008 (frozen)
    """Read one film, or see that an earlier run finished it.

    Returns:
        What brings it to disk and to its place in `place`; the next film may be read meanwhile.

    The note under `.pack/` comes before the shard, so a shard without one is somebody else's and left alone; it comes
    after the shard's bytes are on disk, so it vouches for them even if the machine fails.
    """
    tar, idx, part = f"{film.name}.tar", f"{film.name}.idx", note_name(film.name)
    scan = film.scan()
    if (size := place.size(tar)) is not None:
        note = place.read(part)
        if note is None:
            raise ShardError(
                f"{place.uri}/{tar}: not of this pack, so it is not written over; choose another folder or move it away"
            )
        done = PackedFilm.load(film.name, note)
        whole = done and done.source == scan.fingerprint and place.size(idx) is not None and size == done.bytes
        if whole and (not job.recheck or place.sha256(tar) == done.sha256):
            return lambda: done
        place.delete(tar)
    with ExitStack() as stack:
        writer = stack.enter_context(ShardWriter(place.scratch() / f"{film.name}.tar.tmp"))
        shots, keyframes = scan.keyframes()
        picture = copy_keyframes(film.name, shots, keyframes, writer, job.decode)
        ending = stack.pop_all()

    def finish() -> PackedFilm:
        with ending:
            rows, sha256 = writer.settle()
            frames = rows.reshape(len(shots), -1)
            packed = PackedFilm(film.name, scan.fingerprint, writer.bytes, sha256, picture, shots, frames)
            place.write(part, packed.note())
            place.write(idx, fmt.idx_text(film.name, shots, frames).encode())
            place.take(writer.path, tar)
        return packed

    return finish


def note_name(film: str) -> str:
    """What is known of a finished film, until all are done."""
    return f"{fmt.PARTS}/{film}.npz"


def _take_out_gone(place: Place, films: set[str]) -> None:
    """Remove what an earlier, stopped run packed of films that are no longer in the source."""
    for part in place.names(fmt.PARTS):
        if part.endswith(".npz") and (film := part.removesuffix(".npz")) not in films:
            for name in (f"{film}.tar", f"{film}.idx", f"{film}.idx.tmp", note_name(film)):
                place.delete(name)


def refuse_finished(place: Place) -> None:
    """Raises: ShardError if `place` holds a finished set."""
    if place.size(fmt.MANIFEST) is not None:
        raise ShardError(
            f"{place.uri}: already holds a finished set of shards; choose another folder or delete this one"
        )


@contextmanager
def _writing(place: Place) -> Iterator[None]:
    """Hold `place` for this process alone, and say plainly why it cannot be written.

    Raises:
        ShardError: a finished set, another pack at work there, a full disk, no permission.
    """

    try:
        refuse_finished(place)
        with place.writing():
            refuse_finished(place)
            yield
    except OSError as error:
        raise ShardError(
            f"{error.filename or place.uri}: {error.strerror or error}; mend this and run the same command again, "
            "it goes on where it stopped"
        ) from error


def write_index(place: Place, films: list[PackedFilm], labels: list[movienet.ShotLabels]) -> None:
    """Join what is known of all films, in order of name, into the index; the manifest last."""
    names = [film.name.encode() for film in films]
    sequences = np.zeros(len(films), fmt.sequence_dtype(names))
    first_frame = first_shot = 0
    for i, (film, known) in enumerate(zip(films, labels, strict=True)):
        shots, per_shot = film.frames.shape
        sequences[i] = (names[i], known.split.encode(), i, first_frame, first_shot, shots, per_shot, *film.size)
        first_frame, first_shot = first_frame + shots * per_shot, first_shot + shots
    shots = np.empty(first_shot, fmt.SHOT)
    for column in fmt.SHOT.names:
        shots[column] = np.concatenate([getattr(known, column) for known in labels])
    frames = np.concatenate([film.frames.ravel() for film in films])
    index = {}
    for name, array in ((fmt.FRAMES, frames), (fmt.SEQUENCES, sequences), (fmt.SHOTS, shots)):
        data = fmt.npy_bytes(array)
        index[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        place.write(name, data)
    manifest = {
        "version": fmt.VERSION,
        "kind": fmt.KIND,
        "index": index,
        "shards": [
            {"name": f"{film.name}.tar", "bytes": film.bytes, "sha256": film.sha256, "frames": film.frames.size}
            for film in films
        ],
    }
    place.settle()  # the manifest vouches for the shards, so it must not outlive one of them
    place.write(fmt.MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    place.settle()  # notes, which vouch for the shards until now, go next


def pack(
    source: str | Path,
    dst: str | Path,
    workers: int = 2,
    progress: bool | None = None,
    annotations: str | Path | None = None,
    check: str = "header",
    recheck: bool = False,
) -> dict[str, list[range]]:
    """Pack every film of a source into `dst`; see the module's docstring for what a stop leaves behind.

    Args:
        source: key-frame folder, zip of per-film tars or folder of per-film tars, here or behind an address; see
            `sources.open_source`.
        dst: folder or address for the shards; made if missing.
        workers: films packed at a time; by processes if it is long work, so a script that calls this must be guarded
            by `if __name__ == "__main__"`.
        progress: show a bar; None shows one on a terminal.
        annotations: folder that holds `anno/` and `scene318/`; by default the source, or the folder the zip lies in.
        check: "header" looks at the ends of each JPEG and its size, "decode" decodes it.
        recheck: read again what an earlier, stopped run finished, instead of trusting its notes.

    Returns:
        Film -> shot numbers that its key-frames leave out, where there are any.

    Raises:
        SourceError: the source is not in the layout, or a key-frame is missing or broken.
        ShardError: `dst` already holds a finished set or other tars, lies among the film folders, or cannot be written.
        RemoteError: an address cannot be read or written.
    """
    films, place = open_source(source), open_place(dst)
    if not is_remote(source) and not is_remote(dst) and Path(source).is_dir():
        frames_dir = movienet.frames_dir(Path(source))
        if Path(dst).resolve().is_relative_to(frames_dir.resolve()):
            raise ShardError(f"{dst}: lies among the film folders of {frames_dir}; choose a folder outside it")
    with annotations_folder(source, annotations) as folder:
        labels = movienet.read_labels(folder)
        with _writing(place):
            packed = _pack_films(source, place, films, _Job(check == "decode", recheck), workers, progress)
            _take_out_gone(place, {film.name for film in packed})
            known = [movienet.labels_of_film(folder, film.name, film.shots, labels) for film in packed]
            write_index(place, packed, known)
    place.clear()
    return {film.name: found for film in packed if (found := gaps(film.shots))}


def gaps(shots: np.ndarray) -> list[range]:
    """Runs of numbers that rising shot numbers `[S]` leave out, from shot 0 on."""
    before = np.concatenate([[-1], shots[:-1]])
    return [range(int(b) + 1, int(s)) for b, s in zip(before, shots, strict=True) if s > b + 1]


def _pack_films(
    source: str | Path, place: Place, films: list[SourceFilm], job: _Job, workers: int, progress: bool | None
) -> list[PackedFilm]:
    """Pack films side by side; the first that fails stops those not yet begun."""
    packed: list[Future[PackedFilm]] = []
    # tqdm reads disable=None as "only on a terminal".
    quiet = None if progress is None else not progress
    with tqdm(total=len(films), desc="pack", unit="film", disable=quiet) as bar, ThreadPoolExecutor(1) as finisher:
        started = time.monotonic()
        while len(packed) < len(films):
            left = len(films) - len(packed)
            spent = time.monotonic() - started
            if workers > 1 and packed and left * spent / len(packed) > _WORTH_PROCESSES:
                rest = [film.name for film in films[len(packed) :]]
                packed += _side_by_side(source, place, rest, job, min(workers, left), bar)
            else:
                packed.append(finisher.submit(begin_film(films[len(packed)], place, job)))
                bar.update()
                for before in packed[-2:-1]:
                    before.result()
    return [film.result() for film in packed]


def _side_by_side(
    source: str | Path, place: Place, names: list[str], job: _Job, workers: int, bar: tqdm
) -> list[Future[PackedFilm]]:
    """Processes, since a thread that copies small files spends half its time holding Python's lock."""
    context = multiprocessing.get_context("spawn")
    arguments = (str(source), place.uri, job, os.getpid())
    with ProcessPoolExecutor(workers, context, _begin_work, arguments) as pool:
        # Ctrl-C is this process's to answer: the workers inherit the mask.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        jobs = [pool.submit(_work, name) for name in names]
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            for done in as_completed(jobs):
                done.result()
                bar.update()
        except BrokenProcessPool:
            raise ShardError(
                f"{place.uri}: a worker died, perhaps for want of memory; run this again with fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return jobs


_working: tuple[dict[str, SourceFilm], Place, _Job]  # in a worker process: what it works on


def _begin_work(source: str, dst: str, job: _Job, parent: int) -> None:
    """Begin a worker: it keeps other packs away too, and dies with its own, whatever kills that."""
    global _working
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    place = open_place(dst)
    place.join()
    _working = {film.name: film for film in open_source(source)}, place, job


def _work(name: str) -> PackedFilm:
    films, place, job = _working
    return begin_film(films[name], place, job)()
