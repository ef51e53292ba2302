"""Whether a JPEG is well-formed, without decoding it.

Earlier releases of nvJPEG than 13.4.1 crash or hang on some malformed JPEGs (NVIDIA's release notes), so what a GPU
decodes is checked first. Damage inside the entropy-coded data only shows when it is decoded.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import numpy as np

_PNG = b"\x89PNG"  # nvJPEG does not see these
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN, _QUANTIZATION, _SCAN, _END = 0xC4, 0xDB, 0xDA, 0xD9
_ARITHMETIC = range(0xC9, 0xD0)
# The marker that ends entropy-coded data, where FF is followed by 00, a restart (D0 to D7) or a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class _Malformed(Exception):
    pass


def structure_fault(jpeg: np.ndarray) -> str:
    """What is malformed in the bytes `[N]` uint8 of a JPEG, or "" (ITU-T T.81, Annex B)."""
    data = jpeg.tobytes()
    if data.startswith(_PNG):
        return ""
    try:
        _Tables().walk(data)
    except _Malformed as fault:
        return f"malformed JPEG: {fault}"
    except (IndexError, struct.error):
        return "malformed JPEG: truncated"
    return ""


class _Tables:
    """What the segments of a JPEG have defined so far."""

    def __init__(self) -> None:
        self.quantization: set[int] = set()
        self.huffman: set[int] = set()  # class * 16 + number, as in the file
        self.components: dict[int, int] = {}  # component -> its quantization table
        self.frame = self.scans = 0
        self._readers: dict[int, Callable[[bytes], None]] = {
            **dict.fromkeys(_START_OF_FRAME, self._read_frame),
            _HUFFMAN: self._read_huffman,
            _QUANTIZATION: self._read_quantization,
            _SCAN: self._read_scan,
        }

    def walk(self, data: bytes) -> None:
        """Read all segments up to the end marker."""
        _require(data[:2] == b"\xff\xd8", "does not start as one")
        at = 2
        while True:
            _require(data[at] == 0xFF, f"no marker at byte {at}")
            while data[at + 1] == 0xFF:  # fill bytes
                at += 1
            marker = data[at + 1]
            if marker == _END:
                return _require(self.scans > 0, "no scan")
            _require(marker >= 0xC0 and not 0xD0 <= marker <= 0xD8, f"marker {marker:02x} at byte {at}")
            (length,) = struct.unpack_from(">H", data, at + 2)
            segment = data[at + 4 : at + 2 + length]
            _require(len(segment) == length - 2, "truncated")
            if marker in _START_OF_FRAME:
                _require(not self.frame, "two frames")
                self.frame = marker
            if reader := self._readers.get(marker):
                reader(segment)
            at += 2 + length
            if marker == _SCAN:
                after = _NEXT_MARKER.search(data, at)
                _require(after is not None, "no end marker")
                at = after.start()  # type: ignore[union-attr]  # required above

    def _read_quantization(self, segment: bytes) -> None:
        at = 0
        while at < len(segment):
            wide, number = divmod(segment[at], 16)
            _require(wide < 2 and number < 4, "quantization table")
            self.quantization.add(number)
            at += 1 + 64 * (1 + wide)
        _require(at == len(segment), "quantization table")

    def _read_huffman(self, segment: bytes) -> None:
        at = 0
        while at < len(segment):
            counts = segment[at + 1 : at + 17]
            space = sum(count << (15 - bits) for bits, count in enumerate(counts))  # taken, of 1 << 16
            _require(
                len(counts) == 16 and segment[at] & 0xEC == 0 and 0 < sum(counts) <= 256 and space <= 1 << 16,
                "Huffman table",
            )
            self.huffman.add(segment[at])
            at += 17 + sum(counts)
        _require(at == len(segment), "Huffman table")

    def _read_frame(self, segment: bytes) -> None:
        _, height, width, count = struct.unpack_from(">BHHB", segment)
        _require(height > 0 and width > 0, "no size")
        _require(count in (1, 3, 4) and len(segment) == 6 + 3 * count, "components")
        for component, sampling, table in struct.iter_unpack("BBB", segment[6:]):
            across, down = divmod(sampling, 16)
            _require(0 < across < 5 and 0 < down < 5 and table < 4, "sampling factors")
            self.components[component] = table
        _require(len(self.components) == count, "components")

    def _read_scan(self, segment: bytes) -> None:
        count = segment[0]
        _require(self.frame > 0 and 0 < count <= 4 and len(segment) == 4 + 2 * count, "scan")
        first, last, approximation = segment[-3:]
        self.scans += 1
        for component, tables in struct.iter_unpack("BB", segment[1:-3]):
            _require(component in self.components, "scan of an unknown component")
            _require(self.components[component] in self.quantization, "no quantization table")
            if self.frame in _ARITHMETIC:
                continue
            dc, ac = divmod(tables, 16)
            # A refining scan of the first coefficient needs no table, other scans only those of what they hold.
            _require(first > 0 or approximation >= 16 or dc in self.huffman, "no Huffman table")
            _require(last == 0 or 16 + ac in self.huffman, "no Huffman table")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise _Malformed(fault)
