"""Films of high dynamic range have the brightness of others."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from shard_tools.video.detectors import make_cutter
from shard_tools.video.hdr import HLG, PQ, to_sdr
from shard_tools.video.shots import cut_shots

NAMES = {PQ: "smpte2084", HLG: "arib-std-b67"}


def shown(code: float, transfer: int) -> np.ndarray:
    """Grey of a code 0..1."""
    return to_sdr(np.full((1, 1, 3), round(65535 * code), np.uint16), transfer)[0, 0]


@pytest.mark.parametrize(
    ("transfer", "code", "least", "most"),
    [
        (PQ, 0.0, 0, 0),
        (PQ, 0.381, 104, 112),  # 26 nits, a grey card by ITU-R BT.2408, 42 % of a standard picture
        (PQ, 0.581, 225, 240),  # 203 nits, a white sheet
        (PQ, 0.752, 254, 255),  # 1000 nits
        (PQ, 1.0, 254, 255),
        (HLG, 0.0, 0, 0),
        (HLG, 0.381, 104, 114),
        (HLG, 0.75, 225, 240),
        (HLG, 1.0, 254, 255),
    ],
)
def test_levels_are_those_of_the_standards(transfer, code, least, most):
    grey = shown(code, transfer)
    assert np.ptp(grey) <= 1  # the rounded matrices keep greys grey
    assert least <= grey[0] <= most


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_brighter_stays_brighter(transfer):
    greys = np.array([shown(code, transfer)[0] for code in np.linspace(0, 0.99 if transfer == HLG else 0.75, 60)], int)
    assert (np.diff(greys) >= 0).all()
    assert len(set(greys)) > 50


def test_colours_outside_the_display_are_clipped():
    green = to_sdr(np.array([[[0, 40000, 0]]], np.uint16), PQ)[0, 0]
    assert green[0] == green[2] == 0
    assert green[1] > 150


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_white_of_a_film_is_white(tmp_path, transfer):
    path, code = tmp_path / "a.mkv", 572 if transfer == PQ else 721  # ten bits, of a white sheet
    filters = f"color=s=640x360:r=25:d=1,format=yuv420p10le,geq=lum={code}:cb=512:cr=512"
    tags = f"-color_trc {NAMES[transfer]} -color_primaries bt2020 -colorspace bt2020nc -c:v ffv1".split()
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", filters, *tags, path], check=True)
    (shot,) = cut_shots(path, make_cutter())
    for image in shot.keyframes:
        assert 222 <= np.asarray(image).mean() <= 242
