"""Key-frame folder -> shards: bytes are copied and checked, never decoded.

Films are packed side by side, each into `<film>.tar.tmp` that is renamed when whole; what is known of a finished film
is kept under `.pack/` until all are done. A pack that was stopped at any moment goes on where it was and ends with the
same bytes. The manifest comes last: without it nothing downstream opens the folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
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
    bytes: int
    sha256: str
    size: tuple[int, int]  # height, width
    shots: np.ndarray  # [S] shot numbers
    frames: np.ndarray  # [S, K] of FRAME

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        facts = json.dumps({"bytes": self.bytes, "sha256": self.sha256, "size": self.size})
        np.savez(buffer, facts=np.array(facts), shots=self.shots, frames=self.frames)
        fmt.write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, name: str, path: Path) -> PackedFilm:
        with np.load(path, allow_pickle=False) as saved:
            facts = json.loads(str(saved["facts"]))
            return cls(name, facts["bytes"], facts["sha256"], tuple(facts["size"]), saved["shots"], saved["frames"])


def write_shard(path: Path, film: str, shots: np.ndarray, files: list[list[Path]]) -> tuple[np.ndarray, str, tuple]:
    """Write one film's tar: returns its frame rows `[S, K]`, sha256 and picture size (height, width).

    Raises:
        SourceError: a key-frame is empty, truncated, no JPEG, or of another size than the film's first.
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
                data = image.read_bytes()
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
    """Pack one film into `dst`, or take it as it stands if an earlier run finished it."""
    name, part = film_dir.name, dst / _PARTS / f"{film_dir.name}.npz"
    tar = dst / f"{name}.tar"
    if part.is_file():
        done = PackedFilm.load(name, part)
        if tar.is_file() and tar.stat().st_size == done.bytes:
            return done
    shots, files = movienet.list_keyframes(film_dir)
    tmp = tar.with_name(tar.name + ".tmp")
    try:
        frames, sha256, size = write_shard(tmp, name, shots, files)
        packed = PackedFilm(name, tmp.stat().st_size, sha256, size, shots, frames)
        os.replace(tmp, tar)
    finally:
        tmp.unlink(missing_ok=True)
    fmt.write_atomically(dst / f"{name}.idx", fmt.idx_text(name, shots, frames).encode())
    packed.save(part)
    return packed


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
    for name, array in ((fmt.FRAMES, frames), (fmt.SEQUENCES, sequences), (fmt.SHOTS, shots)):
        fmt.write_atomically(dst / name, fmt.npy_bytes(array))
    manifest = {
        "version": fmt.VERSION,
        "kind": "films",
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
        ShardError: `dst` already holds a finished set.
    """
    source, dst = Path(source), Path(dst)
    frames_dir = movienet.find_frames_dir(source)
    if (dst / fmt.MANIFEST).exists():
        raise ShardError(f"{dst}: already holds a finished set of shards; choose another folder or delete this one")
    annotations = movienet.read_labels(source)
    film_dirs = sorted(child for child in frames_dir.iterdir() if child.is_dir())
    (dst / _PARTS).mkdir(parents=True, exist_ok=True)
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
    films = [job.result() for job in jobs]
    write_index(dst, films, [movienet.labels_of_film(source, film.name, film.shots, annotations) for film in films])
    shutil.rmtree(dst / _PARTS)
