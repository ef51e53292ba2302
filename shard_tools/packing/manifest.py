"""The manifest vouches for all files of a set, and by its own `sha256` for itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def signed(manifest: dict[str, Any]) -> dict[str, Any]:
    """`manifest` with the sha256 of all its other entries."""
    return manifest | {"sha256": _digest(manifest)}


def is_intact(manifest: dict[str, Any]) -> bool:
    """Whether a manifest is as it was written; that of an earlier version, which had no `sha256`, is believed."""
    rest = {name: entry for name, entry in manifest.items() if name != "sha256"}
    return manifest["sha256"] == _digest(rest) if "sha256" in manifest else "completeness" not in manifest


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
