"""What happened in this process, counted where it happens and read where a run is watched."""

from __future__ import annotations

import threading
from collections import Counter

# In the order of their places: `remote.attempt`, `Cache.open`, `pipelines.stream.Stream`.
NAMES = ("retries", "cache_hits", "cache_misses", "cache_bytes", "replaced_pictures")

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def count(name: str, number: int = 1) -> None:
    """Add to one of `NAMES`."""
    with _lock:
        _counts[name] += number


def counted() -> dict[str, int]:
    """All of `NAMES`, since the process began."""
    return {name: _counts[name] for name in NAMES}
