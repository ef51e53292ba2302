"""How long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

# Called with the units (bytes, seconds of film, films, steps) done since the last call, as `tqdm.update` is.
Progress = Callable[[float], object]
