"""Heads: networks on the features of many shots. A new one is a file here and a section of a config."""

from .crn import ContextualRelationNetwork

__all__ = ["ContextualRelationNetwork"]
