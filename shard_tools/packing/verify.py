"""Verify every byte of a set: report what is cut, changed, missing or foreign by shard, member and offset.

The manifest holds the sha256 of the index arrays and of every shard, the index the crc32 of every picture. A shard with
the right sha256 is as it was packed; one with a wrong sha256 is checked member by member.

Of a set at an address everything is downloaded, a shard at a time, to a temporary file: its copies in the cache say
nothing about what is there now.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from shard_tools.errors import RemoteError, ShardError
from shard_tools.progress import Progress
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.jpeg import DECODED_AT_ONCE, Decoder, pillow_faults
from shard_tools.storage.output import PARTS
from shard_tools.storage.remote import absolute, attempt, child, fetch, filesystem, sizes
from shard_tools.storage.untrusted import parse_json

from .manifest import is_intact
from .workers import Each

Decode = Literal["none", "sample", "all"]
SAMPLE = 100  # "sample" decodes one picture in 100, and at least one per shard
_BLOCK = 4 << 20


def verify(
    root: str | Path,
    decode: Decode = "sample",
    workers: int = 2,
    progress: Progress | None = None,
    each: Each | None = None,
    decoder: Decoder = pillow_faults,
) -> list[str]:
    """One line for every fault of a set of shards; empty if the set is whole.

    Args:
        root: folder or address.
        decode: which pictures to decode as well.
        workers: shards read at a time.
        progress: counts bytes.
        each: see `pack`, called with the numbers of the shards; `workers` threads if None.
        decoder: for `decode`.

    Raises:
        RemoteError: an address cannot be reached.
        ShardError: no room for temporary files.
    """
    try:
        index = ShardIndex.open(root, check_shards=False)
    except ShardError as error:
        return [str(error)]
    faults = list(index.shard_faults())
    broken = {fault.split(": ")[0] for fault in faults}
    manifest = parse_json((index.root / fmt.MANIFEST).read_text(encoding="utf-8"))
    if not is_intact(manifest):
        faults.append(f"{index.address}/{fmt.MANIFEST}: changed since it was written; copy it again or repair")
    faults += _sure(index, lambda: _array_faults(index, manifest["index"], progress))
    faults += _foreign(index)
    shards = [shard for shard in range(len(index.shards)) if _address(index, shard) not in broken]
    if each is None:
        with ThreadPoolExecutor(workers) as pool:
            of_shards = pool.map(lambda shard: shard_faults(index, shard, decode, decoder, progress), shards)
            found = dict(zip(shards, of_shards, strict=True))
    else:
        found, task = {}, partial(_faults_anywhere, absolute(root), uuid4().hex, decode, decoder)
        for shard, of_shard, read in each(task, shards, lambda shard: _tar(index, shard)):
            found[shard] = of_shard
            if progress:
                progress(read)
    faults += chain.from_iterable(found[shard] for shard in shards)
    # A shard of the wrong size is checked too: its first broken picture shows where it was cut.
    for shard in range(len(index.shards)):
        if shard not in shards:
            with _local_file(index, _tar(index, shard)) as path:
                faults += [] if path is None else _member_faults(index, shard, _bytes(path))[:1]
    return faults


def _faults_anywhere(
    root: str, call: str, decode: Decode, decoder: Decoder, shard: int
) -> tuple[int, list[str], float]:
    """The shard, its faults and the bytes read, on any machine that can read `root`."""
    read: list[float] = []
    return shard, shard_faults(_opened(root, call), shard, decode, decoder, read.append), sum(read)


@lru_cache(maxsize=1)
def _opened(root: str, call: str) -> ShardIndex:
    """The index at `root`, opened again for every `call`, as it may have been repaired since."""
    return ShardIndex.open(root, check_shards=False)


def shard_faults(
    index: ShardIndex, shard: int, decode: Decode, decoder: Decoder, progress: Progress | None
) -> list[str]:
    """Faults of one shard: of its bytes, its pictures and its `.idx`."""
    try:
        return _sure(index, lambda: [*_tar_faults(index, shard, decode, decoder, progress), *_idx_faults(index, shard)])
    except RemoteError as error:
        return [str(error)]


def _sure(index: ShardIndex, faults: Callable[[], list[str]]) -> list[str]:
    """`faults()`; of an address once more if there are any, as a network may have spoilt what it sent."""
    found = faults()
    return faults() if found and index.cache is not None else found


def _array_faults(index: ShardIndex, expected: dict[str, Any], progress: Progress | None) -> list[str]:
    found = []
    for name in (fmt.FRAMES,) if index.cache is None else fmt.ARRAYS:  # the others of a local set are checked by `open`
        with _local_file(index, expected[name].get("file", name)) as path:
            if path is None:
                found.append(f"{index.address}/{name}: missing; copy it again or repair")
            elif _sha256(path, progress) != expected[name]["sha256"]:
                found.append(f"{index.address}/{name}: differs from {fmt.MANIFEST}; copy it again or repair")
    return found


def _tar_faults(
    index: ShardIndex, shard: int, decode: Decode, decoder: Decoder, progress: Progress | None
) -> Iterator[str]:
    with _local_file(index, _tar(index, shard)) as path:
        if path is None:
            yield f"{_address(index, shard)}: shard missing; copy it here or pack again"
        else:
            yield from _faults_of_bytes(index, shard, _bytes(path), decode, decoder, progress)


def _idx_faults(index: ShardIndex, shard: int) -> Iterator[str]:
    name, (_, rows) = str(Path(_tar(index, shard)).with_suffix(".idx")), _frames(index, shard)
    places = zip(_names(index, shard), rows["offset"].tolist(), rows["size"].tolist(), strict=True)
    with _local_file(index, name) as path:
        if path is None or path.read_bytes() != fmt.idx_text(places).encode():
            yield f"{index.address}/{name}: missing, or not the index of {_tar(index, shard)}; repair"


@contextmanager
def _local_file(index: ShardIndex, name: str) -> Iterator[Path | None]:
    """A file of the set: itself, or what is at its address now, downloaded for as long; None if it is missing."""
    if index.cache is None:
        path = index.root / name
        yield path if path.is_file() else None
        return
    with tempfile.NamedTemporaryFile(prefix="bassl-fast-") as file:
        yield Path(file.name) if _download(index, name, Path(file.name)) else None


def _download(index: ShardIndex, name: str, to: Path) -> bool:
    """False if it is missing."""
    address, (fs, root) = f"{index.address}/{name}", filesystem(index.address)
    try:
        size = attempt(address, lambda: fs.info(child(root, name))).get("size")
        attempt(address, lambda: fetch(fs, child(root, name), to, size))
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ShardError(f"{to.parent}: {error.strerror}; set TMPDIR to a folder with more space") from None
    return True


def _bytes(path: Path) -> np.ndarray:
    return np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)


def _faults_of_bytes(
    index: ShardIndex, shard: int, data: np.ndarray, decode: Decode, decoder: Decoder, progress: Progress | None
) -> Iterator[str]:
    digest = hashlib.sha256()
    for start in range(0, len(data), _BLOCK):
        digest.update(data[start : start + _BLOCK].data)
        if progress:
            progress(min(_BLOCK, len(data) - start))
    changed = digest.hexdigest() != index.shards[shard]["sha256"]
    found = _member_faults(index, shard, data) if changed else _crc_faults(index, shard, data)
    yield from found
    if changed and not found:
        where = _address(index, shard)
        yield f"{where}: sha256 differs from {fmt.MANIFEST}, but every member is whole; copy it again or repair"
    if not found and decode != "none":
        yield from _decode_faults(index, shard, data, decoder, 1 if decode == "all" else SAMPLE)


def _tar(index: ShardIndex, shard: int) -> str:
    return index.shards[shard]["name"]


def _address(index: ShardIndex, shard: int) -> str:
    return f"{index.address}/{_tar(index, shard)}"


def _sequences(index: ShardIndex, shard: int) -> np.ndarray:
    """Rows of `sequences.npy` of one shard."""
    first, end = np.searchsorted(index.sequences["shard"], [shard, shard + 1])
    return index.sequences[first:end]


def _frames(index: ShardIndex, shard: int) -> tuple[int, np.ndarray]:
    """The first row of one shard in `frames.npy`, and all its rows `[F]`."""
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
        if zlib.crc32(data[start : start + size].data) != crc:
            found.append(_line(index, first + i, "differs from the index (crc32); the index is of another shard"))
    return found


def _member_faults(index: ShardIndex, shard: int, data: np.ndarray) -> list[str]:
    """Check a shard member by member: header, bytes and padding."""
    found, end, (first, rows) = [], 0, _frames(index, shard)
    for i, (row, member) in enumerate(zip(rows, _names(index, shard), strict=True)):
        start, size = int(row["offset"]), int(row["size"])
        stop = start + size
        end = stop + len(fmt.padding(size))
        if stop > len(data):
            found.append(_line(index, first + i, f"cut off, the shard ends at byte {len(data)}"))
        elif zlib.crc32(data[start:stop].data) != row["crc32"]:
            found.append(_line(index, first + i, "bytes differ from the index (crc32)"))
        elif data[start - tarfile.BLOCKSIZE : start].tobytes() != fmt.tar_header(member, size):
            found.append(_line(index, first + i, "its tar header differs"))
        elif data[stop:end].any() or end > len(data):
            found.append(_line(index, first + i, "the padding after it differs"))
    if not found and data[end:].tobytes() != fmt.END_OF_TAR:
        found.append(f"{_address(index, shard)}: its end, from byte {end} on, differs; copy it again or repair")
    return found


def _decode_faults(index: ShardIndex, shard: int, data: np.ndarray, decoder: Decoder, every: int) -> list[str]:
    found, (first, rows) = [], _frames(index, shard)
    sequences = _sequences(index, shard)
    owners = np.searchsorted(sequences["first_frame"], np.arange(first, first + len(rows)), side="right") - 1
    chosen = range(0, len(rows), every)
    for at in range(0, len(chosen), DECODED_AT_ONCE):
        numbers = chosen[at : at + DECODED_AT_ONCE]
        places = ((int(rows[i]["offset"]), int(rows[i]["size"])) for i in numbers)
        sizes = sequences[["height", "width"]][owners[numbers]].tolist()
        faults = decoder([data[start : start + size].tobytes() for start, size in places], sizes)
        found += [_line(index, first + numbers[i], f"cannot be decoded ({why})") for i, why in sorted(faults.items())]
    return found


def _line(index: ShardIndex, frame: int, fault: str) -> str:
    shard, member, offset = index.locate(frame)
    return f"{shard}: {member} at byte {offset}: {fault}; copy the shard again or repair"


def _foreign(index: ShardIndex) -> list[str]:
    """Files in the folder that look like shards but are not of this set."""
    tars = {shard["name"] for shard in index.shards}
    # An unfinished `pack --add` keeps a note about each shard that it has finished.
    tars |= {f"{note.removesuffix('.npz')}.tar" for note in _names_in(index, PARTS)}
    mine = tars | {str(Path(tar).with_suffix(".idx")) for tar in tars}
    return [
        f"{index.address}/{name}: not of this set; move it away"
        for name in _names_in(index)
        if name.endswith((".tar", ".idx", ".tmp")) and name not in mine
    ]


def _names_in(index: ShardIndex, folder: str = "") -> list[str]:
    """Names of the files in a folder of the set; empty if it does not exist, and over http, where it is not known."""
    if index.cache is not None:
        return sorted(sizes(f"{index.address}/{folder}".rstrip("/")) or ())
    path = index.root / folder
    return sorted(os.listdir(path)) if path.is_dir() else []


def _sha256(path: Path, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            if progress:
                progress(len(block))
    return digest.hexdigest()
