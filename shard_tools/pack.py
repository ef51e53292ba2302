"""Key-frame folder -> shards: bytes are copied and checked, never decoded.

Films are packed side by side, each into `.pack/<film>.tar.tmp` that is moved to its place when whole; what is known of
a finished film is kept under `.pack/` until all are done. A pack stopped at any moment goes on where it was and ends
with the same bytes; a film whose key-frames changed meanwhile is packed again, one that is gone is taken out. The
manifest comes last: without it nothing downstream opens the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import format as fmt
from . import movienet
from .errors import ShardError, SourceError
from .jpeg import picture_size

_PARTS = ".pack"


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

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        facts = json.dumps({"source": self.source, "bytes": self.bytes, "sha256": self.sha256, "size": self.size})
        np.savez(buffer, facts=np.array(facts), shots=self.shots, frames=self.frames)
        fmt.write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, name: str, path: Path) -> PackedFilm | None:
        """What `save` wrote; None where that is missing or damaged, which only costs packing the film again."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                facts = json.loads(str(saved["facts"]))
                facts["size"] = tuple(facts["size"])
                return cls(name, **facts, shots=saved["shots"], frames=saved["frames"])
        except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
            return None


def fingerprint(files: list[list[Path]]) -> str:
    """Digest of names, sizes and times of a film's key-frame files: equal means nobody touched them.

    Raises:
        SourceError: a file that cannot be looked at, such as a link that leads nowhere.
    """
    digest = hashlib.sha256()
    for path in (path for images in files for path in images):
        try:
            facts = path.stat()
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}; extract this key-frame again") from None
        digest.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def write_shard(path: Path, film: str, shots: np.ndarray, files: list[list[Path]]) -> tuple[np.ndarray, str, tuple]:
    """Write one film's tar: returns its frame rows `[S, K]`, sha256 and picture size (height, width).

    Raises:
        SourceError: a key-frame cannot be read, is empty, truncated, no JPEG, or of another size than the film's first.
    """
    frames = np.zeros((len(files), len(files[0])), fmt.FRAME)
    digest, offset, size = hashlib.sha256(), 0, None
    with open(path, "wb", buffering=1 << 20) as tar:

        def write(data: bytes) -> None:
            nonlocal offset
            tar.write(data)
            digest.update(data)
            offset += len(data)

        for s, images in enumerate(files):
            for k, image in enumerate(images):
                try:
                    data = image.read_bytes()
                except OSError as error:
                    raise SourceError(f"{image}: {error.strerror}; extract this key-frame again") from None
                found = picture_size(data, str(image))
                size = size or found
                if found != size:
                    raise SourceError(
                        f"{image}: {found[1]}x{found[0]} pixels where the film has {size[1]}x{size[0]}; "
                        "extract its key-frames again at one size"
                    )
                write(fmt.tar_header(fmt.member_name(film, int(shots[s]), k), len(data)))
                frames[s, k] = (offset, len(data), zlib.crc32(data))
                write(data + fmt.padding(len(data)))
        write(fmt.END_OF_TAR)
        tar.flush()
        os.fsync(tar.fileno())
    return frames, digest.hexdigest(), size


def pack_film(film_dir: Path, dst: Path) -> PackedFilm:
    """Pack one film into `dst`, or take it as it stands if an earlier run finished it.

    The note under `.pack/` comes before the shard, so a shard without one is somebody else's and left alone.
    """
    name = film_dir.name
    tar, idx, part, tmp = (dst / f"{name}.tar", dst / f"{name}.idx", *_part_files(dst, name))
    shots, files = movienet.list_keyframes(film_dir)
    source, done = fingerprint(files), PackedFilm.load(name, part)
    if tar.exists():
        if not part.exists():
            raise ShardError(
                f"{tar}: not of this pack, so it is not written over; choose another folder or move it away"
            )
        if done and done.source == source and idx.is_file() and tar.stat().st_size == done.bytes:
            return done
        tar.unlink()
    try:
        frames, sha256, size = write_shard(tmp, name, shots, files)
        packed = PackedFilm(name, source, tmp.stat().st_size, sha256, size, shots, frames)
        packed.save(part)
        fmt.write_atomically(idx, fmt.idx_text(name, shots, frames).encode())
        os.replace(tmp, tar)
    finally:
        tmp.unlink(missing_ok=True)
    return packed


