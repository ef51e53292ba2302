"""Shot encoders: pictures -> features. A new one is a file with a subclass of `Encoder`, named by a config."""

from .encoder import Encoder
from .resnet import ResNet

__all__ = ["Encoder", "ResNet"]
