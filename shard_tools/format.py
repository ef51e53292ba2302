"""The shard format, version 1: tars of films, pictures or clips, and an index that is the truth about them.

    <root>/<shard>.tar      picture bytes as found, in members
        <film>/shot_%04d.%d.jpg            a film a shard
        <class>/<picture>.jpg              many a shard, `<split>-%05d.tar`
        <class>/<clip>/frame.%06d.jpg      many a shard
    <root>/<shard>.idx      the same members for DALI's own reader (wds2idx v1.2)
    <root>/frames.npy       a row a picture: where its bytes stand in the tar, and their crc32
    <root>/sequences.npy    a row a sequence: its shard, its first rows, how many shots, picture size, split, label
    <root>/shots.npy        a row a shot: number, boundary and scene label, first and last frame
    <root>/manifest.json    version, kind, classes, bytes and sha256 of arrays and shards, pictures of every shard

A film is a sequence of shots with some key-frames each, a clip a sequence of one shot of T frames, a picture a clip of
one frame. The arrays are memory-mapped or read in blocks, so memory does not grow with what there is. The manifest is
written last, so a folder without it was never finished. See docs/shard-format.md.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cache import Cache, sha256_of
from .errors import ShardError
from .foreign import is_plain_name, map_npy, one_line, parse_json
from .remote import is_remote
from .remote import sizes as remote_sizes
from .rows import Rows

VERSION = 1
FILMS, PICTURES, CLIPS = KINDS = ("films", "pictures", "clips")
FRAME = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4")])
SHOT = np.dtype([("shot", "<u4"), ("boundary", "i1"), ("scene", "<i4"), ("start", "<i4"), ("end", "<i4")])
MANIFEST, FRAMES, SEQUENCES, SHOTS = "manifest.json", "frames.npy", "sequences.npy", "shots.npy"
PARTS = ".pack"  # what a pack that is not done keeps, beside the shards
ARRAYS = (FRAMES, SEQUENCES, SHOTS)
NOUNS = {FILMS: "film", PICTURES: "picture", CLIPS: "clip"}
MOST_IMAGES = (1 << 16) - 1  # of a shot
SHA256 = re.compile("[0-9a-f]{64}")
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


def sequence_dtype(names: Iterable[bytes], kind: str = FILMS) -> np.dtype:
    """Row of `sequences.npy`; the name column is as wide as the longest name in UTF-8.

    Pictures and clips have the number of their class too (-1 unknown), clips their frames a second (0 unknown).
    """
    width = max(map(len, names), default=1)
    of_kind = {FILMS: [], PICTURES: [("label", "<i4")], CLIPS: [("label", "<i4"), ("fps", "<f4")]}
    return np.dtype(
        [
            ("name", f"S{width}"),
            ("split", "S5"),
            ("shard", "<u4"),
            ("first_frame", "<u8"),
            ("first_shot", "<u8"),
            ("shots", "<u4"),
            ("frames_per_shot", "<u2"),
            ("height", "<u2"),
            ("width", "<u2"),
            *of_kind[kind],
        ]
    )


def columns_of(dtype: np.dtype) -> list[tuple] | None:
    """Names and types of the columns of an array; a name may have any width."""
    return dtype.names and [(name, "S" if name == "name" else dtype[name].str) for name in dtype.names]


def member_name(name: str, shot: int, image: int, kind: str = FILMS) -> str:
    """Name inside the tar.

    WebDataset reads key and extension: `<film>/shot_0042` and `1.jpg`, `<class>/<picture>` and `jpg`, or
    `<class>/<clip>/frame` and `000001.jpg`, so a sample of it is a shot, a picture or a clip.
    """
    if kind == FILMS:
        return f"{name}/shot_{shot:04d}.{image}.jpg"
    return f"{name}.jpg" if kind == PICTURES else f"{name}/frame.{image:06d}.jpg"


def member_names(kind: str, sequences: np.ndarray, shots: np.ndarray) -> Iterator[str]:
    """Names of all members of sequences, in order.

    Args:
        sequences: `[N]` rows with columns `name`, `shots` and `frames_per_shot`.
        shots: `[S]` numbers of all their shots.
    """
    numbers = iter(shots.tolist())
    for name, count, images in sequences[["name", "shots", "frames_per_shot"]].tolist():
        name = name.decode()
        for _ in range(count):
            shot = next(numbers)
            for image in range(images):
                yield member_name(name, shot, image, kind)


def tar_header(name: str, size: int) -> bytes:
    """A 512-byte POSIX header that depends on name and size alone, so equal input packs to equal bytes.

    Raises:
        ShardError: a name too long for POSIX ustar (over 100 bytes in the folder or file part).
    """
    try:
        encoded = name.encode()
        if len(encoded) > 100 or size >= 8**11:  # the field of the name, and of the size, in the plain header
            return _header(name, size)
    except ValueError as error:
        raise ShardError(f"{name}: {error}; rename it") from None
    digits = b"%011o" % size
    checksum = _BLANK_SUM + sum(encoded) + sum(digits)
    return b"%b%b%b\0%b%06o\0 %b" % (encoded.ljust(100, b"\0"), _MODE, digits, _MTIME, checksum, _REST)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")


# tarfile takes ten times as long for a header as all else of packing a key-frame that is not the kernel's: of a member,
# only name, size and checksum differ. The checksum is the sum of all bytes, its own field taken as eight blanks.
_BLANK = _header("", 0)
_MODE, _MTIME, _REST = _BLANK[100:124], _BLANK[136:148], _BLANK[156:]
_BLANK_SUM = sum(_MODE) + sum(_MTIME) + sum(_REST) + 8 * ord(" ")


def padding(size: int) -> bytes:
    """Zeros that fill a tar member up to a whole block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def idx_text(members: Iterable[tuple[str, int, int]]) -> str:
    """The `.idx` file of one shard for DALI's `readers.webdataset`.

    A line a sample (members in a row that share their name up to its first dot), "ext offset size name" a member.
    DALI parts the words at white space and takes the name for its messages only, so blanks in it become "_".

    Args:
        members: name, offset and size of each, in order.
    """
    lines: list[str] = []
    last = None
    for name, at, size in members:
        dot = name.index(".", name.rfind("/") + 1)
        part = f"{name[dot + 1 :]} {at} {size} {_BLANKS.sub('_', name)}"
        if name[:dot] == last:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
            last = name[:dot]
    return "\n".join([f"v1.2 {len(lines)}", *lines]) + "\n"


