"""Methods and networks for pictures and clips learn; `python -m benchmarks.learning` measures how much."""

from __future__ import annotations

import pytest

from benchmarks.learning import MARGIN, MOTIONS, PICTURES, learn_clips, learn_pictures

pytestmark = pytest.mark.slow


def test_methods_of_pictures_beat_their_untrained_encoder(tmp_path):
    """In linear evaluation on photographs."""
    found = learn_pictures(tmp_path, list(PICTURES), steps=12, size=40, linear_steps=10)
    gains = {method: row["trained"] - row["untrained"] for method, row in found.items()}
    assert min(gains.values()) >= MARGIN, found


def test_a_clip_network_sees_motion(tmp_path):
    """At least twice the score of guessing, and above untrained by that much. The benchmark runs the other networks."""
    row = learn_clips(tmp_path, ["X3D-M"], steps=24, frames=2)["X3D-M"]
    guess = 100 / len(MOTIONS)
    assert row["trained"] >= max(2 * guess, row["untrained"] + guess), row
