"""Every byte of a set accounted for: what is cut, changed, missing or foreign, by shard, member and offset.

The manifest vouches for the index arrays and, by sha256, for every shard; the index for every picture, by crc32. A
shard whose sha256 is right is as it was packed; one whose sha256 is wrong is gone through member by member. Repair
turns the set back into a stopped pack, of which the healthy shards are finished, and lets `pack` go on.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np

from shard_tools.errors import BasslFastError, RemoteError, ShardError
from shard_tools.progress import Progress
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.jpeg import any_picture_size, decode_fault
from shard_tools.shards.shard import open_shard
from shard_tools.sources.detect import Reading, open_layout
from shard_tools.sources.source import SourceShard
from shard_tools.storage.output import LocalPlace
from shard_tools.storage.remote import absolute, is_remote, sizes
from shard_tools.storage.untrusted import parse_json

from .pack import Each, note_name, pack
from .writer import PackedShard, sequence_rows

Decode = Literal["none", "sample", "all"]
SAMPLE = 100  # one picture of so many, and at least one a shard
_BLOCK = 4 << 20


def verify(
    root: str | Path,
    decode: Decode = "sample",
    workers: int = 2,
    progress: Progress | None = None,
    each: Each | None = None,
) -> list[str]:
    """A line for every fault of a set of shards; none if all of it is whole.

    Args:
        root: folder or address.
        decode: which pictures are decoded too.
        workers: shards read at a time.
        progress: counts bytes.
        each: as of `pack`, called with the numbers of the shards; `workers` threads if left out.

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
    facts = parse_json((index.root / fmt.MANIFEST).read_text(encoding="utf-8"))["index"][fmt.FRAMES]
    if _sha256(index.root / fmt.FRAMES, progress) != facts["sha256"]:
        faults.append(f"{index.address}/{fmt.FRAMES}: differs from {fmt.MANIFEST}; copy it again or repair")
    faults += _foreign(index)
    shards = [shard for shard in range(len(index.shards)) if f"{index.address}/{_tar(index, shard)}" not in broken]
    if each is None:
        with ThreadPoolExecutor(workers) as pool:
            of_shards = pool.map(lambda shard: list(shard_faults(index, shard, decode, progress)), shards)
            found = dict(zip(shards, of_shards, strict=True))
    else:
        found, task = {}, partial(_faults_anywhere, absolute(root), uuid4().hex, decode)
        for shard, of_shard, read in each(task, shards, lambda shard: _tar(index, shard)):
            found[shard] = of_shard
            if progress:
                progress(read)
    faults += chain.from_iterable(found[shard] for shard in shards)
    # What is cut is gone through too: the first picture that is not whole says where.
    for shard in range(len(index.shards)):
        if shard not in shards and index.cache is None and (index.root / _tar(index, shard)).is_file():
            faults += _member_faults(index, shard, np.fromfile(index.root / _tar(index, shard), np.uint8))[:1]
    return faults


def _faults_anywhere(root: str, call: str, decode: Decode, shard: int) -> tuple[int, list[str], int]:
    """The shard, its faults and the bytes read, on any machine that sees `root`."""
    read: list[int] = []
    return shard, list(shard_faults(_opened(root, call), shard, decode, read.append)), sum(read)


@lru_cache(maxsize=1)
def _opened(root: str, call: str) -> ShardIndex:
    """The index at `root`, opened anew by every `call`: it may have been repaired since."""
    return ShardIndex.open(root, check_shards=False)


