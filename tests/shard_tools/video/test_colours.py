"""Histograms of hue, and small grey images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shard_tools.video.colours import BINS, hue_and_light


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


@pytest.mark.parametrize(("rgb", "hue"), [((255, 0, 0), 0), ((0, 255, 0), 60), ((0, 0, 255), 120), ((0, 0, 0), 0)])
def test_hues_are_those_of_opencv(rgb: tuple[int, int, int], hue: int):
    found, _ = hue_and_light(jpeg(np.full((48, 64, 3), rgb, np.uint8)))
    assert found.shape == (BINS,)
    assert found.sum() == pytest.approx(1)
    assert found[max(0, hue - 1) : hue + 2].sum() == pytest.approx(1)


def test_shares_are_of_all_pixels():
    half = np.zeros((48, 64, 3), np.uint8)
    half[:, :32] = (0, 255, 0)
    half[:, 32:] = (0, 0, 255)
    found, _ = hue_and_light(jpeg(half))
    assert found[58:63].sum() == pytest.approx(0.5, abs=0.1)
    assert found[118:123].sum() == pytest.approx(0.5, abs=0.1)


def test_light_is_a_small_grey_image():
    half = np.zeros((48, 64, 3), np.uint8)
    half[:24] = 255
    _, light = hue_and_light(jpeg(half))
    rows = light.reshape(9, 16).mean(1)
    assert rows[:4] == pytest.approx(1, abs=0.02)
    assert rows[4] == pytest.approx(0.5, abs=0.05)
    assert rows[5:] == pytest.approx(0, abs=0.02)
