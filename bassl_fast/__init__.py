"""Train video models that understand films, and find the scenes of films.

    >>> from bassl_fast import SceneDetector
    >>> film = SceneDetector.from_checkpoint("best.ckpt")("film.mp4")
    >>> [(scene.start, scene.end) for scene in film.scenes]
    [(0.0, 12.5), (12.5, 40.0)]

What a notebook needs is here, and imported when it is first asked for: some of it needs torch or DALI, which take
seconds. The command line is `bassl-fast --help`. Imports go from here to `pipelines` and `shard_tools`, never back;
`docs/design.md` lists the rooms.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.loader import FilmLoader, WindowLoader
    from pipelines.plan import Plan
    from pipelines.shot_loader import ShotLoader
    from pipelines.views import TestViews, TrainViews
    from shard_tools.packing.pack import pack
    from shard_tools.packing.verify import verify
    from shard_tools.shards.index import ShardIndex

    from .checkpoints.model import load_model
    from .encoders import Encoder
    from .methods import Method
    from .metrics.neighbours import knn_precision
    from .metrics.scenes import scene_metrics
    from .scenes.detector import SceneDetector
    from .scenes.film import FilmScenes
    from .segmentation.features import FeatureSet

_WHERE = {
    "Encoder": "bassl_fast.encoders",
    "FeatureSet": "bassl_fast.segmentation.features",
    "FilmLoader": "pipelines.loader",
    "FilmScenes": "bassl_fast.scenes.film",
    "Method": "bassl_fast.methods",
    "Plan": "pipelines.plan",
    "SceneDetector": "bassl_fast.scenes.detector",
    "ShardIndex": "shard_tools.shards.index",
    "ShotLoader": "pipelines.shot_loader",
    "TestViews": "pipelines.views",
    "TrainViews": "pipelines.views",
    "WindowLoader": "pipelines.loader",
    "knn_precision": "bassl_fast.metrics.neighbours",
    "load_model": "bassl_fast.checkpoints.model",
    "pack": "shard_tools.packing.pack",
    "scene_metrics": "bassl_fast.metrics.scenes",
    "verify": "shard_tools.packing.verify",
}

__all__ = [
    "Encoder",
    "FeatureSet",
    "FilmLoader",
    "FilmScenes",
    "Method",
    "Plan",
    "SceneDetector",
    "ShardIndex",
    "ShotLoader",
    "TestViews",
    "TrainViews",
    "WindowLoader",
    "__version__",
    "knn_precision",
    "load_model",
    "pack",
    "scene_metrics",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .cli.app import installed_version

        return installed_version()
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
