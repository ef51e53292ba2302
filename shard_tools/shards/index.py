"""Open a packed set for reading: its index, checked against its manifest."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shard_tools.errors import ShardError
from shard_tools.storage.cache import Cache
from shard_tools.storage.checksums import sha256_of_file
from shard_tools.storage.remote import is_remote
from shard_tools.storage.remote import sizes as remote_sizes
from shard_tools.storage.untrusted import is_plain_name, map_npy, one_line, parse_json

from .format import (
    ARRAYS,
    END_OF_TAR,
    FILMS,
    FRAME,
    FRAMES,
    KINDS,
    MANIFEST,
    NOUNS,
    PICTURES,
    SEQUENCES,
    SHA256,
    SHOT,
    SHOT_WITH_SPEECH,
    SHOTS,
    VERSION,
    VERSION_WITH_SPEECH,
    columns_of,
    member_name,
    sequence_dtype,
)
from .npy_rows import Rows


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


class _Manifest(NamedTuple):
    version: float
    kind: str
    classes: list[str]
    shards: list[dict[str, Any]]
    arrays: dict[str, tuple[int, str]]  # name -> bytes, sha256
    files: dict[str, str]  # name -> file, another one after films were added


def _read_manifest(root: Path) -> _Manifest:
    """Raises: ShardError if it is missing, not a manifest, or of another version."""
    path = root / MANIFEST
    if not path.is_file():
        if not root.is_dir():
            raise ShardError(f"{root}: no such folder; give the one that `bassl-fast pack` wrote")
        raise ShardError(f"{path}: missing, so this is not a finished set of shards; run `bassl-fast pack` to its end")
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        versions = (VERSION, VERSION_WITH_SPEECH)
        if (version := manifest["version"]) not in versions or (kind := manifest["kind"]) not in KINDS:
            found = f"format version {version}" if version not in versions else f"a set of {kind}"
            ours = f"version {VERSION} or {VERSION_WITH_SPEECH} of {', '.join(KINDS[:-1])} and {KINDS[-1]}"
            raise ShardError(f"{path}: {found}, this program reads {ours}; pack again")
        classes = [] if kind == FILMS else [str(name) for name in manifest["classes"]]
        types = {"name": str, "bytes": int, "sha256": str, "frames": int}
        shards = [{key: as_type(shard[key]) for key, as_type in types.items()} for shard in manifest["shards"]]
        arrays = {name: (manifest["index"][name]["bytes"], manifest["index"][name]["sha256"]) for name in ARRAYS}
        files = {name: file_of(manifest["index"], name) for name in ARRAYS}
        for shard in shards:
            if not is_plain_name(shard["name"]):
                raise ValueError(f"shard name {shard['name']!r} is not a plain file name")
            if not SHA256.fullmatch(shard["sha256"]):  # the name of its file in the cache
                raise ValueError(f"{shard['sha256']!r} is not a sha256")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise ShardError(f"{path}: not a manifest ({one_line(error)}); pack again") from None
    return _Manifest(version, kind, classes, shards, arrays, files)


def file_of(index: dict[str, Any], name: str) -> str:
    """File of an array, by the entry `index` of a manifest. Raises: ValueError if it is not a plain name."""
    file = index[name].get("file", name)
    if not is_plain_name(file):
        raise ValueError(f"file {file!r} of {name} is not a plain file name")
    return file


def _open_array(path: Path, columns: np.dtype, size: int, sha256: str) -> Rows | np.ndarray:
    """Raises: ShardError if the array cannot be read, or is not the one of the manifest."""
    large = columns == FRAME  # read where it is needed; `verify` reads it all
    try:
        array = Rows(path) if large else map_npy(path)
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read ({error}); pack again") from None
    if len(array.shape) != 1 or columns_of(array.dtype) != columns_of(columns):
        raise ShardError(f"{path}: other columns than {path.name} has; pack again")
    if path.stat().st_size != size or (not large and sha256_of_file(path) != sha256):
        raise ShardError(f"{path}: differs from {MANIFEST}; files of two packs are mixed here, pack again")
    return array


@dataclass(frozen=True)
class ShardIndex:
    """A packed set of films, pictures or clips, opened for reading; the arrays stay on disk.

    Attributes:
        kind: "films", "pictures" or "clips".
        classes: names of the classes that the column `label` of `sequences` numbers; empty for films.
        root: the folder of the arrays.
        address: the path or address of the set, for messages.
        cache: where remote shards are kept; None if the shards are in `root`.
        shards: per shard `{"name", "bytes", "sha256", "frames"}`, from the manifest.
        frames: `[F]` rows of `FRAME`, read as needed: all pictures by sequence, shot and number.
        sequences: `[N]` rows of `sequence_dtype`, one a film, picture or clip.
        shots: `[S]` rows of `SHOT` or `SHOT_WITH_SPEECH`, all shots.
    """

    kind: str
    classes: list[str]
    root: Path
    address: str
    cache: Cache | None
    shards: list[dict]
    frames: Rows
    sequences: np.ndarray
    shots: np.ndarray

    @classmethod
    def open(cls, root: str | Path, cache: Cache | None = None, check_shards: bool = True) -> ShardIndex:
        """Open the index and check it against its manifest and the sizes of the shards; no picture is read.

        Args:
            root: folder, or address of one.
            cache: keeps the files of an address; by default the one that the environment sets.
            check_shards: compare the sizes of the shards with the manifest; of an address, also that the largest fits
                the cache.

        Raises:
            RemoteError: an address cannot be reached in time.
            ShardError: no manifest (never finished), another version, an array that is damaged or does not match the
                others or the manifest, or a shard that is missing or of another size.
        """
        address = str(root).rstrip("/")
        if is_remote(root):
            cache = cache or Cache()
            root = cache.index(address, MANIFEST, ARRAYS, for_shards=check_shards)
        else:
            cache = None
        root = Path(root)
        manifest = _read_manifest(root)
        shot = SHOT_WITH_SPEECH if manifest.version == VERSION_WITH_SPEECH else SHOT
        columns = {FRAMES: FRAME, SEQUENCES: sequence_dtype([], manifest.kind), SHOTS: shot}
        files = {} if cache else manifest.files  # a cache keeps them under their first names
        arrays: Iterator[Any] = (
            _open_array(root / files.get(name, name), columns[name], *manifest.arrays[name]) for name in ARRAYS
        )
        index = cls(manifest.kind, manifest.classes, root, address, cache, manifest.shards, *arrays)
        index._check()
        if check_shards:
            for fault in index.shard_faults():
                raise ShardError(fault)
        return index

    def digest(self) -> str:
        """SHA-256 by which checkpoints and features know the set: of the manifest as it was before it had a report."""
        manifest = parse_json((self.root / MANIFEST).read_text(encoding="utf-8"))
        known = {name: entry for name, entry in manifest.items() if name not in ("completeness", "sha256")}
        return hashlib.sha256((json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode()).hexdigest()

    def _check(self) -> None:
        mixed = "files of two packs are mixed here, pack again"
        shard, shots = self.sequences["shard"].astype(np.int64), self.sequences["shots"].astype(np.int64)
        frames = shots * self.sequences["frames_per_shot"]
        if not len(frames) or min(frames.min(), self.sequences["height"].min(), self.sequences["width"].min()) < 1:
            raise ShardError(f"{self.root / SEQUENCES}: no sequence, or one without pictures; pack again")
        for name, found, expected in (
            (FRAMES, len(self.frames), int(frames.sum())),
            (SHOTS, len(self.shots), int(shots.sum())),
            (MANIFEST, sum(shard["frames"] for shard in self.shards), int(frames.sum())),
        ):
            if found != expected:
                raise ShardError(f"{self.root / name}: {found} entries where {SEQUENCES} counts {expected}; {mixed}")
        # Sequences are in order of shard, each starts where the one before it ends, and they add up to the manifest.
        last = np.flatnonzero(np.diff(shard, append=len(self.shards)))
        if not (
            np.array_equal(shard[last], np.arange(len(self.shards)))
            and np.array_equal(self.sequences["first_frame"], np.cumsum(frames) - frames)
            and np.array_equal(self.sequences["first_shot"], np.cumsum(shots) - shots)
            and np.array_equal(np.diff(np.cumsum(frames)[last], prepend=0), [shard["frames"] for shard in self.shards])
        ):
            raise ShardError(f"{self.root / SEQUENCES}: does not match {MANIFEST}; {mixed}")
        self._check_sequences()
        # The last picture of a shard must end where the shard does.
        final = self.frames[np.cumsum(frames)[last] - 1]
        end = final["offset"].astype(np.int64) + final["size"]
        end += -end % tarfile.BLOCKSIZE + len(END_OF_TAR)
        if not np.array_equal(end, [shard["bytes"] for shard in self.shards]):
            raise ShardError(f"{self.root / FRAMES}: its pictures do not end where the shards do; {mixed}")

    def _check_sequences(self) -> None:
        """Check names (unique, inside the folder), labels (of known classes) and numbers of shots."""
        names, path = self.sequences["name"], self.root / SEQUENCES
        check_text(path, self.sequences)
        # Rising, so unique: the names of all films, or of the pictures and clips of each split.
        rising = names[:-1] < names[1:]
        if self.kind != FILMS:
            splits = self.sequences["split"]
            rising = np.where(splits[:-1] == splits[1:], rising, splits[:-1] < splits[1:])
        if not rising.all() or _unsafe(names, self.kind == FILMS):
            noun = NOUNS[self.kind]
            raise ShardError(
                f"{path}: a {noun}'s name appears twice, is out of order, or is not a plain file name; pack again"
            )
        if self.kind == FILMS:
            return
        if (self.sequences["shots"] != 1).any() or (
            self.kind == PICTURES and (self.sequences["frames_per_shot"] != 1).any()
        ):
            raise ShardError(f"{path}: {self.kind} of more than one shot or frame; pack again")
        labels = self.sequences["label"]
        if (labels < -1).any() or (labels >= len(self.classes)).any():
            raise ShardError(f"{path}: a label beyond the {len(self.classes)} classes of {MANIFEST}; pack again")

    def shard_faults(self) -> Iterator[str]:
        """One line for every shard that is missing or of another size than the manifest says."""
        sizes = (
            remote_sizes(self.address)
            if self.cache
            else {shard["name"]: _size(self.root / shard["name"]) for shard in self.shards}
        )
        if sizes is None:
            return  # checked on arrival
        for shard in self.shards:
            path, size = f"{self.address}/{shard['name']}", sizes.get(shard["name"])
            if size is None:
                yield f"{path}: shard missing; copy it here or pack again"
            elif size != shard["bytes"]:
                yield f"{path}: {size} bytes, the manifest says {shard['bytes']}; copy it again or pack again"

    @property
    def films(self) -> list[str]:
        """Names of all sequences; `name_of` is faster for one of many."""
        return [name.decode() for name in self.sequences["name"]]

    def name_of(self, sequence: int) -> str:
        """Name of sequence number `sequence`."""
        return self.sequences["name"][sequence].decode()

    def select(self, split: str | None) -> np.ndarray:
        """Indices of the films, pictures or clips of `split` ("train", "val", "test"), or of all for None.

        Raises:
            ShardError: the split is empty.
        """
        if split is None:
            return np.arange(len(self.sequences))
        chosen = np.flatnonzero(self.sequences["split"] == split.encode())
        if len(chosen) == 0:
            known = sorted({s.decode() for s in np.unique(self.sequences["split"])} - {""})
            how = "anno/anno.{train,val,test}.ndjson" if self.kind == FILMS else "lists or folders of splits"
            there = f"there are {', '.join(known)}" if known else f"pack with {how}"
            raise ShardError(f"{self.root}: no {NOUNS[self.kind]} in split '{split}'; {there}")
        return chosen

    def shots_of(self, film: int) -> np.ndarray:
        """Rows `[S]` of `shots` of sequence number `film`."""
        row = self.sequences[film]
        return self.shots[int(row["first_shot"]) : int(row["first_shot"]) + int(row["shots"])]

    def locate(self, frame: int) -> tuple[str, str, int]:
        """(shard, member, offset) of row `frame` of `frames`, for messages."""
        sequence = int(np.searchsorted(self.sequences["first_frame"], frame, side="right")) - 1
        row = self.sequences[sequence]
        shot, image = divmod(frame - int(row["first_frame"]), int(row["frames_per_shot"]))
        shot_number = int(self.shots_of(sequence)["shot"][shot])
        shard = f"{self.address}/{self.shards[int(row['shard'])]['name']}"
        member = member_name(self.name_of(sequence), shot_number, image, self.kind)
        return shard, member, int(self.frames[frame]["offset"])


def check_text(path: Path, sequences: np.ndarray) -> None:
    """Raises: ShardError for a name or split that is not UTF-8 text."""
    try:
        for column in ("name", "split"):
            b"\n".join(sequences[column].tolist()).decode()
    except UnicodeDecodeError as error:
        raise ShardError(
            f"{path}: {column} {error.object[error.start : error.end]!r} is not text; pack again"
        ) from None


def _unsafe(names: np.ndarray, plain: bool) -> bool:
    """Whether a name of `[N]` is empty, holds a zero byte or leaves its folder; `plain`: or holds a "/".

    Vectorised: a loop over the names of 1.28 M pictures takes longer than the rest of opening their index.
    """
    wide = names.astype(f"S{names.dtype.itemsize + 1}")  # so that a zero ends each
    zero = wide.view(np.uint8).reshape(len(wide), -1) == 0
    text = b"\0" + wide.tobytes()
    parts = [b"//", b"/\0", b"\0/"]
    if b"/." in text or b"\0." in text:
        parts += [bytes((a, *dots, b)) for a in b"/\0" for dots in (b".", b"..") for b in b"/\0"]
    return (
        zero[:, 0].any()
        or (zero[:, :-1] & ~zero[:, 1:]).any()
        or any(part in text for part in parts)
        or (plain and b"/" in text)
    )
