"""How shots are grouped into scenes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bassl_fast.scenes.film import FilmScenes, SceneShot, choose_ends
from bassl_fast.scenes.text import clock
from shard_tools.video.timing import Timing


def film(probability: list[float], lengths: list[float] | None = None, rate=Fraction(24)) -> FilmScenes:
    end = np.cumsum(lengths or [10.0] * len(probability))
    start = np.concatenate([[0.0], end[:-1]])
    shots = tuple(
        SceneShot(i, a, b, round(a * rate), round(b * rate) - 1, p, ())
        for i, (a, b, p) in enumerate(zip(start.tolist(), end.tolist(), probability, strict=True))
    )
    return FilmScenes("film", "film.mp4", Timing(rate), shots, (), 1.0, "", 0.0, "test")


probabilities = st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.6, 0.9, 1.0]), min_size=1, max_size=30)


@given(probabilities, st.sampled_from([0.0, 0.4, 0.5, 1.0]), st.floats(0, 60))
def test_scenes_cover_the_film_and_are_long_enough(probability, threshold, shortest):
    found = film(probability).regrouped(threshold, "given", shortest=shortest)
    assert [shot for scene in found.scenes for shot in scene.shots] == list(found.shots)
    assert all(scene.shots[-1].probability >= threshold for scene in found.scenes[:-1])
    if len(found.scenes) > 1:
        assert min(scene.end - scene.start for scene in found.scenes) >= shortest - 1e-9
    if not shortest:
        assert found.ends == tuple(i for i, p in enumerate(probability[:-1]) if p >= threshold)


@given(probabilities, st.integers(1, 40))
def test_a_number_of_scenes_by_falling_probability(probability, count):
    found = film(probability).regrouped(1.0, "asked for", count)
    assert len(found.scenes) == min(count, len(probability))
    rest = set(range(len(probability) - 1)) - set(found.ends)
    assert all(probability[i] <= found.threshold for i in rest)
    again = film(probability).regrouped(found.threshold, "given")
    assert set(found.ends) <= set(again.ends)  # more only where probabilities are equal


def test_the_least_probable_boundary_of_a_short_scene_goes():
    assert choose_ends([0.6, 0.9, 0.7, 0.1], [5, 10, 12, 30], 0.5, shortest=4) == [0, 1]
    assert choose_ends([0.9, 0.9, 0.9], [5, 10, 12], 0.5, shortest=7) == []  # nor a short rest at the end
    assert choose_ends([0.9], [5], 0.5) == []


def test_clock():
    assert [clock(s) for s in (0, 59.99, 61, 3600, 36061)] == ["0:00", "0:59", "1:01", "1:00:00", "10:01:01"]
