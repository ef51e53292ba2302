"""Verify every byte of a set: report what is cut, changed, missing or foreign by shard, member and offset.

The manifest holds the sha256 of the index arrays and of every shard, the index the crc32 of every picture. A shard with
the right sha256 is as it was packed; one with a wrong sha256 is checked member by member.
"""

from __future__ import annotations

import hashlib
import os
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

from shard_tools.errors import BasslFastError, RemoteError
from shard_tools.progress import Progress
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.jpeg import DECODED_AT_ONCE, Decoder, pillow_faults
from shard_tools.shards.shard import open_shard
from shard_tools.storage.remote import absolute, sizes
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
    """
    try:
        index = ShardIndex.open(root, check_shards=False)
    except RemoteError:
        raise
    except BasslFastError as error:
        return [str(error)]
    faults = list(index.shard_faults())
    broken = {fault.split(": ")[0] for fault in faults}
    manifest = parse_json((index.root / fmt.MANIFEST).read_text(encoding="utf-8"))
    if not is_intact(manifest):
        faults.append(f"{index.address}/{fmt.MANIFEST}: changed since it was written; copy it again or repair")
    facts = manifest["index"][fmt.FRAMES]
    if _sha256(index.root / fmt.FRAMES, progress) != facts["sha256"]:
        faults.append(f"{index.address}/{fmt.FRAMES}: differs from {fmt.MANIFEST}; copy it again or repair")
    faults += _foreign(index)
    shards = [shard for shard in range(len(index.shards)) if f"{index.address}/{_tar(index, shard)}" not in broken]
    if each is None:
        with ThreadPoolExecutor(workers) as pool:
            of_shards = pool.map(lambda shard: list(shard_faults(index, shard, decode, decoder, progress)), shards)
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
        if shard not in shards and index.cache is None and (index.root / _tar(index, shard)).is_file():
            faults += _member_faults(index, shard, np.fromfile(index.root / _tar(index, shard), np.uint8))[:1]
    return faults


def _faults_anywhere(
    root: str, call: str, decode: Decode, decoder: Decoder, shard: int
) -> tuple[int, list[str], float]:
    """The shard, its faults and the bytes read, on any machine that can read `root`."""
    read: list[float] = []
    return shard, list(shard_faults(_opened(root, call), shard, decode, decoder, read.append)), sum(read)


@lru_cache(maxsize=1)
def _opened(root: str, call: str) -> ShardIndex:
    """The index at `root`, opened again for every `call`, as it may have been repaired since."""
    return ShardIndex.open(root, check_shards=False)


def shard_faults(
    index: ShardIndex, shard: int, decode: Decode, decoder: Decoder, progress: Progress | None
) -> Iterator[str]:
    """Faults of one shard: of its bytes, its pictures and its `.idx`."""
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
        digest.update(data[start : start + _BLOCK].data)
        if progress:
            progress(min(_BLOCK, len(data) - start))
    changed = digest.hexdigest() != facts["sha256"]
    found = _member_faults(index, shard, data) if changed else _crc_faults(index, shard, data)
    yield from found
    if changed and not found:
        yield f"{where}: sha256 differs from {fmt.MANIFEST}, but every member is whole; copy it again or repair"
    if not found and decode != "none":
        yield from _decode_faults(index, shard, data, decoder, 1 if decode == "all" else SAMPLE)
    _, rows = _frames(index, shard)
    places = zip(_names(index, shard), rows["offset"].tolist(), rows["size"].tolist(), strict=True)
    idx = Path(facts["name"]).with_suffix(".idx")
    if index.cache is None and _read(index.root / idx) != fmt.idx_text(places).encode():
        yield f"{index.address}/{idx}: missing, or not the index of {facts['name']}; repair"
    opened.close()


def _tar(index: ShardIndex, shard: int) -> str:
    return index.shards[shard]["name"]


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
        found.append(
            f"{index.address}/{_tar(index, shard)}: its end, from byte {end} on, differs; copy it again or repair"
        )
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
