"""Heads: networks on the features of many shots.

`crn`, the contextual relation network, sees the features of a window. `similarity` sees only which shots are alike.
Imports `config`; methods and segmentation import this room.
"""

from .crn import ContextualRelationNetwork
from .similarity import SimilarityHead

__all__ = ["ContextualRelationNetwork", "SimilarityHead"]
