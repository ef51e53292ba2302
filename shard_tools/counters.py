"""Counters of this process: counted where something happens, read where a run is monitored."""

from __future__ import annotations

import threading
from collections import Counter

# Counted by `remote.attempt`, `Cache.open` and `pipelines.stream.Stream`, in this order.
NAMES = ("retries", "cache_hits", "cache_misses", "cache_bytes", "replaced_pictures")

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, number: int = 1) -> None:
    """Add to one of `NAMES`."""
    with _lock:
        _counts[name] += number


def counted() -> dict[str, int]:
    """All of `NAMES`, since the process started."""
    return {name: _counts[name] for name in NAMES}
