"""Option types that several verbs share."""

from __future__ import annotations

from typing import Literal

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
Engine = Literal["local", "ray"]
Detail = Literal["coarse", "normal", "fine"]  # of scenes: people differ on what a scene is
Split = Literal["copy", "exact"]  # of a film into a file per scene
