"""Heads: networks on the features of many shots.

`crn`, the contextual relation network, sees the features of a window. `similarity` sees only which shots are alike; it
is a linear function of a few numbers and needs no torch, whose import takes longer than a short film. `film` is a
network on more such numbers, over minutes of the film.
Imports `config`; methods and segmentation import this room.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .similarity import SimilarityHead

if TYPE_CHECKING:
    from .crn import ContextualRelationNetwork
    from .film import FilmHead

__all__ = ["ContextualRelationNetwork", "FilmHead", "SimilarityHead"]

_MODULES = {"ContextualRelationNetwork": "crn", "FilmHead": "film"}  # imported when they are asked for


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(name)
    found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found
