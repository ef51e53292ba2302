from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from shard_tools.shards.index import ShardIndex

pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "how-to" / "loader.md").read_text(encoding="utf-8")


def test_the_examples_of_the_docs_run(shards: ShardIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("shards").symlink_to(shards.root)
    first, clips, loop = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(first, names)
    assert names["images"].shape == (16, 5, 3, 224, 224)
    assert names["images"].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    exec(clips, names)
    assert names["clips"].shape == (16, 2, 3, 3, 224, 224)
    assert names["clips"].flatten(0, 1).transpose(1, 2).is_contiguous(memory_format=torch.channels_last_3d)
    np.testing.assert_allclose(names["scores"].sum(1), 3 * shards.sequences["shots"], rtol=1e-5)
    exec(loop, names)
    assert names["loader"].state_dict() == {"epoch": 2, "step": 0}
