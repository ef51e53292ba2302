"""Heads: networks on the features of many shots.

`crn`, the contextual relation network, sees the features of a window. `similarity` sees only which shots are alike; it
is a linear function of a few numbers and needs no torch, whose import takes longer than a short film.
Imports `config`; methods and segmentation import this room.
"""

from typing import TYPE_CHECKING, Any

from .similarity import SimilarityHead

if TYPE_CHECKING:
    from .crn import ContextualRelationNetwork

__all__ = ["ContextualRelationNetwork", "SimilarityHead"]


def __getattr__(name: str) -> Any:
    if name != "ContextualRelationNetwork":
        raise AttributeError(name)
    from .crn import ContextualRelationNetwork

    globals()[name] = ContextualRelationNetwork
    return ContextualRelationNetwork
