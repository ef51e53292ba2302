from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.windows import clipped_window, dense_window

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "windows.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda c: f"{c['num_shot']}-{c['center']}-{c['method']}")
def test_dense_window_is_the_reference(case: dict):
    (window,) = dense_window(np.array([case["center"]]), np.array([case["num_shot"]]))
    assert window.tolist() == case["dense"]
    assert case["sparse"][:2] == [0, len(window) - 1]


@given(st.integers(1, 60), st.integers(0, 10), st.data())
def test_dense_window_is_a_run_of_shots_that_holds_the_centre(shots: int, radius: int, data: st.DataObject):
    center = data.draw(st.integers(0, shots - 1))
    (window,) = dense_window(np.array([center]), np.array([shots]), radius)
    assert len(window) == 2 * radius + 1
    assert center in window
    if shots >= len(window):
        assert (np.diff(window) == 1).all()
        assert window[0] >= 0
        assert window[-1] < shots
    else:
        assert window.tolist() == [*range(shots), *[shots - 1] * (len(window) - shots)]


@given(st.integers(1, 60), st.integers(0, 10), st.data())
def test_clipped_window_keeps_its_centre_and_repeats_the_ends(shots: int, radius: int, data: st.DataObject):
    center = data.draw(st.integers(0, shots - 1))
    (window,) = clipped_window(np.array([center]), np.array([shots]), radius)
    assert window[radius] == center
    assert window.tolist() == [min(max(p, 0), shots - 1) for p in range(center - radius, center + radius + 1)]
