"""Clips hold their whole scene, from the key-frame before it, and no frame is re-encoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from bassl_fast.scenes import SceneDetector
from bassl_fast.scenes.split import split_film
from shard_tools.errors import SourceError
from tests.videos import draw_video, texture


def shots_of(path: Path) -> list[int]:
    """The shot of each frame of a file."""
    textures = np.stack([texture(i) for i in range(4)]).astype(int)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    return [int(np.abs(textures - frame).mean((1, 2, 3)).argmin()) for frame in frames]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_clips_hold_their_scene_from_the_key_frame_before(tmp_path, name):
    source = draw_video(tmp_path / name, [30, 30, 30], sound=True)
    film = SceneDetector.baseline()(source, scenes=3)
    assert [shot.first for shot in film.shots] == [0, 30, 60]
    (tmp_path / "clips").mkdir()
    split_film(film, tmp_path / "clips")
    clips = sorted((tmp_path / "clips").iterdir())
    assert [clip.name for clip in clips] == [f"scene-00{i}{Path(name).suffix}" for i in (1, 2, 3)]
    # Key-frames are 12 frames apart: 24 is the last before 30, and 60 is one itself.
    assert [shots_of(clip) for clip in clips] == [[0] * 30, [0] * 6 + [1] * 30, [2] * 30]
    for clip, frames in zip(clips, (30, 36, 30), strict=True):
        with av.open(str(clip)) as container:
            assert container.streams.video[0].codec_context.name == "mpeg4"
            sound = sum(frame.samples for frame in container.decode(audio=0)) / 16000
        assert sound == pytest.approx(frames / 24, abs=0.15)


def test_streams_that_do_not_fit_the_container(tmp_path):
    film = SceneDetector.baseline()(draw_video(tmp_path / "a.mp4", [30]))
    (tmp_path / "a.mp4").rename(tmp_path / "a.webm")
    object.__setattr__(film, "source", str(tmp_path / "a.webm"))
    with pytest.raises(SourceError, match=r"a\.webm: cannot be copied to scene-001\.webm"):
        split_film(film, tmp_path)