def _part_files(dst: Path, film: str) -> tuple[Path, Path]:
    """(note of a finished film, its shard while written)."""
    return dst / _PARTS / f"{film}.npz", dst / _PARTS / f"{film}.tar.tmp"


def _take_out_gone(dst: Path, films: set[str]) -> None:
    """Remove what an earlier, stopped run packed of films that are no longer in the source."""
    for part in (dst / _PARTS).glob("*.npz"):
        if (film := part.name.removesuffix(".npz")) not in films:
            for path in (dst / f"{film}.tar", dst / f"{film}.idx", dst / f"{film}.idx.tmp", part):
                path.unlink(missing_ok=True)


@contextmanager
def _writing(dst: Path) -> Iterator[None]:
    """Hold `dst` for this process alone, and say plainly why it cannot be written.

    Raises:
        ShardError: a finished set, another pack at work there, a full disk, no permission.
    """

    def refuse_finished() -> None:
        if (dst / fmt.MANIFEST).exists():
            raise ShardError(f"{dst}: already holds a finished set of shards; choose another folder or delete this one")

    try:
        refuse_finished()
        (dst / _PARTS).mkdir(parents=True, exist_ok=True)
        with open(dst / _PARTS / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ShardError(f"{dst}: another pack is writing here; wait for it or choose another folder") from None
            except OSError:  # some network file systems have no locks
                pass
            refuse_finished()
            yield
    except OSError as error:
        raise ShardError(
            f"{error.filename or dst}: {error.strerror or error}; mend this and run the same command again, "
            "it goes on where it stopped"
        ) from error


def write_index(dst: Path, films: list[PackedFilm], labels: list[movienet.ShotLabels]) -> None:
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
        fmt.write_atomically(dst / name, data)
    manifest = {
        "version": fmt.VERSION,
        "kind": "films",
        "index": index,
        "shards": [
            {"name": f"{film.name}.tar", "bytes": film.bytes, "sha256": film.sha256, "frames": film.frames.size}
            for film in films
        ],
    }
    fmt.write_atomically(dst / fmt.MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def pack(source: str | Path, dst: str | Path, workers: int = 2, progress: bool | None = None) -> None:
    """Pack every film of a key-frame folder into `dst`; see the module's docstring for what a stop leaves behind.

    Args:
        source: folder with `240P_frames/<film>/` (and `anno/`, `scene318/` where there are labels), or the
            folder of film folders itself.
        dst: folder for the shards; made if missing.
        workers: films packed at a time.
        progress: show a bar; None shows one on a terminal.

    Raises:
        SourceError: the source is not in the layout, or a key-frame is missing or broken.
        ShardError: `dst` already holds a finished set or other tars, lies among the film folders, or cannot be written.
    """
    source, dst = Path(source), Path(dst)
    frames_dir = movienet.find_frames_dir(source)
    if dst.resolve().is_relative_to(frames_dir.resolve()):
        raise ShardError(f"{dst}: lies among the film folders of {frames_dir}; choose a folder outside it")
    annotations = movienet.read_labels(source)
    film_dirs = movienet.list_films(frames_dir)
    with _writing(dst):
        films = _pack_films(film_dirs, dst, workers, progress)
        _take_out_gone(dst, {film.name for film in films})
        write_index(dst, films, [movienet.labels_of_film(source, film.name, film.shots, annotations) for film in films])
    shutil.rmtree(dst / _PARTS, ignore_errors=True)


def _pack_films(film_dirs: list[Path], dst: Path, workers: int, progress: bool | None) -> list[PackedFilm]:
    """Pack films side by side; the first that fails stops those not yet begun."""
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(pack_film, film, dst) for film in film_dirs]
        # tqdm reads disable=None as "only on a terminal".
        quiet = None if progress is None else not progress
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="pack", unit="film", disable=quiet):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [job.result() for job in jobs]
