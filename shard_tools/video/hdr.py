"""High dynamic range to standard: pictures of PQ and HLG (ITU-R BT.2100) as a standard display shows them."""

from __future__ import annotations

from functools import cache

import numpy as np

PQ, HLG = 16, 18  # transfer characteristics, as numbered in ITU-T H.273
WHITE = 203.0  # nits of a white sheet, ITU-R BT.2408; becomes almost the brightest white of the display
PEAK = 1000.0  # nits of the brightest highlight that is told apart
_TO_709 = np.array(  # linear light from the primaries of BT.2020 to those of BT.709, ITU-R BT.2407
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020


def to_sdr(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """Pixels `[h, w, 3]` uint8 for a standard display.

    Up to about 90 nits all stays as it is; what is brighter is compressed by the curve of ITU-R BT.2390, section 5.4,
    on the brightest of the three colours, so that hues stay.

    Args:
        pixels: `[h, w, 3]` uint16 RGB, coded by `transfer` with the primaries of BT.2020.
        transfer: `PQ` or `HLG`.
    """
    light = _decoded(transfer)[pixels]
    if transfer == HLG:  # the display's part: 1000 nits, gamma 1.2
        light *= PEAK * (light @ _LUMINANCE)[..., None] ** 0.2
    light = np.maximum(light @ _TO_709.T, 0)
    brightest = light.max(2)
    light *= np.interp(brightest, *_gain())[..., None]
    return np.rint(255 * np.minimum(light / WHITE, 1) ** (1 / 2.4)).astype(np.uint8)  # ITU-R BT.1886


@cache
def _decoded(transfer: int) -> np.ndarray:
    """`[65536]` float32, the light of every code: nits of PQ, 0..1 of the scene of HLG."""
    code = np.linspace(0, 1, 1 << 16)
    if transfer == PQ:
        return _from_pq(code).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@cache
def _gain() -> tuple[np.ndarray, np.ndarray]:
    """Nits, and the factor that the curve has there."""
    nits = np.geomspace(1, 12 * PEAK, 1024)
    source, target = _to_pq(PEAK), _to_pq(WHITE)
    x, top = np.minimum(_to_pq(nits) / source, 1), target / source
    knee = 1.5 * top - 0.5
    t = (x - knee) / (1 - knee)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return nits, _from_pq(np.where(x < knee, x, curve) * source) / nits


def _from_pq(code: np.ndarray | float) -> np.ndarray:
    """Nits of a PQ code 0..1, SMPTE ST 2084."""
    power = np.asarray(code) ** (32 / 2523)
    return 10000 * (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def _to_pq(nits: np.ndarray | float) -> np.ndarray:
    power = (np.asarray(nits) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
