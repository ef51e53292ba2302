"""Heads: networks on the features of many shots; so far the contextual relation network (`crn`).

Imports `config`; methods and segmentation import this room.
"""

from .crn import ContextualRelationNetwork

__all__ = ["ContextualRelationNetwork"]
