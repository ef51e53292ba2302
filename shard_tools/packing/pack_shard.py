"""Pack one shard: its pictures are checked, copied and indexed, and the tar is moved into place when whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from shard_tools import plugins
from shard_tools.errors import ShardError, SourceError, with_fix
from shard_tools.shards import format as fmt
from shard_tools.shards.jpeg import any_picture_size, decode_fault, picture_size
from shard_tools.sources.source import Sequence, SourceShard
from shard_tools.storage.output import PARTS, Place

from .writer import PackedShard, ShardWriter, sequence_rows


class Job(NamedTuple):
    """How to pack: the kind of set, whether to decode every picture, whether to read finished shards again."""

    kind: str = fmt.FILMS
    decode: bool = False
    recheck: bool = False


_FIXES = {
    fmt.FILMS: "extract this key-frame again",
    fmt.PICTURES: "fetch this picture again or remove it",
    fmt.CLIPS: "extract this frame again",
}


def copy_sequence(sequence: Sequence, writer: ShardWriter, job: Job) -> tuple[bytes, int, int, int, int]:
    """Add all pictures of a sequence to `writer`; returns its row, see `sequence_rows`.

    Raises:
        SourceError: a picture cannot be read, is empty, truncated, not a JPEG, or of another size than the first.
    """
    kind, fix, noun = job.kind, _FIXES[job.kind], fmt.NOUNS[job.kind]
    size_of = picture_size if kind == fmt.FILMS else any_picture_size
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
            if job.decode and (fault := decode_fault(data)):
                raise SourceError(f"{image.name}: cannot be decoded ({fault}); {fix}")
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
            and (not job.recheck or place.sha256(tar) == done.sha256)
        ):
            return lambda: done
        place.delete(tar)
    with ExitStack() as stack:
        writer = stack.enter_context(ShardWriter(place.scratch() / f"{shard.name}.tar.tmp"))
        rows, numbers = [], []
        for sequence in scan.sequences():
            rows.append(copy_sequence(sequence, writer, job))
            numbers.append(sequence.shots)
        writer.end()
        ending = stack.pop_all()

    def finish() -> PackedShard:
        with ending:
            frames, sha256 = writer.settle()
            sequences, shots = sequence_rows(rows), np.concatenate(numbers)
            packed = PackedShard(shard.name, scan.fingerprint, writer.bytes, sha256, sequences, shots, frames)
            place.write(part, packed.note())
            place.write(idx, packed.idx(job.kind))
            place.take(writer.path, tar)
        return packed

    return finish


def note_name(shard: str) -> str:
    """Name of the note about a finished shard, kept until all are done."""
    return f"{PARTS}/{shard}.npz"
