"""From a film to its scenes: shots, probabilities, scenes, and the files that other tools read.

    film  ->  shots, key-frames  ->  features  ->  probability a shot  ->  scenes  ->  files
              shard_tools.video      detector                              film        results (exports, sheet, videos)
Read `detector` first (`SceneDetector`), then `jobs`, the work of `bassl-fast scenes`; `exports.FORMATS` lists files.
Imports segmentation, checkpoints and report; only `cli` imports this room.
"""

from .detector import SceneDetector
from .film import FilmScenes, Scene, SceneShot

__all__ = ["FilmScenes", "Scene", "SceneDetector", "SceneShot"]