def shard_faults(index: ShardIndex, shard: int, decode: Decode, progress: Progress | None) -> Iterator[str]:
    """Faults of one shard: its bytes, its pictures, its `.idx`."""
    facts = index.shards[shard]
    where = f"{index.address}/{facts['name']}"
    try:
        opened = open_shard(index, shard)
    except BasslFastError as error:
        yield str(error)
        return
    data = opened.data
    digest = hashlib.sha256()
    for start in range(0, len(data), _BLOCK):
        digest.update(data[start : start + _BLOCK])
        if progress:
            progress(min(_BLOCK, len(data) - start))
    changed = digest.hexdigest() != facts["sha256"]
    found = _member_faults(index, shard, data) if changed else _crc_faults(index, shard, data)
    yield from found
    if changed and not found:
        yield f"{where}: sha256 differs from {fmt.MANIFEST} though every member is whole; copy it again or repair"
    if not found and decode != "none":
        yield from _decode_faults(index, shard, data, 1 if decode == "all" else SAMPLE)
    _, rows = _frames(index, shard)
    places = zip(_names(index, shard), rows["offset"].tolist(), rows["size"].tolist(), strict=True)
    idx = Path(facts["name"]).with_suffix(".idx")
    if index.cache is None and _read(index.root / idx) != fmt.idx_text(places).encode():
        yield f"{index.address}/{idx}: missing, or not the index of {facts['name']}; repair"
    opened.close()


