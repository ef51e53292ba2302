"""Methods and networks of pictures and clips learn; `python -m benchmarks.learning` shows how much, in more steps."""

from __future__ import annotations

import pytest

from benchmarks.learning import MOTIONS, PICTURES, learn_clips, learn_pictures


def test_methods_of_pictures_beat_the_encoder_that_they_began_with(tmp_path):
    """In linear evaluation on photographs, by 10 points at least."""
    found = learn_pictures(tmp_path, list(PICTURES), steps=40, size=48)
    gains = {method: row["trained"] - row["untrained"] for method, row in found.items()}
    assert min(gains.values()) >= 10, found


@pytest.mark.parametrize("network", ["X3D-M", "R3D-18"])
def test_networks_of_clips_see_motion(network: str, tmp_path):
    """Twice what guessing gives, and more than untrained by as much."""
    row = learn_clips(tmp_path, [network], steps=40)[network]
    guess = 100 / len(MOTIONS)
    assert row["trained"] >= max(2 * guess, row["untrained"] + guess), row
