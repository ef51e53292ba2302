"""Check that a picture is whole, and read its size, without decoding it."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence

from PIL import Image

from shard_tools.errors import SourceError

# Start-of-frame markers carry the picture size; C4, C8 and CC have the same pattern but are tables.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
# Marker and length of a segment; in a start of frame, precision, height and width follow.
_SEGMENT = struct.Struct(">BBHBHH").unpack_from

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


def picture_size(data: bytes | memoryview, name: str, fix: str = "extract this key-frame again") -> tuple[int, int]:
    """(height, width) in pixels of the JPEG `data`.

    Checks that the stream starts and ends as a JPEG does and that its tables are there, so a file cut anywhere is found
    at no cost: after the first scan starts, only the end of the picture holds an end marker. Damage in the middle only
    shows when decoding (ITU-T T.81, Annex B).

    Args:
        name, fix: for the error message.

    Raises:
        SourceError: zero bytes, not a JPEG, or truncated.
    """
    if len(data) == 0:
        raise SourceError(f"{name}: zero bytes; {fix}")
    if data[:2] != b"\xff\xd8":
        raise SourceError(f"{name}: not a JPEG (starts with {data[:4].hex()}); {fix}")
    if data[-2:] != b"\xff\xd9" and bytes(data[-64:]).rstrip(b"\0\r\n ")[-2:] != b"\xff\xd9":
        raise SourceError(f"{name}: truncated JPEG ({len(data)} bytes, no end marker); {fix}")
    at, size, end = 2, None, len(data) - 9
    while at <= end:
        mark, marker, length, _, height, width = _SEGMENT(data, at)
        if mark != 0xFF:
            break
        if marker in _START_OF_FRAME:
            size = height, width
        elif marker == _START_OF_SCAN:
            if size and all(size):
                return size
            break
        # A fill byte has no length; every other segment before the first scan carries its own.
        at += 1 if marker == 0xFF else 2 + length
    raise SourceError(f"{name}: broken JPEG header (no picture size or no scan); {fix}")


def any_picture_size(data: bytes | memoryview, name: str, fix: str) -> tuple[int, int]:
    """(height, width) in pixels of a JPEG or PNG, whatever its file name.

    ImageNet holds a PNG and JPEGs in CMYK under names of JPEGs; DALI decodes all of them, so they are kept. A JPEG with
    data after its end is decoded here, to tell it from a truncated one. Height and width are those of the stored rows:
    EXIF orientation is not applied.

    Raises:
        SourceError: zero bytes, another kind of file, or truncated.
    """
    if data[:8] == _PNG:
        height, width = int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
        if data[-len(_PNG_END) :] != _PNG_END or not 0 < height < 1 << 16 or not 0 < width < 1 << 16:
            raise SourceError(f"{name}: truncated PNG ({len(data)} bytes); {fix}")
        return height, width
    try:
        return picture_size(data, name, fix)
    except SourceError:
        end = bytes(data).rfind(b"\xff\xd9")
        if data[:2] != b"\xff\xd8" or end < 0 or decode_fault(data):
            raise
        return picture_size(data[: end + 2], name, fix)


DECODED_AT_ONCE = 64  # pictures that a `Decoder` is called with
# Called with the bytes of N pictures and their heights and widths in pixels [N, 2]; returns which cannot be decoded, by
# their places, and why.
Decoder = Callable[[Sequence[bytes | memoryview], Sequence[tuple[int, int]]], dict[int, str]]


def pillow_faults(pictures: Sequence[bytes | memoryview], sizes: Sequence[tuple[int, int]]) -> dict[int, str]:
    """The `Decoder` that needs no other package; training's may refuse what it accepts, and the other way round."""
    return {at: fault for at, data in enumerate(pictures) if (fault := decode_fault(data))}


def decode_fault(data: bytes | memoryview) -> str:
    """Why the JPEG `data` cannot be decoded; "" if it can be."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
