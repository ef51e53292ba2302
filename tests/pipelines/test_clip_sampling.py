"""Which frames make a clip: every sampling against a plain Python version, one clip at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.clip_sampling import Clips, WholeShots, of_seconds, of_segments, of_span, of_stride, show_differences
from pipelines.samples import Centers, Drawn
from pipelines.views import VIEW, following
from shard_tools.errors import ConfigError, ShardError

from .test_views import assert_uniform

LENGTH, FPS, FRAMES = (
    st.integers(1, 600),
    st.sampled_from([5.0, 12.0, 24.0, 25.0, 29.97, 30.0, 60.0]),
    st.integers(1, 40),
)
PLACE = st.floats(0, 1)
SAMPLINGS = [
    Clips(8),
    Clips(8, seconds=2.56),
    Clips(16, stride=5),
    Clips(8, segments=True),
    Clips(1),
    Clips(1, seconds=1),
]


def videos(lengths: list[int], fps: float | list[float] = 30) -> Centers:
    length = np.array(lengths)
    facts = {"film": np.arange(len(length)), "first_frame": np.cumsum(length) - length, "frames_per_shot": length}
    same = {"position": 0, "shots": 1, "height": 48, "width": 64}
    fps = np.broadcast_to(np.float64(fps), length.shape)
    return Centers(**facts, **{name: np.full(len(length), value) for name, value in same.items()}, fps=fps)


def floor(number: float) -> int:
    return math.floor(number + 1e-6)


@given(LENGTH, FPS, FRAMES, st.floats(0.05, 10), PLACE)
def test_seconds_are_the_frames_within_the_span_evenly_taken(length, fps, frames, seconds, place):
    (ours,) = of_seconds(np.array([length]), np.array([fps]), frames, seconds, np.array([place]))
    start = place * max(0, length / fps - seconds)
    inside = [k for k in range(length) if k - start * fps >= -1e-6 and k - (start + seconds) * fps < -1e-6]
    inside = inside or [min(length - 1, math.ceil(start * fps - 1e-6))]
    picks = [k * (len(inside) - 1) // max(1, frames - 1) for k in range(frames)]
    assert ours.tolist() == [inside[pick] for pick in picks]


@given(LENGTH, FPS, FRAMES, st.floats(0.5, 20), PLACE)
def test_a_stride_is_counted_at_30_frames_a_second(length, fps, frames, stride, place):
    (ours,) = of_stride(np.array([length]), np.array([fps]), frames, stride, np.array([place]))
    span = frames * stride * fps / 30
    start = place * max(0, length - span)
    line = np.linspace(start, start + max(span - 1, 0), frames)
    assert ours.tolist() == [min(length - 1, floor(at)) for at in line]


@given(LENGTH, FRAMES, st.integers(0, 2**32))
def test_a_segment_gives_one_of_its_frames(length, frames, seed):
    place = np.random.default_rng(seed).random((50, frames))
    ours = of_segments(np.full(50, length), frames, place)
    for i in range(frames):
        first, last = (int(np.round((length - 1) / frames * k)) for k in (i, i + 1))
        assert ours[:, i].min() >= first
        assert ours[:, i].max() <= last
        assert set(ours[:, i].tolist()) <= set(range(first, last + 1))


def test_every_frame_of_a_segment_is_equally_likely():
    # Segments of (41 - 1) / 4: frames 0 to 10, 10 to 20, ...; both ends belong to it.
    drawn = Clips(4, segments=True).draw(videos([41] * 5000), np.random.default_rng(0), 2).reshape(-1, 4)
    for i, column in enumerate(drawn.T):
        counts = np.bincount(column - 10 * i, minlength=11)
        assert len(counts) == 11
        assert np.abs(counts / len(column) - 1 / 11).max() < 0.015
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.06


def test_a_clip_of_all_frames_is_the_shot():
    clips = Clips(3).draw(videos([3, 3, 7, 1, 2]), np.random.default_rng(0), 2)
    assert clips[:, 0].tolist() == [[0, 1, 2], [0, 1, 2], [0, 3, 6], [0, 0, 0], [0, 0, 1]]
    assert (clips[:, 0] == clips[:, 1]).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
@given(lengths=st.lists(LENGTH, min_size=1, max_size=5), fps=FPS, seed=st.integers(0, 2**32))
def test_frames_lie_within_the_shot_in_order(sampling: Clips, lengths: list[int], fps: float, seed: int):
    centers = videos(lengths, fps)
    for clips in (sampling.draw(centers, np.random.default_rng(seed), 3), sampling.spaced(centers, 1)):
        assert clips.shape == (len(lengths), clips.shape[1], sampling.frames)
        assert (clips >= 0).all()
        assert (clips < np.array(lengths)[:, None, None]).all()
        assert (np.diff(clips) >= 0).all()
    rows = centers.frames(centers.position[:, None], clips[:, 0])
    assert (rows >= centers.first_frame[:, None]).all()
    assert (rows < (centers.first_frame + centers.frames_per_shot)[:, None]).all()


@pytest.mark.parametrize("sampling", [Clips(8, seconds=2.56), Clips(16, stride=2)])
def test_every_start_of_a_clip_is_equally_likely(sampling: Clips):
    starts = sampling.draw(videos([3000] * 20_000, 25), np.random.default_rng(0), 2)[..., 0]
    span = 64 if sampling.seconds else 16 * 2 * 25 / 30
    for column in starts.T:
        assert_uniform(column.astype(float), 0, 3000 - span, grain=1 / 2900)
    assert abs(np.corrcoef(starts.T)[0, 1]) < 7 / math.sqrt(len(starts))


def test_ten_clips_of_sce_reach_from_end_to_end():
    (clips,) = Clips(8, seconds=2).spaced(videos([300]), 10)
    assert clips[:, 0].tolist() == [math.ceil(i * (10 - 2) / 9 * 30 - 1e-6) for i in range(10)]
    assert clips[-1, -1] == 299
    assert clips[0].tolist() == [k * 59 // 7 for k in range(8)]


def test_ten_clips_of_vov3d_end_before_the_last_place():
    (clips,) = Clips(16, stride=5).spaced(videos([380]), 10)
    assert clips[:, 0].tolist() == [30 * i for i in range(10)]
    assert clips[-1, -1] == 270 + 79
    assert Clips(16, stride=5).spaced(videos([380]), 1)[0, 0, 0] == 0


def test_spaced_clips_of_segments_differ_and_are_not_random():
    (clips,) = Clips(4, segments=True).spaced(videos([41]), 2)
    assert clips.tolist() == [[2, 12, 22, 32], [8, 18, 28, 38]]


def test_short_videos():
    centers = videos([4])
    assert Clips(8, seconds=2.56).draw(centers, np.random.default_rng(0), 1).tolist() == [[[0, 0, 0, 1, 1, 2, 2, 3]]]
    assert Clips(8, stride=2).draw(centers, np.random.default_rng(0), 1).tolist() == [[[0, 2, 3, 3, 3, 3, 3, 3]]]
    assert of_span(np.array([5]), np.array([1]), 3).tolist() == [[5, 5, 5]]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"frames": 0}, "clips.frames 0"),
        ({"seconds": 0}, "clips.seconds 0"),
        ({"seconds": float("nan")}, "clips.seconds nan"),
        ({"stride": -1}, "clips.stride -1"),
        ({"stride": float("inf")}, "clips.stride inf"),
        ({"seconds": 2.56, "segments": True}, "give one of them"),
        ({"seconds": 2.56, "stride": 2}, "give one of them"),
    ],
)
def test_values_out_of_range_are_refused(values: dict, says: str):
    with pytest.raises(ConfigError, match=says):
        Clips(**values)


def test_many_clips_of_a_whole_shot_are_refused():
    with pytest.raises(ConfigError, match="10 clips: the whole shot is one clip"):
        Clips(8).spaced(videos([30]), 10)


@pytest.mark.parametrize("sampling", [Clips(8, seconds=2.56), Clips(16, stride=5)])
def test_unknown_frames_a_second_are_refused_if_the_sampling_needs_them(sampling: Clips):
    with pytest.raises(ShardError, match="video number 1: its frames/s are unknown"):
        sampling.draw(videos([90, 90, 90], [30, 0, 30]), np.random.default_rng(0), 1)
    unknown = videos([90])
    without = Centers(**{name: value for name, value in vars(unknown).items() if name != "fps"})
    with pytest.raises(ShardError, match="video number 0"):
        sampling.spaced(without, 1)
    assert Clips(8, segments=True).spaced(without, 2).shape == (1, 2, 8)


def test_differences_are_to_the_next_frame_and_the_last_shows_the_one_before():
    centers = videos([20, 1, 5, 5])
    rows = np.zeros((4, 3), VIEW)
    rows["frame"] = [[3, 7, 11], [20, 20, 20], [21, 23, 25], [26, 28, 30]]
    shown = show_differences(rows, np.array([True, True, True, False]), centers)
    assert shown["difference"].tolist() == [[True] * 3, [False] * 3, [True] * 3, [False] * 3]
    assert shown["frame"].tolist() == [[3, 7, 10], [20, 20, 20], [21, 23, 24], [26, 28, 30]]
    assert following(shown.ravel())["frame"].tolist() == [4, 8, 11, 22, 24, 25]
    assert not rows["difference"].any()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 2**32))
def test_the_next_frame_is_of_the_same_video(lengths: list[int], frames: int, seed: int):
    centers, rng = videos(lengths), np.random.default_rng(seed)
    rows = np.zeros((len(lengths), frames), VIEW)
    numbers = Clips(frames, seconds=0.2).draw(centers, rng, 1)[:, 0]
    rows["frame"] = centers.frames(centers.position[:, None], numbers)
    shown = show_differences(rows, rng.random(len(lengths)) < 0.8, centers)
    end = (centers.first_frame + centers.frames_per_shot)[:, None]
    assert (shown["frame"] >= centers.first_frame[:, None]).all()
    assert (shown["frame"] + shown["difference"] < end).all()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 2**32))
def test_a_whole_shot_is_all_its_key_frames_with_one_view(per_shot: list[int], frames: int, seed: int):
    rng, many = np.random.default_rng(seed), len(per_shot)
    shots = rng.integers(1, 30, many)
    first = np.cumsum(shots * per_shot) - shots * per_shot
    centers = Centers(
        np.arange(many), rng.integers(0, shots), shots, first, np.array(per_shot), *np.full((2, many), 48)
    )
    positions = rng.integers(0, shots[:, None], (many, 4))

    def sampler(centers: Centers, rng: np.random.Generator) -> Drawn:
        views = np.zeros((many, 4), VIEW)
        views["frame"] = centers.frames(positions, rng.integers(0, centers.frames_per_shot[:, None], views.shape))
        views["flip"], views["top"] = rng.random(views.shape) < 0.5, rng.integers(0, 9, views.shape)
        return Drawn(views, {"mask": views["flip"]}, {16: views[:, :1], 24: np.repeat(views[..., None], 2, 2)})

    one, whole = (each(centers, np.random.default_rng(seed)) for each in (sampler, WholeShots(sampler, frames)))
    assert whole.views.shape == (many, 4, frames)
    for shared in ("flip", "top", "blur"):
        assert (whole.views[shared] == one.views[shared][..., None]).all()
    for b, v, t in np.ndindex(whole.views.shape):
        number = t * (per_shot[b] - 1) // max(1, frames - 1)
        assert whole.views["frame"][b, v, t] == first[b] + positions[b, v] * per_shot[b] + number
    np.testing.assert_array_equal(whole.small[16], whole.views[:, :1])
    np.testing.assert_array_equal(whole.small[24], one.small[24])  # clips already
    np.testing.assert_array_equal(whole.extras["mask"], one.extras["mask"])
