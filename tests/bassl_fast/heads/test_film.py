"""The film head, and the statistics that it and the similarity head read."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from bassl_fast.heads import FilmHead
from bassl_fast.heads.similarity import alike
from bassl_fast.segmentation.statistics import Reads, names, statistics_of


def film(shots: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Similarities, seconds and times of speech of a film."""
    rng = np.random.default_rng(shots)
    seconds = rng.uniform(1, 8, shots)
    spoken = np.stack([seconds * rng.uniform(0, 1, shots), *rng.uniform(0, 3, (2, shots))], 1)
    return [alike(rng.normal(size=(shots, 4)))], seconds, spoken


@pytest.mark.parametrize("reads", get_args(Reads))
@pytest.mark.parametrize("shots", [1, 2, 40])
def test_every_column_has_a_name_and_each_head_reads_on_where_the_smaller_ends(reads: Reads, shots: int):
    found = statistics_of(*film(shots), reads)
    assert found.shape == (shots, len(names(reads)))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(statistics_of(*film(shots), "film")[:, : found.shape[1]], found)
    assert names("film")[: found.shape[1]] == names(reads)


def test_speech_around_a_cut():
    """Of two shots of 10 s, 5 s are speech in the first; the cut is 2 s after a line, and 1 s before one."""
    spoken = np.array([[5.0, 2.0, 1.0], [0.0, 300.0, 300.0]])
    same, seconds = [alike(np.ones((2, 1)))], np.array([10.0, 10.0])
    columns = statistics_of(same, seconds, spoken, "film")[0].tolist()
    found = dict(zip(names("film"), columns, strict=True))
    assert (found["film_speech"], found["speech_known"]) == (0.25, 1)
    assert found["speech_before_7s"] == pytest.approx(0.5 - 0.25)
    assert found["speech_before_30s"] == pytest.approx(5 / 30 - 0.25)
    assert found["speech_change_30s"] == pytest.approx(5 / 30)
    assert (found["speech_in_shot_before"], found["speech_in_shot_after"]) == (0.25, -0.25)
    assert found["speech_after_7s"] == -0.25
    assert found["silence_before"] == pytest.approx((np.log(2.1) - np.log(300.1)) / 2)
    silent = statistics_of(same, seconds, None, "film")
    assert not silent[:, names("film").index("speech_before_7s") :].any()


def test_a_film_in_parts_scores_as_a_whole():
    """So memory does not grow with the film: `Windows.each` gives it parts."""
    statistics = torch.from_numpy(statistics_of(*film(3000), "film"))
    head = FilmHead(statistics.shape[1]).eval()
    head.standardise(statistics)
    parts = torch.cat([head(part) for part in statistics.split(256)])
    torch.testing.assert_close(head(statistics), parts, atol=1e-5, rtol=0)


def test_a_statistic_that_never_varies_in_training_is_not_read():
    training = torch.randn(50, 3) * torch.tensor([1.0, 0.0, 100.0]) + 5
    head = FilmHead(3, hidden=8).eval()
    head.standardise(training)
    other = training.clone()
    other[:, 1] = 1e6
    assert torch.equal(head(other), head(training))
    other[:, 2] += 100
    assert not torch.equal(head(other), head(training))
