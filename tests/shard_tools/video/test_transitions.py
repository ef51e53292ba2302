"""Cuts, fades and dissolves in drawn films, where each begins is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shard_tools.video.cutter import Begin
from shard_tools.video.detectors import make_cutter
from shard_tools.video.pyscenedetect import SceneDetect, Thumbnails
from shard_tools.video.shots import cut_shots, small_frames
from shard_tools.video.transitions import Cuts
from tests.videos import draw_video, texture

av = pytest.importorskip("av")
pytest.importorskip("scenedetect")

SIZE = 320, 180


def write(path: Path, frames: list[np.ndarray]) -> Path:
    """Frames `[H, W, 3]`, 24 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 4_000_000
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def shots_of(frames: int, seed: int) -> list[np.ndarray]:
    """A shot whose picture shakes a little."""
    picture = texture(seed, (SIZE[0] + 8, SIZE[1])).astype(np.float32)
    return [picture[:, i % 5 : i % 5 + SIZE[0]] for i in range(frames)]


def mixed(a: list[np.ndarray], b: list[np.ndarray], frames: int) -> list[np.ndarray]:
    """Shots joined by a dissolve."""
    shares = (np.arange(frames) + 1) / (frames + 1)
    middle = [(1 - s) * x + s * y for s, x, y in zip(shares, a[-frames:], b[:frames], strict=True)]
    return a[:-frames] + middle + b[frames:]


def begins(path: Path, detector: str = "transitions") -> list[tuple[int, str | None]]:
    return [(shot.first, shot.transition) for shot in cut_shots(path, make_cutter(detector))]


@pytest.mark.parametrize("frames", [12, 24, 48])
def test_a_dissolve_is_found_in_its_middle(tmp_path, frames):
    path = write(tmp_path / "a.mp4", mixed(shots_of(70, 0), shots_of(70, 2), frames))
    (_, none), (first, kind) = begins(path)
    assert (none, kind) == (None, "dissolve")
    assert abs(first - (70 - frames / 2)) <= frames / 4
    assert len(begins(path, "adaptive")) == 1


def test_a_fade_begins_the_next_shot_in_the_middle_of_its_black(tmp_path):
    out = [x * (1 - i / 12) for i, x in enumerate(shots_of(12, 0))]
    back = [x * (i / 12) for i, x in enumerate(shots_of(12, 2))]
    black = [np.zeros((SIZE[1], SIZE[0], 3))] * 8
    path = write(tmp_path / "a.mp4", shots_of(40, 0) + out + black + back + shots_of(40, 2))
    (_, _), (first, kind) = begins(path)
    assert kind == "fade"
    assert abs(first - 56) <= 2


def test_a_film_that_begins_and_ends_in_black_has_one_shot(tmp_path):
    black = [np.zeros((SIZE[1], SIZE[0], 3))] * 20
    assert begins(write(tmp_path / "a.mp4", black + shots_of(40, 2) + black)) == [(0, None)]
    assert begins(write(tmp_path / "b.mp4", black)) == [(0, None)]


def test_a_flash_is_no_cut(tmp_path):
    frames = shots_of(40, 0) + shots_of(40, 2)
    for i in (20, 60):
        frames[i : i + 2] = [np.full((SIZE[1], SIZE[0], 3), 250.0)] * 2
    path = write(tmp_path / "a.mp4", frames)
    assert begins(path) == [(0, None), (40, "cut")]
    assert len(begins(path, "adaptive")) > 2


def test_a_pan_and_a_change_of_light_are_no_dissolves(tmp_path):
    wide = texture(0, (3 * SIZE[0], SIZE[1])).astype(np.float32)
    pan = [wide[:, x : x + SIZE[0]] for x in np.linspace(0, 2 * SIZE[0], 20).astype(int)]
    light = [x * share for x, share in zip(shots_of(24, 2), np.linspace(0.3, 1.2, 24), strict=True)]
    assert len(begins(write(tmp_path / "pan.mp4", [pan[0]] * 30 + pan + [pan[-1]] * 30))) == 1
    assert len(begins(write(tmp_path / "light.mp4", [light[0]] * 30 + light + [light[-1]] * 30))) == 1


def test_cuts_are_those_of_pyscenedetect(tmp_path):
    path = draw_video(tmp_path / "a.mp4", [30, 9, 16, 40, 20], size=SIZE)
    thumbnails, cuts, theirs = Thumbnails(), Cuts(), SceneDetect("AdaptiveDetector")
    ours, found = [], []
    for shown in small_frames(path):
        ours += cuts.push(thumbnails(shown))
        found += theirs.push(shown)
    assert [Begin(frame, "cut") for frame in ours] == found
    assert len(found) >= 3


def test_black_bars_have_no_hue(tmp_path):
    """Black of Y 16 or 17 is grey in what detectors see; shrunk and made BGR in one step it is dithered to colours."""
    path, draw = tmp_path / "a.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)  # without loss
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(12):
            planes = np.full((540, 640), 128, np.uint8)
            planes[:360] = 16 + number % 2
            planes[120:240] = draw.integers(16, 235, (120, 640))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    thumbnails = Thumbnails()
    seen = np.stack([thumbnails(shown) for shown in small_frames(path)])
    assert np.ptp(seen[:, : seen.shape[1] // 4], axis=-1).max() == 0
