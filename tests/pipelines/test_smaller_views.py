"""Views that grow with the steps, and runs of centres as samples."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.samples import Centers, Drawn, ShotTable
from shard_tools.shards.index import ShardIndex

from .conftest import SIZE, STEPS, MakeLoader, assert_all_equal, assert_equal, sample

SMALLER = [(16, 3), (24, STEPS + 2)]  # of two epochs of `STEPS`
NAMES = ("first_frame", "frames_per_shot", "height", "width")
SIDES = [16] * 3 + [24] * (STEPS - 1) + [SIZE] * (STEPS - 2)


def scaled(side: int):
    """`sample` with blurs for views of `side` pixels."""

    def draw(centers: Centers, rng: np.random.Generator) -> Drawn:
        drawn = sample(centers, rng)
        drawn.views["blur"] *= side / SIZE
        return drawn

    return draw


@pytest.mark.slow
def test_views_grow_with_the_steps_and_across_epochs(make_loader: MakeLoader):
    loader = make_loader(smaller=SMALLER)
    seen = [*loader, *loader]
    assert [batch["images"].shape[-1] for batch in seen] == SIDES
    of_side = {}
    for side in set(SIDES):
        other = make_loader()
        other._size, other._sampler = side, scaled(side)
        of_side[side] = [*other, *other]
    for step, side in enumerate(SIDES):
        assert_equal(seen[step], of_side[side][step])


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, STEPS, STEPS + 2])
def test_growing_views_resume_with_the_exact_next_batch(make_loader: MakeLoader, at: int):
    whole = make_loader(smaller=SMALLER)
    rest = make_loader(smaller=SMALLER, prefetch=3)
    rest.load_state_dict({"epoch": at // STEPS, "step": at % STEPS})
    assert_all_equal([b for _ in range(2 - at // STEPS) for b in rest], [*whole, *whole][at:])


def test_a_run_is_sliced_among_processes_like_a_sample(make_loader: MakeLoader, shards: ShardIndex):
    whole, parts = (
        make_loader(run_length=4, global_batch=2),
        [make_loader(run_length=4, global_batch=2, rank=rank, world_size=2) for rank in range(2)],
    )
    batch, *shares = (next(iter(loader)) for loader in (whole, *parts))
    assert_equal({name: torch.cat([share[name] for share in shares]) for name in batch}, batch)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 40))
def test_every_shot_is_a_centre_of_a_run(shots: list[int], length: int):
    sequences = np.zeros(len(shots), [("shots", "<i4"), ("shard", "<i4"), *((name, "<i4") for name in NAMES)])
    sequences["shots"] = shots
    table = ShotTable(SimpleNamespace(sequences=sequences), np.arange(len(shots)), length)
    runs = table[np.arange(len(table))]
    counts = [np.zeros(count, int) for count in shots]
    for film, first in zip(runs.film, runs.position, strict=True):
        inside = first + np.arange(length)
        assert first == 0 or inside[-1] < shots[film]
        np.add.at(counts[film], np.minimum(inside, shots[film] - 1), 1)
    assert all((of_film >= 1).all() for of_film in counts)
    long = [of_film for of_film in counts if len(of_film) >= length]
    assert table.repeated == sum(int((of_film - 1).sum()) for of_film in long)
    assert len(table) == sum(-(-count // length) for count in shots)
