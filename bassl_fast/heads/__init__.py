"""Heads: networks on top of shot features that see many shots. A new one is a file here and a section of a config.

Door: `ContextualRelationNetwork`.
"""

from .crn import ContextualRelationNetwork

__all__ = ["ContextualRelationNetwork"]
