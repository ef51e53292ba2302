"""Statistics of speech, against answers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speech_statistics import speech_statistics

END = np.array([4.0, 10.0, 12.0, 20.0])
START = np.append(0, END[:-1])


def test_statistics_of_speech():
    found = speech_statistics(START, END, np.array([[14.0, 15.0], [1.0, 2.0], [9.0, 11.0]]))
    pause = np.exp(found["pause"]) - 0.1
    assert pause.tolist() == pytest.approx([7, 0, 3, 300])  # 2 to 9, inside a line, 11 to 14, after the last
    assert found["inside_line"].tolist() == [0, 1, 0, 0]
    assert (np.exp(found["silence_before"]) - 0.1).tolist() == pytest.approx([2, 0, 1, 5])
    assert found["speech_in_shot_after_1"].tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 8, 0])
    assert found["speech_before_3s"].tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3, 0])
    assert found["pause_against_1"][0] == pytest.approx(np.log(71))


def test_a_film_without_speech_has_the_same_statistics():
    silent, usual = (speech_statistics(START, END, lines) for lines in (np.zeros((0, 2)), np.array([[1.0, 2.0]])))
    assert list(silent) == list(usual)
    assert silent.pop("without_speech").tolist() == [1] * 4
    assert not usual["without_speech"].any()
    assert not np.concatenate(list(silent.values())).any()


@pytest.mark.parametrize("shots", [1, 2, 40])
def test_statistics_are_finite_and_one_per_shot(shots: int):
    end = np.cumsum(np.random.default_rng(0).uniform(0, 9, shots))
    start = np.append(0, end[:-1])
    found = speech_statistics(start, end, np.array([[1.0, 1.5], [2.0, 3.0]]))
    assert all(x.shape == (shots,) and np.isfinite(x).all() for x in found.values())
