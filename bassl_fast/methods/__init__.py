"""Pretraining methods: each one a file that reads top to bottom, a subclass of `Method` named by a config."""

from .bassl import BaSSL
from .method import Method

__all__ = ["BaSSL", "Method"]
