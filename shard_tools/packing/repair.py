"""Repair a set: pack again what is broken, without touching what is whole.

The set is turned back into a stopped pack whose whole shards are finished, and `pack` resumes it.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from shard_tools.errors import BasslFastError, ShardError
from shard_tools.shards import format as fmt
from shard_tools.shards.jpeg import any_picture_size
from shard_tools.sources.detect import Reading, open_layout
from shard_tools.sources.source import SourceShard
from shard_tools.storage.output import LocalPlace
from shard_tools.storage.remote import is_remote
from shard_tools.storage.untrusted import map_npy, parse_json

from .manifest import is_intact
from .pack import pack
from .pack_shard import note_name, while_reading
from .writer import PackedShard, sequence_rows


def repair(
    root: str | Path,
    source: str | Path,
    annotations: str | Path | None = None,
    workers: int = 2,
    subtitles: str | Path | None = None,
) -> None:
    """Pack what is broken in the set at `root` again from `source`; what is whole is not touched.

    If stopped, it leaves an unfinished pack, which `pack` from the same source resumes.

    Args:
        source, annotations, subtitles: see `pack`; the manifest records how pictures and clips were read.

    Raises:
        ShardError: `root` is remote or has no manifest, or its whole shards hold other pictures than the source.
        SourceError: see `pack`.
    """
    if is_remote(root):
        raise ShardError(f"{root}: only a local set can be repaired; copy it to this machine, or pack it again")
    root, place = Path(root), LocalPlace(Path(root))
    if not (root / fmt.MANIFEST).is_file():  # without one, the tars there may be of something else
        raise ShardError(f"{root / fmt.MANIFEST}: missing, so there is no set to repair; run `bassl-fast pack`")
    try:
        manifest = parse_json((root / fmt.MANIFEST).read_text(encoding="utf-8"))
        if not is_intact(manifest):
            raise ValueError
        known = {shard["name"]: shard["sha256"] for shard in manifest["shards"]}
        reading = Reading(**manifest.get("reading", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known, reading = {}, None
    if subtitles is None and _has_speech(root):
        raise ShardError(f"{root}: was packed with --subtitles; give the same --subtitles")
    found = open_layout(source, annotations, reading or Reading(), workers)
    if found.kind != fmt.FILMS and reading is None:
        raise ShardError(
            f"{root / fmt.MANIFEST}: damaged, so how {found.kind} were read is unknown; pack again into a new folder"
        )

    if lost := known.keys() - {f"{shard.name}.tar" for shard in found.shards}:
        raise ShardError(
            f"{root}: {source} lacks {len(lost)} shards of the set, {min(lost)} among them; repair from a source "
            "with all of them, or pack again"
        )

    def check(shard: SourceShard) -> PackedShard | None:
        """The shard if it is whole, None if it must be packed again."""
        tar = root / f"{shard.name}.tar"
        with while_reading(shard, place):
            scan = shard.scan()
            names = [sequence.name.encode() for sequence in scan.sequences()] if found.kind != fmt.FILMS else None
        packed = _packed(shard.name, found.kind, scan.fingerprint, tar) if tar.is_file() else None
        if packed is None or known.get(tar.name) != packed.sha256:
            return None
        if names not in (None, packed.sequences["name"].tolist()):
            raise ShardError(
                f"{tar}: holds other {found.kind} than {source}; repair from the source of the set, or pack into "
                "a new folder"
            )
        return packed

    def keep(shard: SourceShard, packed: PackedShard | None) -> None:
        """Write the note of a finished shard, or an empty one, which makes `pack` do it again."""
        idx = packed.idx(found.kind) if packed else b""
        place.write(note_name(shard.name), packed.note() if packed else b"")
        if packed is None or place.read(f"{shard.name}.idx") != idx:
            place.delete(f"{shard.name}.idx")

    with ThreadPoolExecutor(workers) as pool:
        for shard, packed in zip(found.shards, list(pool.map(check, found.shards)), strict=True):
            keep(shard, packed)
    place.delete(fmt.MANIFEST)
    pack(source, root, workers, annotations=annotations, reading=reading or Reading(), subtitles=subtitles)


def _has_speech(root: Path) -> bool:
    for path in root.glob(f"{Path(fmt.SHOTS).stem}*.npy"):
        with suppress(OSError, ValueError):
            if "speech" in (map_npy(path).dtype.names or ()):
                return True
    return False


_MEMBERS = {
    fmt.FILMS: re.compile(r"(?P<name>.*)/shot_(?P<shot>[0-9]+)\.(?P<image>[0-9]+)\.jpg", re.DOTALL),
    fmt.PICTURES: re.compile(r"(?P<name>.*)\.jpg(?P<shot>)(?P<image>)", re.DOTALL),
    fmt.CLIPS: re.compile(r"(?P<name>.*)/frame\.(?P<shot>)(?P<image>[0-9]+)\.jpg", re.DOTALL),
}


def _packed(name: str, kind: str, fingerprint: str, path: Path) -> PackedShard | None:
    """What the members of a shard's tar say; None if it is not a whole shard."""
    data = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
    counts: dict[str, dict[int, int]] = {}  # images of every shot of every sequence
    sizes: list[tuple[int, int]] = []
    frames: list[tuple[int, int, int]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                parts = _MEMBERS[kind].fullmatch(member.name)
                if parts is None:
                    return None
                shots = counts.setdefault(parts["name"], {})
                picture = data[member.offset_data : member.offset_data + member.size]
                if not shots:
                    sizes.append(any_picture_size(picture.tobytes(), str(path), "repair"))
                shot = int(parts["shot"] or 0)
                if int(parts["image"] or 0) != shots.setdefault(shot, 0):
                    return None
                shots[shot] += 1
                frames.append((member.offset_data, member.size, zlib.crc32(picture.data)))
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
    sha256 = hashlib.sha256(data.data).hexdigest()
    return PackedShard(name, fingerprint, len(data), sha256, sequences, numbers, np.array(frames, fmt.FRAME))
