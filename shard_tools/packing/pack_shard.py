"""Pack one shard: its pictures are checked, copied and indexed, and the tar is moved into place when whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from shard_tools import plugins
from shard_tools.errors import ShardError, SourceError, with_fix
from shard_tools.shards import format as fmt
from shard_tools.shards.jpeg import DECODED_AT_ONCE, Decoder, any_picture_size, picture_size
from shard_tools.sources.source import Buffer, Sequence, SourceShard
from shard_tools.storage.output import PARTS, Place

from .writer import PackedShard, ShardWriter, sequence_rows


class Job(NamedTuple):
    """How to pack.

    Attributes:
        kind: of set.
        decoder: decodes every picture, as a check; None checks their headers alone.
        recheck: read finished shards again.
    """

    kind: str = fmt.FILMS
    decoder: Decoder | None = None
    recheck: bool = False


_FIXES = {
    fmt.FILMS: "extract this key-frame again",
    fmt.PICTURES: "fetch this picture again or remove it",
    fmt.CLIPS: "extract this frame again",
}


def _keyframe_size(data: Buffer, name: str, fix: str) -> tuple[int, int]:
    """(height, width) in pixels of a JPEG, which may have other data after its end."""
    size_of = any_picture_size if bytes(data[:2]) == b"\xff\xd8" else picture_size
    return size_of(data, name, fix)


class _Check:
    """Decodes pictures as a check, some at a time."""

    def __init__(self, job: Job) -> None:
        self._job, self._waiting = job, list[tuple[str, Buffer, tuple[int, int]]]()

    def add(self, name: str, data: Buffer, size: tuple[int, int]) -> None:
        """Raises: SourceError if this picture or one before it cannot be decoded."""
        if self._job.decoder is not None:
            self._waiting.append((name, data, size))
        if len(self._waiting) == DECODED_AT_ONCE:
            self.finish()

    def finish(self) -> None:
        """Check what is left. Raises: SourceError, as `add` does."""
        if self._waiting and self._job.decoder is not None:
            names, pictures, sizes = zip(*self._waiting, strict=True)
            for at, fault in sorted(self._job.decoder(pictures, sizes).items()):
                raise SourceError(f"{names[at]}: cannot be decoded ({fault}); {_FIXES[self._job.kind]}")
            self._waiting.clear()


def copy_sequence(sequence: Sequence, writer: ShardWriter, job: Job, check: _Check) -> tuple[bytes, int, int, int, int]:
    """Add all pictures of a sequence to `writer`; returns its row, see `sequence_rows`.

    Raises:
        SourceError: a picture cannot be read, is empty, truncated, not a JPEG, or of another size than the first.
    """
    kind, fix, noun = job.kind, _FIXES[job.kind], fmt.NOUNS[job.kind]
    size_of = _keyframe_size if kind == fmt.FILMS else any_picture_size
    size: tuple[int, int] | None = None
    count = 0
    for shot, images in zip(sequence.shots.tolist(), sequence.images, strict=True):
        for k, image in enumerate(images):
            data = image.read()
            found = size_of(data, image.name, fix)
            size = size or found
            if found != size:
                again = "key-frames" if kind == fmt.FILMS else "frames"
                raise SourceError(
                    f"{image.name}: {found[1]}x{found[0]} pixels where the {noun} has {size[1]}x{size[0]}; "
                    f"extract its {again} again at one size"
                )
            check.add(image.name, data, size)
            writer.add(fmt.member_name(sequence.name, shot, k, kind), data)
            count += 1
    if size is None:
        raise SourceError(f"{sequence.name}: a {noun} without images; remove it")
    shots = len(sequence.shots)
    if count > shots * fmt.MOST_IMAGES:
        raise SourceError(
            f"{sequence.name}: {count} frames, a {noun} has at most {fmt.MOST_IMAGES}; cut it into shorter ones"
        )
    return sequence.name.encode(), shots, count // shots, *size


def begin_shard(shard: SourceShard, place: Place, job: Job = Job()) -> Callable[[], PackedShard]:  # noqa: B008 (frozen)
    """Read what goes into one shard, unless an earlier run finished it.

    Returns:
        A function that flushes the shard to disk and moves it into place; the next shard may be read meanwhile.

    The note under `.pack/` is written before the shard is moved into place, so a shard without a note is not ours and
    is left alone. It is written after the shard's bytes are on disk, so it is true even if the machine fails.
    """
    with while_reading(shard, place):
        return _begin(shard, place, job)


@contextmanager
def while_reading(shard: SourceShard, place: Place) -> Iterator[None]:
    """While the source of a shard is read: a failure in the code of a plug-in becomes one line that names it."""
    if not shard.plugin:
        yield
        return
    with plugins.named(shard.plugin):
        try:
            yield
        except OSError as error:  # it names its file, and may be that of `place`
            raise ShardError(with_fix(error, place.uri)) from error


def _begin(shard: SourceShard, place: Place, job: Job) -> Callable[[], PackedShard]:
    """See `begin_shard`."""
    tar, idx, part = f"{shard.name}.tar", f"{shard.name}.idx", note_name(shard.name)
    scan = shard.scan()
    if (size := place.size(tar)) is not None:
        note = place.read(part)
        if note is None:
            raise ShardError(
                f"{place.uri}/{tar}: not of this pack, so it is not overwritten; choose another folder or move it away"
            )
        done = PackedShard.load(shard.name, note)
        if (
            done
            and done.source == scan.fingerprint
            and place.size(idx) is not None
            and size == done.size
            and (done.decoded or not job.decoder)
            and (not job.recheck or place.sha256(tar) == done.sha256)
        ):
            return lambda: done
        place.delete(tar)
    with ExitStack() as stack:
        writer = stack.enter_context(ShardWriter(place.scratch() / f"{shard.name}.tar.tmp"))
        rows, numbers, check = [], [], _Check(job)
        for sequence in scan.sequences():
            rows.append(copy_sequence(sequence, writer, job, check))
            numbers.append(sequence.shots)
        check.finish()
        writer.end()
        ending = stack.pop_all()

    def finish() -> PackedShard:
        with ending:
            frames, sha256 = writer.settle()
            sequences, shots = sequence_rows(rows), np.concatenate(numbers)
            decoded = job.decoder is not None
            packed = PackedShard(shard.name, scan.fingerprint, writer.bytes, sha256, sequences, shots, frames, decoded)
            place.write(part, packed.note())
            place.write(idx, packed.idx(job.kind))
            place.take(writer.path, tar)
        return packed

    return finish


def note_name(shard: str) -> str:
    """Name of the note about a finished shard, kept until all are done."""
    return f"{PARTS}/{shard}.npz"
