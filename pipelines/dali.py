"""Import DALI, or raise one clear line if it is missing. All modules import DALI from here."""

from __future__ import annotations

from shard_tools.errors import MissingDependency

try:
    from nvidia.dali import backend, fn, ops, pipeline_def, types
    from nvidia.dali import math as dali_math
except ImportError as error:
    raise MissingDependency(
        f"NVIDIA DALI is not installed ({error}); "
        "pip install 'bassl-fast[cuda130]' (it runs on a CPU too), or [cuda120], or [cuda110]"
    ) from None

__all__ = ["backend", "dali_math", "fn", "ops", "pipeline_def", "types"]
