"""A tiny project: synthetic films, shards, checkpoint, features, fine-tuned model; made once by the verbs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from bassl_fast import cli

PRETRAIN = {
    "data": {"global_batch": 8},
    "encoder": {"class_path": "bassl_fast.encoders.ResNet", "init_args": {"depth": 18, "width": 8}},
    "method": {
        "class_path": "bassl_fast.methods.BaSSL",
        "init_args": {
            "hidden": 16,
            "intermediate": 32,
            "heads": 2,
            "nce_hidden": 32,
            "nce_dim": 16,
            "views": {"size": 32},
        },
    },
    "optimiser": {"name": "adamw", "lr": 1e-3, "lr_batch": 0},
    "training": {"steps": 2, "precision": "32-true"},
}


@dataclass(frozen=True)
class Project:
    root: Path

    def __getattr__(self, name: str) -> str:
        paths = {
            "films": "films",
            "shards": "shards",
            "config": "pretrain.yaml",
            "run": "run",
            "pretrained": "run/last.ckpt",
            "features": "features",
            "scenes": "scenes",
            "finetuned": "scenes/best.ckpt",
        }
        return str(self.root / paths[name])


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    Path(made.config).write_text(yaml.safe_dump(PRETRAIN))
    for argv in (
        ["draw", made.films, "--films", "3", "--shots", "20", "--test", "1", "--val", "1"],
        ["pack", made.films, made.shards],
        ["pretrain", "--config", made.config, "--data.shards", made.shards, "--out", made.run],
        ["extract", made.pretrained, made.shards, made.features],
        [
            *["finetune", "--data.features", made.features, "--pretrained", made.pretrained, "--out", made.scenes],
            *["--epochs", "2", "--data.batch", "8", "--optimiser.lr", "1e-3", "--optimiser.lr_batch", "0"],
            *["--head", "crn"],
        ],
    ):
        assert cli.main(argv) == 0
    return made
