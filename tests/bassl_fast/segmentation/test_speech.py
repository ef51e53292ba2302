"""Statistics of speech and of durations, against answers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bassl_fast.segmentation.durations import around, duration_statistics
from bassl_fast.segmentation.speech import move_to_pauses
from shard_tools.annotations.speech import HEARD, align, inside, intervals, on_clock, share, words_of_shots

END = np.array([4.0, 10.0, 12.0, 20.0])
START = np.append(0, END[:-1])


@pytest.mark.parametrize(("speed", "offset"), [(1.0, 0.0), (1.0, -7.5), (25 / 24, 12.0), (1 / 1.001, 3.0)])
def test_lines_are_moved_to_where_they_meet_cuts(speed: float, offset: float):
    rng = np.random.default_rng(0)
    cuts = np.cumsum(rng.uniform(1, 8, 1500))
    begin = cuts[10:-10:2] + rng.uniform(-2, 2, 740) * (rng.random(740) < 0.6)  # the others begin at a cut
    lines = np.stack([begin, begin + rng.uniform(1, 3, 740)], 1)
    moved = align((lines - offset) / speed, cuts)
    assert abs(moved - lines).max() < 0.3


def test_lines_without_a_clear_offset_stay():
    rng = np.random.default_rng(0)
    lines = np.sort(rng.uniform(0, 5000, (900, 2)))
    assert align(lines, np.cumsum(rng.uniform(1, 8, 1000))) is lines
    assert align(np.zeros((0, 2)), END).shape == (0, 2)


def test_lines_are_moved_to_the_film_and_those_outside_are_left_out(capsys):
    rng = np.random.default_rng(0)
    end = np.cumsum(rng.uniform(1, 8, 900))
    lines = np.stack([end[5:-5], end[5:-5] + rng.uniform(0.5, 3, 890)], 1)
    found = on_clock(lines - 7.5, end, "a.srt")
    assert abs(found - lines).max() < 0.2
    assert capsys.readouterr().out.startswith("note: a.srt: moved by +7.")
    longer = np.concatenate([lines, lines[-3:] + 1e4])
    assert len(inside(longer, end, "a.mkv")) == len(lines)
    assert "note: a.mkv: 3 of 893 lines are outside of the film" in capsys.readouterr().out


def test_words_belong_to_every_shot_that_their_line_overlaps():
    end = np.array([10.0, 20.0, 21.0, 30.0, 50.0])
    lines = np.array([[8, 11], [11, 12], [22.2, 23], [22.4, 23.5], [30, 31]])
    words = ("over a cut", "inside", "near", "", "at a cut")
    found = words_of_shots(np.append(0, end[:-1]), end, lines, words)
    assert found == ["over a cut", "over a cut inside", "near", "near", "at a cut"]
    assert HEARD == 4  # the third shot lasts a second, so it hears until 22.5
    assert words_of_shots(np.zeros(1), end[:1], np.zeros((0, 2)), ()) == [""]


@pytest.mark.parametrize("shots", [10, 40, 100])
def test_lines_of_a_short_film_stay(shots: int):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        cuts = np.cumsum(rng.gamma(2, 2.5, shots))
        begin = np.sort(rng.uniform(0, cuts[-1], int(cuts[-1] / 6)))
        lines = np.stack([begin, begin + 2], 1)
        assert align(lines, cuts) is lines


def test_intervals_are_ascending_and_apart():
    lines = [[5, 6], [1, 3], [2, 2.5], [2.9, 4], [8, 8], [9, 7]]
    assert intervals(np.array(lines)).tolist() == [[1, 4], [5, 6]]
    assert intervals(np.zeros((0, 2))).shape == (0, 2)


def test_share_of_speech():
    spoken = np.array([[1.0, 4.0], [5.0, 6.0]])
    begin, end = np.array([0.0, 2.0, 3.0, 6.0]), np.array([2.0, 3.0, 7.0, 9.0])
    assert share(spoken, begin, end).tolist() == [0.5, 1, 0.5, 0]


def test_boundaries_move_to_pauses_and_their_number_stays():
    seen, lines = (
        np.array([0.4, 0.3, 0.2, 0.0]),
        np.array([[1.0, 5.0], [11.5, 14.0]]),
    )  # over cuts 1 and 3
    assert move_to_pauses(seen, END, lines).tolist() == [0.3, 0.4, 0.2, 0.0]
    sure = np.array([1.0, 0.3, 0.0, 0.0])  # what is seen can outweigh what is heard
    assert move_to_pauses(sure, END, lines).tolist() == sure.tolist()


@pytest.mark.parametrize("lines", [[], [[3.0, 3.0]], [[0.0, 25.0]]])
def test_without_a_pause_at_some_cut_boundaries_stay(lines: list):
    seen = np.array([0.4, 0.3, 0.4, 0.0])
    assert move_to_pauses(seen, END, np.array(lines).reshape(-1, 2)).tolist() == seen.tolist()
    assert move_to_pauses(seen[:1], END[:1], np.array([[1.0, 2.0]])).tolist() == [0.4]


@pytest.mark.parametrize("shots", [1, 2, 40])
def test_statistics_are_finite_and_one_per_shot(shots: int):
    end = np.cumsum(np.random.default_rng(0).uniform(0, 9, shots))
    start = np.append(0, end[:-1])
    found = duration_statistics(start, end)
    assert all(x.shape == (shots,) and np.isfinite(x).all() for x in found.values())


def test_statistics_of_durations():
    found = duration_statistics(START, END)  # of 4, 6, 2 and 8 seconds
    middle = np.log(24) / 2  # between 4 and 6
    assert np.exp(found["duration_before_1"] + middle).tolist() == pytest.approx([4, 6, 2, 8])
    assert np.exp(found["duration_after_2"][:2] + middle).tolist() == pytest.approx([2, 8])
    assert found["duration_after_1"][-1] == 0
    assert np.exp(found["alternates_after_2"][1]) == pytest.approx(2)  # 2 s after the cut, 4 s two shots before
    assert np.expm1(found["cuts_before_10s"]).tolist() == pytest.approx([0, 1, 2, 2])
    assert around(np.array([1.0, 2, 3]), 2).tolist() == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 0]]
