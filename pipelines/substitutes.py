"""Substitutes for broken key-frames.

The substitute in a view depends only on the bytes in the shards: the first key-frame, in a fixed order, whose region of
the view can be decoded. So a batch does not depend on which process met a fault first.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence

import numpy as np

from shard_tools.errors import DeviceError, PictureError

from .dali import fn, pipeline_def, types
from .graph import DECODE, PIXELS, Decoder, decoding
from .store import Store

_log = logging.getLogger(__name__)
_CHUNK = 64  # pictures decoded at a time to find the broken ones
_BY_DECODER = re.compile(r"decoders(?:\.|__)image", re.IGNORECASE)
# Said by CUDA, and by nvJPEG of itself: 5 to 8 are its allocator, execution, architecture and internal errors.
_BY_DEVICE = re.compile(r"cuda|nvjpeg error \([5-8]\)", re.IGNORECASE)
_NO_MEMORY = re.compile(r"out of memory|bad_alloc|MemoryAllocation|allocation failed", re.IGNORECASE)


class Substitutes:
    """Reads key-frames from a store, with substitutes for broken ones; each fault is logged once.

    Args:
        store: reads the bytes.
        decoder, device_id: which decoder, and on which GPU; None for the CPU.
    """

    def __init__(self, store: Store, decoder: Decoder = "cpu", device_id: int | None = None) -> None:
        self._store, self._decoder, self._device_id = store, decoder, device_id
        self._differ: set[int] = set()  # bytes differ from the index, or are malformed
        self._suspects: set[int] = set()  # some region cannot be decoded

    def read(self, frames: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """The key-frame rows `[N]` to show for `frames` `[N]`, and their JPEG bytes; `regions` as in `undecodable`.

        Raises:
            PictureError: all key-frames of a film are broken.
        """
        while True:
            shown = self._replace(frames, regions)
            jpegs, faults = self._store.check(shown)
            if not faults:
                return shown, jpegs
            for frame, fault in faults.items():
                self._differ |= self._note([frame], fault)

    def add_undecodable(self, faults: dict[int, str]) -> bool:
        """Record key-frame rows and why they cannot be decoded; False if all were known."""
        new = {frame: fault for frame, fault in faults.items() if frame not in self._suspects}
        for frame, fault in new.items():
            self._suspects |= self._note([frame], fault)
        return bool(new)

    def _note(self, frames: list[int], fault: str) -> set[int]:
        for frame in frames:
            _log.warning("%s; another key-frame is shown instead", self._store.describe(frame, fault))
        return set(frames)

    def _replace(self, frames: np.ndarray, regions: np.ndarray) -> np.ndarray:
        known = list(self._differ | self._suspects)
        shown = frames.copy()
        for at in np.flatnonzero(np.isin(frames, known)).tolist():
            frame, region = int(frames[at]), regions[at : at + 1]
            shown[at] = next((other for other in self._in_order(frame) if not self._broken(other, region)), -1)
            if shown[at] < 0:
                raise PictureError(self._store.describe(frame, "broken, as are all key-frames of its film"))
        return shown

    def _broken(self, frame: int, region: np.ndarray) -> bool:
        if frame in self._differ or frame not in self._suspects:
            return frame in self._differ
        return bool(undecodable(self._store.check(np.array([frame]))[0], region, self._decoder, self._device_id))

    def _in_order(self, frame: int) -> Iterator[int]:
        """The key-frame, the others of its shot, then those of the other shots of the film, nearest first."""
        film = self._store.index.sequences[int(self._store.films_of(np.array([frame]))[0])]
        first, shots, images = (int(film[name]) for name in ("first_frame", "shots", "frames_per_shot"))
        shot, image = divmod(frame - first, images)
        for distance in range(shots):
            for other in dict.fromkeys((shot + distance, shot - distance)):
                if 0 <= other < shots:
                    yield from (first + other * images + (image + turn) % images for turn in range(images))


def undecodable(
    jpegs: Sequence[np.ndarray], regions: np.ndarray, decoder: Decoder = "cpu", device_id: int | None = None
) -> dict[int, str]:
    """Which of the JPEGs `[N]` cannot be decoded, and why; DALI does not name them all.

    Args:
        jpegs: their bytes.
        regions: `[N]` rows with `top`, `left`, `height`, `width` in pixels: the part of each to decode.
        decoder, device_id: which decoder, and on which GPU; None for the CPU.

    Raises:
        DeviceError: the GPU fails, whatever the images are.
    """

    def search(start: int, stop: int) -> Iterator[tuple[int, str]]:
        fault = _decode_fault(jpegs[start:stop], regions[start:stop], decoder, device_id)
        if fault and stop - start == 1:
            yield start, fault
        elif fault:
            middle = (start + stop) // 2
            yield from search(start, middle)
            yield from search(middle, stop)

    chunks = range(0, len(jpegs), _CHUNK)
    return dict(found for start in chunks for found in search(start, min(start + _CHUNK, len(jpegs))))


def decoder_fault(error: RuntimeError) -> str:
    """What a decoder says of an image that it cannot decode, given DALI's error.

    Raises:
        DeviceError: the GPU has no memory left, or CUDA failed.
        RuntimeError: `error` itself, if it is of another operator.
    """
    # DALI quotes our source code first; the reason follows.
    before, _, after = str(error).rpartition("encountered:")
    reason = next((line.strip(" :") for line in after.splitlines() if line.strip(" :")), "")
    if _NO_MEMORY.search(after):
        raise DeviceError(
            f"out of memory in the data pipeline ({reason}); choose a smaller data.prefetch or data.global_batch, or "
            "end other programs on this machine"
        )
    if _BY_DEVICE.search(reason):
        raise DeviceError(f"the GPU failed in the data pipeline ({reason}); `dmesg` may say why")
    if not _BY_DECODER.search(before):
        raise error
    return reason


def _decode_fault(jpegs: Sequence[np.ndarray], regions: np.ndarray, decoder: Decoder, device_id: int | None) -> str:
    """Why the JPEGs cannot all be decoded, or "" if they can."""
    anchor, shape = (
        np.stack([regions[side].astype(np.int32) for side in sides], 1)
        for sides in (("top", "left"), ("height", "width"))
    )

    @pipeline_def(batch_size=len(jpegs), num_threads=2, device_id=device_id, prefetch_queue_depth=1)
    def decode():
        encoded, at, size = fn.external_source(
            source=lambda: (list(jpegs), anchor, shape),
            num_outputs=3,
            dtype=[types.UINT8, types.INT32, types.INT32],
            ndim=[1, 1, 1],
        )
        return fn.decoders.image_slice(encoded, at, size, **PIXELS, **DECODE, **decoding(decoder))

    try:
        pipe = decode()
        pipe.build()
        pipe.run()
    except RuntimeError as error:
        return decoder_fault(error)
    return ""
