"""Scenes from boundary labels."""

from __future__ import annotations

import numpy as np
import pytest

from shard_tools.annotations.labels import scenes_from_boundaries


@pytest.mark.parametrize(
    ("boundary", "scene"), [([], []), ([0, 1, 0, 1, 0], [0, 0, 1, 1, 2]), ([1, 1], [0, 1]), ([0, -1, 1], [-1] * 3)]
)
def test_scenes_count_the_boundaries_before_a_shot(boundary, scene):
    assert scenes_from_boundaries(np.array(boundary, np.int8)).tolist() == scene