def repair(
    root: str | Path,
    source: str | Path,
    annotations: str | Path | None = None,
    workers: int = 2,
) -> None:
    """Pack again, from `source`, what is broken in the set at `root`; what is whole is not touched.

    A stop leaves a pack that is not done; `pack` from the same source goes on with it.

    Args:
        source, annotations: as of `pack`; how pictures and clips were read stands in the manifest.

    Raises:
        ShardError: `root` is remote or holds no manifest, or whole shards of it hold other pictures than the source.
        SourceError: as of `pack`.
    """
    if is_remote(root):
        raise ShardError(f"{root}: repair works on a folder of this machine; copy the set here, or pack it again")
    root, place = Path(root), LocalPlace(Path(root))
    if not (root / fmt.MANIFEST).is_file():  # whoever has none may have tars of his own there
        raise ShardError(f"{root / fmt.MANIFEST}: missing, so there is no set to repair; `bassl-fast pack` makes one")
    try:
        manifest = parse_json((root / fmt.MANIFEST).read_text(encoding="utf-8"))
        known = {shard["name"]: shard["sha256"] for shard in manifest["shards"]}
        reading = Reading(**manifest.get("reading", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known, reading = {}, None
    found = open_layout(source, annotations, reading or Reading(), workers)
    if found.kind != fmt.FILMS and reading is None:
        raise ShardError(f"{root / fmt.MANIFEST}: damaged, and it tells how {found.kind} were read; pack anew")

    def look(shard: SourceShard) -> PackedShard | None:
        """A shard that is whole, None for one to be packed again."""
        tar, scan = root / f"{shard.name}.tar", shard.scan()
        packed = _packed(shard.name, found.kind, scan.fingerprint, tar) if tar.is_file() else None
        if packed is None or known.get(tar.name) != packed.sha256:
            return None
        names = [sequence.name.encode() for sequence in scan.sequences()] if found.kind != fmt.FILMS else None
        if names not in (None, packed.sequences["name"].tolist()):
            raise ShardError(
                f"{tar}: holds other {found.kind} than {source} has; repair from what the set was packed from, or "
                "pack anew"
            )
        return packed

    def keep(shard: SourceShard, packed: PackedShard | None) -> None:
        """Leave the note of a finished shard behind, or what makes `pack` do it anew."""
        idx = packed.idx(found.kind) if packed else b""
        place.write(note_name(shard.name), packed.note() if packed else b"")
        if packed is None or _read(root / f"{shard.name}.idx") != idx:
            place.delete(f"{shard.name}.idx")

    with ThreadPoolExecutor(workers) as pool:
        for shard, packed in zip(found.shards, list(pool.map(look, found.shards)), strict=True):
            keep(shard, packed)
    place.delete(fmt.MANIFEST)
    pack(source, root, workers, annotations=annotations, reading=reading or Reading())


_MEMBERS = {
    fmt.FILMS: re.compile(r"(?P<name>.*)/shot_(?P<shot>[0-9]+)\.(?P<image>[0-9]+)\.jpg", re.DOTALL),
    fmt.PICTURES: re.compile(r"(?P<name>.*)\.jpg(?P<shot>)(?P<image>)", re.DOTALL),
    fmt.CLIPS: re.compile(r"(?P<name>.*)/frame\.(?P<shot>)(?P<image>[0-9]+)\.jpg", re.DOTALL),
}


def _packed(name: str, kind: str, fingerprint: str, path: Path) -> PackedShard | None:
    """What a finished tar of ours says about itself; None if it is not one."""
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    counts: dict[str, dict[int, int]] = {}  # images of every shot of every sequence
    sizes: list[tuple[int, int]] = []
    frames: list[tuple[int, int, int]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                parts = _MEMBERS[kind].fullmatch(member.name)
                shots = counts.setdefault(parts["name"], {})
                picture = data[member.offset_data : member.offset_data + member.size]
                if not shots:
                    sizes.append(any_picture_size(picture.tobytes(), str(path), "repair"))
                shot = int(parts["shot"] or 0)
                if int(parts["image"] or 0) != shots.setdefault(shot, 0):
                    return None
                shots[shot] += 1
                frames.append((member.offset_data, member.size, zlib.crc32(picture)))
        if any(len(set(shots.values())) > 1 for shots in counts.values()):
            return None
        rows = [
            (sequence.encode(), len(shots), next(iter(shots.values())), *size)
            for (sequence, shots), size in zip(counts.items(), sizes, strict=True)
        ]
        sequences = sequence_rows(rows)
    except (tarfile.TarError, ValueError, TypeError, BasslFastError, OSError):
        return None
    numbers = np.array([shot for shots in counts.values() for shot in shots], np.int64)
    sha256 = hashlib.sha256(data).hexdigest()
    return PackedShard(name, fingerprint, len(data), sha256, sequences, numbers, np.array(frames, fmt.FRAME))


def _tar(index: ShardIndex, shard: int) -> str:
    return index.shards[shard]["name"]


def _sequences(index: ShardIndex, shard: int) -> np.ndarray:
    """Rows of `sequences.npy` of one shard."""
    first, end = np.searchsorted(index.sequences["shard"], [shard, shard + 1])
    return index.sequences[first:end]


def _frames(index: ShardIndex, shard: int) -> tuple[int, np.ndarray]:
    """The first row of `frames.npy` of one shard, and all its rows `[F]`."""
    first = int(_sequences(index, shard)[0]["first_frame"])
    return first, index.frames[first : first + index.shards[shard]["frames"]]


def _names(index: ShardIndex, shard: int) -> Iterator[str]:
    """Names of the members of one shard, in order."""
    rows = _sequences(index, shard)
    first, last = rows[0], rows[-1]
    shots = index.shots["shot"][int(first["first_shot"]) : int(last["first_shot"]) + int(last["shots"])]
    return fmt.member_names(index.kind, rows, shots)


def _crc_faults(index: ShardIndex, shard: int, data: np.ndarray) -> list[str]:
    found, (first, rows) = [], _frames(index, shard)
    starts, lengths = rows["offset"].tolist(), rows["size"].tolist()
    for i, (start, size, crc) in enumerate(zip(starts, lengths, rows["crc32"].tolist(), strict=True)):
        if zlib.crc32(data[start : start + size]) != crc:
            found.append(_line(index, first + i, "differs from the index (crc32); the index is of another shard"))
    return found


def _member_faults(index: ShardIndex, shard: int, data: np.ndarray) -> list[str]:
    """Go through a shard member by member: header, bytes and padding of each as they were packed."""
    found, end, (first, rows) = [], 0, _frames(index, shard)
    for i, (row, member) in enumerate(zip(rows, _names(index, shard), strict=True)):
        start, size = int(row["offset"]), int(row["size"])
        stop = start + size
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
            f"{index.address}/{_tar(index, shard)}: its end, from byte {end} on, differs; copy it again or repair"
        )
    return found


def _decode_faults(index: ShardIndex, shard: int, data: np.ndarray, every: int) -> list[str]:
    found, (first, rows) = [], _frames(index, shard)
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
    tars = {shard["name"] for shard in index.shards}
    mine = tars | {str(Path(tar).with_suffix(".idx")) for tar in tars}
    there = sizes(index.address) or () if index.cache else os.listdir(index.root)
    return [
        f"{index.address}/{name}: not of this set; move it away"
        for name in sorted(there)
        if name.endswith((".tar", ".idx", ".tmp")) and name not in mine
    ]


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sha256(path: Path, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
