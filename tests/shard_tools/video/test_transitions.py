"""Cuts, fades and dissolves in drawn films, where each begins is known."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from shard_tools.video.cutter import Begin
from shard_tools.video.detectors import make_cutter
from shard_tools.video.pyscenedetect import SceneDetect, Thumbnails
from shard_tools.video.shots import cut_shots, small_frames
from shard_tools.video.transitions import REACH, Cuts
from tests.videos import draw_video, texture

SIZE = 320, 180


def write(path: Path, frames: list[np.ndarray], rate: int = 24) -> Path:
    """Frames `[H, W, 3]`, `rate` a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
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


@pytest.mark.parametrize("rate", [12, 50, 60, 120])
def test_transitions_are_found_at_any_frame_rate(tmp_path, rate):
    """A cut, a dissolve of a second, a fade through black, and a shot of 0.7 seconds."""
    second, short = rate, round(0.7 * rate)
    dissolved = mixed(shots_of(3 * second, 2), shots_of(3 * second, 4), second)
    faded = fade_out(second, 7) + black(second // 2) + fade_in(second, 9)
    frames = shots_of(2 * second, 0) + dissolved + shots_of(short, 6) + shots_of(second, 7) + faded
    found = begins(write(tmp_path / "a.mp4", frames, rate))
    after = 2 * second + len(dissolved)
    black_at = after + short + 2 * second + second // 4
    wanted = [(0, None), (2 * second, "cut"), (4.5 * second, "dissolve"), (after, "cut"), (after + short, "cut")]
    wanted.append((black_at, "fade"))
    assert [kind for _, kind in found] == [kind for _, kind in wanted]
    for (first, kind), (at, _) in zip(found, wanted, strict=True):
        assert abs(first - at) <= (0 if kind == "cut" else second / 4), (kind, first, at)


def black(frames: int) -> list[np.ndarray]:
    return [np.zeros((SIZE[1], SIZE[0], 3))] * frames


def dark(frames: int, seed: int) -> list[np.ndarray]:
    """A shot of levels from 2 to 16."""
    return [2 + x * 14 / 250 for x in shots_of(frames, seed)]


def fade_out(frames: int, seed: int) -> list[np.ndarray]:
    return [x * (1 - i / frames) for i, x in enumerate(shots_of(frames, seed))]


def fade_in(frames: int, seed: int) -> list[np.ndarray]:
    return [x * (i / frames) for i, x in enumerate(shots_of(frames, seed))]


@pytest.mark.parametrize(
    ("held", "at"),
    [
        (8, 40 + 12 + 8 // 2),  # the middle of the black
        (24, 40 + 12 + 24 // 2),
        (72, 40 + 12 + 72 - REACH),  # too long: before the picture returns
    ],
)
def test_a_fade_begins_the_next_shot_in_its_black(tmp_path, held, at):
    path = write(tmp_path / "a.mp4", shots_of(40, 0) + fade_out(12, 0) + black(held) + fade_in(12, 2) + shots_of(40, 2))
    (_, _), (first, kind) = begins(path)
    assert kind == "fade"
    assert abs(first - at) <= 2


def test_a_film_may_begin_and_end_with_a_fade(tmp_path):
    frames = black(30) + fade_in(24, 2) + shots_of(60, 2) + fade_out(24, 2) + black(30)
    assert begins(write(tmp_path / "a.mp4", frames)) == [(0, None)]
    assert begins(write(tmp_path / "b.mp4", black(40))) == [(0, None)]


def test_cuts_to_and_from_dark_shots_are_found(tmp_path):
    films = {
        "bright, dark, dark, bright": shots_of(60, 0) + dark(60, 1) + dark(60, 4) + shots_of(60, 2),
        "begins dark": dark(60, 1) + dark(60, 4) + shots_of(60, 2),
        "ends dark": shots_of(60, 0) + dark(60, 1),
    }
    for name, frames in films.items():
        cuts = [(first, "cut") for first in range(60, len(frames), 60)]
        path = write(tmp_path / "a.mp4", frames)
        assert begins(path) == [(0, None), *cuts], name
        assert begins(path, "adaptive") == [(0, None), *cuts], name


def test_long_black_between_cuts_is_a_shot(tmp_path):
    path = write(tmp_path / "a.mp4", shots_of(40, 0) + black(40) + shots_of(40, 2))
    assert begins(path) == [(0, None), (40, "cut"), (80, "cut")]


def test_a_fade_on_one_side_of_long_black_leaves_the_cut_on_the_other(tmp_path):
    from_black = write(tmp_path / "a.mp4", shots_of(40, 0) + fade_out(12, 0) + black(40) + shots_of(40, 2))
    assert begins(from_black) == [(0, None), (92, "cut")]
    to_black = write(tmp_path / "b.mp4", shots_of(40, 0) + black(40) + fade_in(12, 2) + shots_of(40, 2))
    assert begins(to_black) == [(0, None), (40, "cut")]


def test_a_few_black_frames_begin_one_shot(tmp_path):
    path = write(tmp_path / "a.mp4", shots_of(40, 0) + black(8) + shots_of(40, 2))
    assert begins(path) == [(0, None), (44, "fade")]


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
