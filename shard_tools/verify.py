"""Every byte of a set accounted for: what is cut, changed, missing or foreign, by film, shot and offset.

The manifest vouches for the index arrays and, by sha256, for every shard; the index for every key-frame, by crc32. A
shard whose sha256 is right is as it was packed; one whose sha256 is wrong is gone through member by member. Repair
turns the set back into a stopped pack, of which the healthy shards are finished, and lets `pack` go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from . import format as fmt
from .cache import OpenShard
from .errors import BasslFastError, RemoteError, ShardError
from .format import ShardIndex
from .jpeg import decode_fault, picture_size
from .pack import PackedFilm, note_name, pack
from .place import LocalPlace
from .remote import is_remote, sizes
from .sources import open_source

Decode = Literal["none", "sample", "all"]
SAMPLE = 100  # one key-frame of so many, and at least one a film
_BLOCK = 4 << 20


def verify(
    root: str | Path,
    decode: Decode = "sample",
    workers: int = 2,
    progress: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """A line for every fault of a set of shards; none if all of it is whole.

    Args:
        root: folder or address.
        decode: which key-frames are decoded too.
        workers: shards read at a time.
        progress: called with the bytes read since the last call, as `tqdm.update`.

    Raises:
        RemoteError: an address cannot be reached.
    """
    try:
        index = ShardIndex.open(root, check_shards=False)
    except RemoteError:
        raise
    except BasslFastError as error:
        return [str(error)]
    faults = list(index.shard_faults())
    broken = {fault.split(": ")[0] for fault in faults}
    facts = json.loads((index.root / fmt.MANIFEST).read_text(encoding="utf-8"))["index"][fmt.FRAMES]
    if _sha256(index.root / fmt.FRAMES, progress) != facts["sha256"]:
        faults.append(f"{index.address}/{fmt.FRAMES}: differs from {fmt.MANIFEST}; copy it again or repair")
    faults += _foreign(index)
    films = [film for film in range(len(index.films)) if f"{index.address}/{_tar(index, film)}" not in broken]
    with ThreadPoolExecutor(workers) as pool:
        for found in pool.map(lambda film: list(film_faults(index, film, decode, progress)), films):
            faults += found
    # What is cut is gone through too: the first key-frame that is not whole says where.
    for film in range(len(index.films)):
        if film not in films and index.cache is None and (index.root / _tar(index, film)).is_file():
            faults += _member_faults(index, film, np.fromfile(index.root / _tar(index, film), np.uint8))[:1]
    return faults


def film_faults(index: ShardIndex, film: int, decode: Decode, progress: Callable[[int], object]) -> Iterator[str]:
    """Faults of one film: its shard, its key-frames, its `.idx`."""
    tar = _tar(index, film)
    where, facts = f"{index.address}/{tar}", index.shards[int(index.sequences[film]["shard"])]
    try:
        shard = _open(index, film)
    except BasslFastError as error:
        yield str(error)
        return
    data = shard.data
    digest = hashlib.sha256()
    for start in range(0, len(data), _BLOCK):
        digest.update(data[start : start + _BLOCK])
        progress(min(_BLOCK, len(data) - start))
    changed = digest.hexdigest() != facts["sha256"]
    found = _member_faults(index, film, data) if changed else _crc_faults(index, film, data)
    yield from found
    if changed and not found:
        yield f"{where}: sha256 differs from {fmt.MANIFEST} though every member is whole; copy it again or repair"
    if not found and decode != "none":
        yield from _decode_faults(index, film, data, 1 if decode == "all" else SAMPLE)
    expected = fmt.idx_text(index.films[film], index.shots_of(film)["shot"], _frames(index, film)).encode()
    if index.cache is None and _read(index.root / f"{index.films[film]}.idx") != expected:
        yield f"{index.address}/{index.films[film]}.idx: missing, or not the index of {tar}; repair"
    shard.close()


def repair(root: str | Path, source: str | Path, annotations: str | Path | None = None, workers: int = 2) -> None:
    """Pack again, from `source`, what is broken in the set at `root`; what is whole is not touched.

    A stop leaves a pack that is not done; `pack` from the same source goes on with it.

    Raises:
        ShardError: `root` is remote or holds no manifest.
        SourceError: as of `pack`.
    """
    if is_remote(root):
        raise ShardError(f"{root}: repair works on a folder of this machine; copy the set here, or pack it again")
    root, place = Path(root), LocalPlace(Path(root))
    if not (root / fmt.MANIFEST).is_file():  # whoever has none may have tars of his own there
        raise ShardError(f"{root / fmt.MANIFEST}: missing, so there is no set to repair; `bassl-fast pack` makes one")
    try:
        shards = json.loads((root / fmt.MANIFEST).read_text(encoding="utf-8"))["shards"]
        known = {shard["name"]: shard["sha256"] for shard in shards}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    films = open_source(source)

    def keep(film) -> None:
        """Leave the note of a finished film behind, or what makes `pack` do it anew."""
        tar = root / f"{film.name}.tar"
        packed = _packed(film.name, film.scan().fingerprint, tar) if tar.is_file() else None
        whole = packed is not None and known.get(tar.name) == packed.sha256
        place.write(note_name(film.name), packed.note() if whole else b"")
        expected = fmt.idx_text(packed.name, packed.shots, packed.frames).encode() if whole else b""
        if not whole or _read(tar.with_suffix(".idx")) != expected:
            place.delete(f"{film.name}.idx")

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(keep, films))
    place.delete(fmt.MANIFEST)
    pack(source, root, workers, annotations=annotations)


def _packed(name: str, fingerprint: str, path: Path) -> PackedFilm | None:
    """What a finished tar of ours says about itself; None if it is not one."""
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    shots: dict[int, list[tuple[int, int, int]]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                _, shot, image = member.name.rsplit("/", 1)[1].removesuffix(".jpg").replace("_", ".").split(".")
                if int(image) != len(shots.setdefault(int(shot), [])):
                    return None
                jpeg = data[member.offset_data : member.offset_data + member.size]
                shots[int(shot)].append((member.offset_data, member.size, zlib.crc32(jpeg)))
        first = next(iter(shots.values()))[0]
        size = picture_size(data[first[0] : first[0] + first[1]].tobytes(), str(path))
        frames = np.array([[tuple(image) for image in images] for images in shots.values()], fmt.FRAME)
    except (tarfile.TarError, ValueError, StopIteration, BasslFastError, OSError):
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    return PackedFilm(name, fingerprint, len(data), sha256, size, np.array(list(shots), np.int64), frames)


def _tar(index: ShardIndex, film: int) -> str:
    return index.shards[int(index.sequences[film]["shard"])]["name"]


def _open(index: ShardIndex, film: int) -> OpenShard:
    facts = index.shards[int(index.sequences[film]["shard"])]
    if index.cache is not None:
        return index.cache.open(index.address, facts)
    return OpenShard(np.memmap(index.root / facts["name"], np.uint8, mode="r"))


def _frames(index: ShardIndex, film: int) -> np.ndarray:
    """Rows `[S, K]` of `frames.npy`."""
    row = index.sequences[film]
    first, per_shot = int(row["first_frame"]), int(row["frames_per_shot"])
    return index.frames[first : first + int(row["shots"]) * per_shot].reshape(-1, per_shot)


def _crc_faults(index: ShardIndex, film: int, data: np.ndarray) -> list[str]:
    rows = _frames(index, film).ravel()
    first, found = int(index.sequences[film]["first_frame"]), []
    starts, lengths = rows["offset"].tolist(), rows["size"].tolist()
    for i, (start, size, crc) in enumerate(zip(starts, lengths, rows["crc32"].tolist(), strict=True)):
        if zlib.crc32(data[start : start + size]) != crc:
            found.append(_line(index, first + i, "differs from the index (crc32); the index is of another shard"))
    return found


def _member_faults(index: ShardIndex, film: int, data: np.ndarray) -> list[str]:
    """Go through a shard member by member: header, bytes and padding of each as they were packed."""
    first, found, end = int(index.sequences[film]["first_frame"]), [], 0
    for i, row in enumerate(_frames(index, film).ravel()):
        start, size = int(row["offset"]), int(row["size"])
        stop = start + size
        _, member, _ = index.locate(first + i)
        end = stop + len(fmt.padding(size))
        if stop > len(data):
            found.append(_line(index, first + i, f"cut off, the shard ends at byte {len(data)}"))
        elif zlib.crc32(data[start:stop]) != row["crc32"]:
            found.append(_line(index, first + i, "bytes differ from the index (crc32)"))
        elif data[start - tarfile.BLOCKSIZE : start].tobytes() != fmt.tar_header(member, size):
            found.append(_line(index, first + i, "its tar header differs"))
        elif data[stop:end].any() or end > len(data):
            found.append(_line(index, first + i, "the padding after it differs"))
    if not found and data[end:].tobytes() != fmt.END_OF_TAR:
        found.append(
            f"{index.address}/{_tar(index, film)}: its end, from byte {end} on, differs; copy it again or repair"
        )
    return found


def _decode_faults(index: ShardIndex, film: int, data: np.ndarray, every: int) -> list[str]:
    rows, first, found = _frames(index, film).ravel(), int(index.sequences[film]["first_frame"]), []
    for i in range(0, len(rows), every):
        start, size = int(rows[i]["offset"]), int(rows[i]["size"])
        if fault := decode_fault(data[start : start + size].tobytes()):
            found.append(_line(index, first + i, f"cannot be decoded ({fault})"))
    return found


def _line(index: ShardIndex, frame: int, fault: str) -> str:
    shard, member, offset = index.locate(frame)
    return f"{shard}: {member} at byte {offset}: {fault}; copy the shard again or repair"


def _foreign(index: ShardIndex) -> list[str]:
    """Files in the folder that look like shards and are none of this set."""
    mine = {shard["name"] for shard in index.shards} | {f"{film}.idx" for film in index.films}
    there = sizes(index.address) or () if index.cache else os.listdir(index.root)
    return [
        f"{index.address}/{name}: not of this set; move it away"
        for name in sorted(there)
        if name.endswith((".tar", ".idx", ".tmp")) and name not in mine
    ]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sha256(path: Path, progress: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()