_BLANKS = re.compile(r"\s", re.ASCII)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there: `.tmp`, flushed to disk, then renamed."""
    tmp = path.with_name(path.name + ".tmp")
    try:
        with open(tmp, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return sha256_of(file)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@dataclass(frozen=True)
class ShardIndex:
    """A packed set of films, pictures or clips, opened for reading; the arrays stay on disk.

    Attributes:
        kind: "films", "pictures" or "clips".
        classes: names that the column `label` of `sequences` counts through; none for films.
        root: the folder of the arrays.
        address: what the set was opened by, for messages.
        cache: where shards are fetched to, None if they stand in `root`.
        shards: per shard `{"name", "bytes", "sha256", "frames"}`, from the manifest.
        frames: `[F]` rows of `FRAME`, read as needed: all pictures, sequence by sequence, shot by shot.
        sequences: `[N]` rows of `sequence_dtype`, one a film, picture or clip.
        shots: `[S]` rows of `SHOT`, all shots.
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
        """Open the index and check it against its manifest and the shards' sizes; no picture is read.

        Args:
            root: folder, or address of one.
            cache: for an address: where its files are kept.
            check_shards: look at the sizes of the shards.

        Raises:
            RemoteError: an address cannot be reached in time.
            ShardError: no manifest (never finished), another version, an array that is damaged or does not fit the
                others or the manifest, or a shard that is missing or of another size.
        """
        address = str(root).rstrip("/")
        if is_remote(root):
            cache = cache or Cache()
            root = cache.index(address, MANIFEST, ARRAYS)
        else:
            cache = None
        root = Path(root)
        path = root / MANIFEST
        if not path.is_file():
            if not root.is_dir():
                raise ShardError(f"{root}: no such folder; give the one that `bassl-fast pack` wrote")
            raise ShardError(f"{path}: missing, so this is no finished set of shards; run `bassl-fast pack` to its end")
        try:
            manifest = parse_json(path.read_text(encoding="utf-8"))
            if (version := manifest["version"]) != VERSION or (kind := manifest["kind"]) not in KINDS:
                was = f"format version {version}" if version != VERSION else f"a set of {kind}"
                ours = f"version {VERSION} of {', '.join(KINDS[:-1])} and {KINDS[-1]}"
                raise ShardError(f"{path}: {was}, this program reads {ours}; pack again")
            classes = [] if kind == FILMS else [str(name) for name in manifest["classes"]]
            kinds = {"name": str, "bytes": int, "sha256": str, "frames": int}
            shards = [{key: as_kind(shard[key]) for key, as_kind in kinds.items()} for shard in manifest["shards"]]
            vouched = {name: (manifest["index"][name]["bytes"], manifest["index"][name]["sha256"]) for name in ARRAYS}
            for shard in shards:
                if not is_plain_name(shard["name"]):
                    raise ValueError(f"shard name {shard['name']!r} is no plain file name")
                if not SHA256.fullmatch(shard["sha256"]):  # the cache calls the shard so
                    raise ValueError(f"sha256 {shard['sha256']!r} is none")
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise ShardError(f"{path}: not a manifest ({one_line(error)}); pack again") from None
        arrays = {}
        for name, columns in ((FRAMES, FRAME), (SEQUENCES, sequence_dtype([], kind)), (SHOTS, SHOT)):
            try:
                array = Rows(root / name) if name == FRAMES else map_npy(root / name)
            except (OSError, ValueError) as error:
                raise ShardError(f"{root / name}: cannot be read ({error}); pack again") from None
            if len(array.shape) != 1 or columns_of(array.dtype) != columns_of(columns):
                raise ShardError(f"{root / name}: holds other columns than {name} does; pack again")
            arrays[name] = array
            # The one large array is read where it is needed; `verify` reads it all.
            size, sha256 = vouched[name]
            if (root / name).stat().st_size != size or (name != FRAMES and _sha256(root / name) != sha256):
                raise ShardError(
                    f"{root / name}: differs from {MANIFEST}; files of two packs are mixed here, pack again"
                )
        index = cls(kind, classes, root, address, cache, shards, arrays[FRAMES], arrays[SEQUENCES], arrays[SHOTS])
        index._check()
        if check_shards:
            for fault in index.shard_faults():
                raise ShardError(fault)
        return index

    def _check(self) -> None:
        mixed = "files of two packs are mixed here, pack again"
        shard, shots = self.sequences["shard"].astype(np.int64), self.sequences["shots"].astype(np.int64)
        frames = shots * self.sequences["frames_per_shot"]
        if not len(frames) or min(frames.min(), self.sequences["height"].min(), self.sequences["width"].min()) < 1:
            raise ShardError(f"{self.root / SEQUENCES}: no sequence, or one without a picture; pack again")
        for name, found, expected in (
            (FRAMES, len(self.frames), int(frames.sum())),
            (SHOTS, len(self.shots), int(shots.sum())),
            (MANIFEST, sum(shard["frames"] for shard in self.shards), int(frames.sum())),
        ):
            if found != expected:
                raise ShardError(f"{self.root / name}: {found} entries where {SEQUENCES} counts {expected}; {mixed}")
        # Sequences stand shard by shard, each where the one before it ended, and hold what the manifest says.
        last = np.flatnonzero(np.diff(shard, append=len(self.shards)))
        if not (
            np.array_equal(shard[last], np.arange(len(self.shards)))
            and np.array_equal(self.sequences["first_frame"], np.cumsum(frames) - frames)
            and np.array_equal(self.sequences["first_shot"], np.cumsum(shots) - shots)
            and np.array_equal(np.diff(np.cumsum(frames)[last], prepend=0), [shard["frames"] for shard in self.shards])
        ):
            raise ShardError(f"{self.root / SEQUENCES}: does not fit {MANIFEST}; {mixed}")
        self._check_sequences()
        # The last picture of a shard ends where the shard does.
        final = self.frames[np.cumsum(frames)[last] - 1]
        end = final["offset"].astype(np.int64) + final["size"]
        end += -end % tarfile.BLOCKSIZE + len(END_OF_TAR)
        if not np.array_equal(end, [shard["bytes"] for shard in self.shards]):
            raise ShardError(f"{self.root / FRAMES}: its pictures end elsewhere than the shards do; {mixed}")

    def _check_sequences(self) -> None:
        """Names that neither come twice nor leave the folder, classes that are there, one shot where there is one."""
        names, path = self.sequences["name"], self.root / SEQUENCES
        check_text(path, self.sequences)
        # In order, so none comes twice: of films all names, else those of a split, as it is with the names of shards.
        rising = names[:-1] < names[1:]
        if self.kind != FILMS:
            splits = self.sequences["split"]
            rising = np.where(splits[:-1] == splits[1:], rising, splits[:-1] < splits[1:])
        if not rising.all() or _unsafe(names, self.kind == FILMS):
            noun = NOUNS[self.kind]
            raise ShardError(f"{path}: a {noun}'s name comes twice, out of order, or is no plain file name; pack again")
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
        """A line for every shard that is missing or of another size than the manifest says."""
        sizes = (
            remote_sizes(self.address)
            if self.cache
            else {shard["name"]: _size(self.root / shard["name"]) for shard in self.shards}
        )
        for shard in self.shards if sizes is not None else ():  # where nobody tells, a shard is checked when it arrives
            path, size = f"{self.address}/{shard['name']}", sizes.get(shard["name"])
            if size is None:
                yield f"{path}: shard missing; copy it here or pack again"
            elif size != shard["bytes"]:
                yield f"{path}: {size} bytes, the manifest says {shard['bytes']}; copy it again or pack again"

    @property
    def films(self) -> list[str]:
        """Names of all sequences; `name_of` of many pictures is the faster way to one."""
        return [name.decode() for name in self.sequences["name"]]

    def name_of(self, sequence: int) -> str:
        """Name of sequence number `sequence`."""
        return self.sequences["name"][sequence].decode()

    def select(self, split: str | None) -> np.ndarray:
        """Indices of the films, pictures or clips of `split` ("train", "val", "test"), or of all for None.

        Raises:
            ShardError: none belongs to it.
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
        """`[S]` rows of `SHOT` of sequence number `film`."""
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
        raise ShardError(f"{path}: {column} {error.object[error.start : error.end]!r} is no text; pack again") from None


def _unsafe(names: np.ndarray, plain: bool) -> bool:
    """Whether a name of `[N]` is empty, holds a zero byte or a folder that leads elsewhere; `plain`: or a "/" at all.

    A loop over the names of 1.28 M pictures takes longer than all else of opening them.
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
