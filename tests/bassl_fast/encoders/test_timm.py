"""Networks of timm, as far as they can be tested without it: which class reads a folder, its views, and the refusal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bassl_fast import load_model
from bassl_fast.encoders import Timm
from bassl_fast.encoders.hub import open_model
from bassl_fast.encoders.timm import is_of_timm, views_of
from pipelines.views import TestViews
from shard_tools.errors import ConfigError, MissingDependency

CONFIG = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 0,
    "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def test_views_are_those_of_its_configuration(folder: Path):
    model = open_model(str(folder))
    assert is_of_timm(model)
    assert views_of(model) == TestViews(248, 224, mean=(0.5,) * 3, std=(0.5,) * 3)
    del model.config["pretrained_cfg"]
    with pytest.raises(ConfigError, match=r"config.json lacks input_size, mean or std .*; set encoder.views"):
        views_of(model)


def test_without_timm_it_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for make in (lambda: Timm(str(folder)), lambda: load_model(f"hf:{folder}")):
        with pytest.raises(MissingDependency, match=r"needs timm; pip install 'bassl-fast\[timm\]'"):
            make()
