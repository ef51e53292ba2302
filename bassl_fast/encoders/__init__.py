"""Encoders: images or clips -> features. A new one is a file with a subclass of `Encoder`, imported below.

Read `encoder` first (`clip` for clips, `backbone` for networks of other libraries), then `resnet`. `apply` runs an
encoder over a loader.
Imports `config` and the loaders of `pipelines`; knows no method and no training.
"""

from .clip import ClipEncoder
from .efficientnet_lite import EfficientNetLite0
from .encoder import Encoder
from .huggingface import HuggingFace
from .resnet import ResNet
from .resnet3d import ResNet3D
from .timm import Timm
from .vov3d import VoV3D
from .x3d import X3D

__all__ = [
    "X3D",
    "ClipEncoder",
    "EfficientNetLite0",
    "Encoder",
    "HuggingFace",
    "ResNet",
    "ResNet3D",
    "Timm",
    "VoV3D",
]
