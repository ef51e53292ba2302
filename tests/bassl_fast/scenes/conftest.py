"""A film of four shots, 5.5 seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.videos import draw_video

SHOTS = [24, 36, 30, 42]


@pytest.fixture(scope="session")
def film_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_video(tmp_path_factory.mktemp("film") / "film.mp4", SHOTS, sound=True)
