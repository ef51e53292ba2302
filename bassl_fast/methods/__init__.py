"""Training methods: one file each, read top to bottom; a subclass of `Method` that a config names.

Read `method` first, then `instance`, the shortest. A new one is a file, imported below, and a config.
`losses`, `nearby`, `pseudo_boundary`, `window`, `momentum` and `boxes` are shared by several methods.
Imports heads, encoders and runtime, and `pipelines` for the views; knows no trainer.
"""

from .bassl import BaSSL
from .bassl_shotcol import BaSSLShotCoL
from .byol import BYOL
from .instance import Instance
from .method import Method
from .sce import SCE
from .scrl import SCRL
from .shotcol import ShotCoL
from .supervised import Classifier, Supervised
from .temporal import Temporal

__all__ = [
    "BYOL",
    "SCE",
    "SCRL",
    "BaSSL",
    "BaSSLShotCoL",
    "Classifier",
    "Instance",
    "Method",
    "ShotCoL",
    "Supervised",
    "Temporal",
]
