"""What a JPEG's bytes say without decoding it: that it is whole, and how large the picture is."""

from __future__ import annotations

import io
import struct

from PIL import Image

from .errors import SourceError

# Start-of-frame markers carry the picture size; C4, C8 and CC look alike but are tables.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
# Marker and length of a segment; in a start of frame, precision, height and width follow.
_SEGMENT = struct.Struct(">BBHBHH").unpack_from


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) in pixels of the JPEG `data`.

    Checks that the stream begins and ends as a JPEG does and that its tables are there, so a file cut anywhere is found
    at no cost: from the first scan on, only the end of the picture holds an end marker. Damage in the middle only shows
    when decoding. `name` stands in the error (ITU-T T.81, Annex B).

    Raises:
        SourceError: zero bytes, not a JPEG, or truncated.
    """
    if len(data) == 0:
        raise SourceError(f"{name}: zero bytes; extract this key-frame again")
    if data[:2] != b"\xff\xd8":
        raise SourceError(f"{name}: not a JPEG (starts with {data[:4].hex()}); extract this key-frame again")
    if data[-2:] != b"\xff\xd9" and bytes(data[-64:]).rstrip(b"\0\r\n ")[-2:] != b"\xff\xd9":
        raise SourceError(f"{name}: truncated JPEG ({len(data)} bytes, no end marker); extract this key-frame again")
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
        # A fill byte stands alone; every other segment before the first scan carries its length.
        at += 1 if marker == 0xFF else 2 + length
    raise SourceError(f"{name}: broken JPEG header (no picture size or no scan); extract this key-frame again")


def decode_fault(data: bytes | memoryview) -> str:
    """Why the JPEG `data` cannot be decoded; "" if it can."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return ""
