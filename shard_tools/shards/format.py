"""The shard format, versions 1 and 1.1: tars of films, pictures or clips, and an index of every byte in them.

    <root>/<shard>.tar      picture bytes as found, in members
        <film>/shot_%04d.%d.jpg            one film per shard
        <class>/<picture>.jpg              many per shard, `<split>-%05d.tar`
        <class>/<clip>/frame.%06d.jpg      many per shard
    <root>/<shard>.idx      the same members for DALI's own reader (wds2idx v1.2)
    <root>/frames.npy       a row per picture: where its bytes are in the tar, and their crc32
    <root>/sequences.npy    a row per sequence: its shard, its first rows, how many shots, picture size, split, label
    <root>/shots.npy        a row per shot: number, boundary and scene label, first and last frame; in version 1.1 also
                            when somebody speaks
    <root>/manifest.json    version, kind, classes, bytes and sha256 of arrays and shards, pictures of every shard

A film is a sequence of shots with some key-frames each; a clip is a sequence of one shot of T frames; a picture is a
clip of one frame. The arrays are memory-mapped or read in blocks, so memory does not grow with the set. The manifest is
written last, so a folder without it was never finished. See docs/reference/shard-format.md.

The tars are in WebDataset's format, for other programs to read (see `webdataset.py` in this folder).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator

import numpy as np

from shard_tools.errors import ShardError

VERSION = 1
VERSION_WITH_SPEECH = 1.1  # of films with subtitles; a set without them is of version 1, with the same bytes as ever
FILMS, PICTURES, CLIPS = KINDS = ("films", "pictures", "clips")
FRAME = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4")])
SHOT = np.dtype([("shot", "<u4"), ("boundary", "i1"), ("scene", "<i4"), ("start", "<i4"), ("end", "<i4")])
# Seconds of speech in the shot, and of silence at its end: since the last line and until the next one, both 0 inside a
# line. NaN where the film has no subtitles.
SPEECH = np.dtype([("speech", "<f4"), ("silence_before", "<f4"), ("silence_after", "<f4")])
SHOT_WITH_SPEECH = np.dtype([*SHOT.descr, *SPEECH.descr])
MANIFEST, FRAMES, SEQUENCES, SHOTS = "manifest.json", "frames.npy", "sequences.npy", "shots.npy"
ARRAYS = (FRAMES, SEQUENCES, SHOTS)
NOUNS = {FILMS: "film", PICTURES: "picture", CLIPS: "clip"}
MOST_IMAGES = (1 << 16) - 1  # in a shot
SHA256 = re.compile("[0-9a-f]{64}")
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


def sequence_dtype(names: Iterable[bytes], kind: str = FILMS) -> np.dtype:
    """Row of `sequences.npy`; the name column is as wide as the longest name in UTF-8.

    Pictures and clips also have the number of their class (-1 unknown), clips their frames a second (0 unknown).
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
    """Names and types of the columns of an array; the column `name` may have any width."""
    if not dtype.names:
        return None
    return [(name, "S" if name == "name" else dtype[name].str) for name in dtype.names]


def member_name(name: str, shot: int, image: int, kind: str = FILMS) -> str:
    """Name inside the tar.

    WebDataset reads key and extension: `<film>/shot_0042` and `1.jpg`, `<class>/<picture>` and `jpg`, or
    `<class>/<clip>/frame` and `000001.jpg`, so its samples are shots, pictures or clips.
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
    """A 512-byte POSIX header that depends only on name and size, so equal input packs to equal bytes.

    Raises:
        ShardError: the name is too long for POSIX ustar (over 155 bytes in the folder or 100 in the file part).
    """
    try:
        encoded = name.encode()
        if len(encoded) > 100 or size >= 8**11:  # too long for these fields of the plain header
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


# tarfile takes ten times as long for a header as the rest of our work on a key-frame. Headers differ only in name, size
# and checksum, which is the sum of all bytes with its own field taken as eight blanks.
_BLANK = _header("", 0)
_MODE, _MTIME, _REST = _BLANK[100:124], _BLANK[136:148], _BLANK[156:]
_BLANK_SUM = sum(_MODE) + sum(_MTIME) + sum(_REST) + 8 * ord(" ")


def padding(size: int) -> bytes:
    """Zeros that pad a tar member to a whole block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def idx_text(members: Iterable[tuple[str, int, int]]) -> str:
    """The text of the `.idx` file of one shard for DALI's `readers.webdataset`.

    One line per sample (consecutive members with the same name up to the first dot), "ext offset size name" per member.
    DALI splits lines at white space and uses the name only in messages, so white space in it becomes "_".

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


def npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stubs: one could be `allow_pickle`
    return buffer.getvalue()
