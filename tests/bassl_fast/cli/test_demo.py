"""The demo on videos of your own; its whole way is `make demo`."""

from __future__ import annotations

import pytest
import yaml

from bassl_fast.cli.demo import RECIPE, demo
from shard_tools.errors import SourceError
from tests.shard_tools.video.test_keyframes import bad_file, make


def test_a_broken_video_leaves_no_folder_that_the_next_run_refuses(tmp_path):
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["draw"] |= {"films": 2, "shots": 6, "test": 1}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "films").mkdir()
    make(tmp_path / "films" / "a.mp4", [24, 24])
    bad_file("cut_mp4", tmp_path / "films")
    for _ in range(2):
        with pytest.raises(SourceError, match=r"cut_mp4\.mp4: cut short"):
            demo(str(tmp_path / "films"), str(tmp_path / "demo"), str(tmp_path / "demo.yaml"))
    assert not (tmp_path / "demo").exists()
