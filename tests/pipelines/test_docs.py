from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from shard_tools.format import ShardIndex

TEXT = (Path(__file__).parents[2] / "docs" / "loader.md").read_text(encoding="utf-8")


def test_the_examples_of_the_docs_run(shards: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("shards").symlink_to(shards.root)
    first, loop = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(first, names)
    assert names["images"].shape == (16, 5, 3, 224, 224)
    assert names["images"].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    exec(loop, names)
    assert names["loader"].state_dict() == {"epoch": 2, "step": 0}
