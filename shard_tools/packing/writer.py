"""Write one shard to disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shard_tools.shards import format as fmt
from shard_tools.sources.source import Buffer
from shard_tools.storage.untrusted import parse_json

_PIECE = 1 << 20  # bytes written at a time


@dataclass(frozen=True)
class PackedShard:
    """What the index needs to know about one finished shard."""

    name: str
    source: str  # fingerprint of the files it was made from
    size: int  # bytes
    sha256: str
    sequences: np.ndarray  # [N], see `sequence_rows`
    shots: np.ndarray  # [S] shot numbers
    frames: np.ndarray  # [F] of FRAME
    decoded: bool = False  # every picture was decoded, as a check

    def note(self) -> bytes:
        """The fields as bytes that `load` reads."""
        buffer = io.BytesIO()
        facts = json.dumps({"source": self.source, "bytes": self.size, "sha256": self.sha256, "decoded": self.decoded})
        np.savez(buffer, facts=np.array(facts), sequences=self.sequences, shots=self.shots, frames=self.frames)
        return buffer.getvalue()

    @classmethod
    def load(cls, name: str, note: bytes) -> PackedShard | None:
        """Read the bytes of `note`; None if damaged, which only means that the shard is packed again."""
        try:
            with np.load(io.BytesIO(note), allow_pickle=False) as saved:
                if any(member.compress_type for member in saved.zip.infolist()):  # not ours, possibly a zip bomb
                    return None
                facts = parse_json(str(saved["facts"]))
                sequences, shots, frames = (saved[key] for key in ("sequences", "shots", "frames"))
                images = sequences["shots"].astype(np.int64) * sequences["frames_per_shot"]
                counts = (int(sequences["shots"].sum()),), (int(images.sum()),)
                if (shots.shape, frames.shape) != counts or shots.dtype.kind not in "iu" or frames.dtype != fmt.FRAME:
                    return None
                decoded = facts.get("decoded") is True  # notes of earlier versions do not say it
                return cls(
                    name, facts["source"], int(facts["bytes"]), facts["sha256"], sequences, shots, frames, decoded
                )
        except Exception:  # numpy and zipfile raise many kinds
            return None

    def idx(self, kind: str) -> bytes:
        """The bytes of the shard's `.idx` file."""
        names = fmt.member_names(kind, self.sequences, self.shots)
        places = zip(names, self.frames["offset"].tolist(), self.frames["size"].tolist(), strict=True)
        return fmt.idx_text(places).encode()


def sequence_rows(rows: list[tuple[bytes, int, int, int, int]]) -> np.ndarray:
    """Rows `[N]` of name, shots, pictures per shot, height and width, with the types of `fmt.sequence_dtype`."""
    width = max(len(row[0]) for row in rows)
    columns = fmt.sequence_dtype([bytes(width)])
    names = ("name", "shots", "frames_per_shot", "height", "width")
    return np.array(rows, [(name, columns[name]) for name in names])


class ShardWriter:
    """Writes the tar of one shard. Writing and sha256 run in a thread, as neither needs Python's lock.

    `webdataset.TarWriter` writes the same members, but builds every header with tarfile and computes no checksums; a
    loop over checked files with it takes about 15 times as long (`python -m benchmarks.pack`).

    Leaving the context deletes the file, unless it was moved away before.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.bytes = path, 0
        self._file, self._digest = open(path, "wb", buffering=0), hashlib.sha256()  # noqa: SIM115 (see __exit__)
        self._thread, self._written = ThreadPoolExecutor(1), 0
        self._pending: Future[None] | None = None
        self._parts: list[Buffer] = []
        self._rows: list[tuple[int, int, int]] = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._file.close()
        self.path.unlink(missing_ok=True)

    def add(self, member: str, data: Buffer) -> None:
        """Append a member; it is written while the caller continues."""
        size = len(data)
        header, filling = fmt.tar_header(member, size), fmt.padding(size)
        start = self.bytes + len(header)
        self._rows.append((start, size, zlib.crc32(data)))
        self._parts += (header, data, filling)
        self.bytes = start + size + len(filling)
        if self.bytes - self._written > _PIECE:
            self._hand_over()

    def end(self) -> None:
        """Append the end of the tar."""
        self._parts.append(fmt.END_OF_TAR)
        self.bytes += len(fmt.END_OF_TAR)
        self._hand_over()

    def settle(self) -> tuple[np.ndarray, str]:
        """Wait until all is on disk; returns rows `[F]` of FRAME and the sha256 of the file."""
        self._wait()
        os.fsync(self._file.fileno())
        return np.array(self._rows, fmt.FRAME), self._digest.hexdigest()

    def _hand_over(self) -> None:
        self._wait()
        self._pending = self._thread.submit(self._write, self._parts)
        self._parts, self._written = [], self.bytes

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _write(self, parts: list[Buffer]) -> None:
        # In one piece: a thread that takes Python's lock for every part slows the reader down.
        piece = memoryview(b"".join(parts))
        self._digest.update(piece)
        while piece:
            piece = piece[self._file.write(piece) :]
