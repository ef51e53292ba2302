"""Rows on disk are indexed as the array they came from."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.shards import npy_rows as rows
from shard_tools.shards.format import FRAME
from shard_tools.shards.npy_rows import Rows

ARRAY = np.arange(1000 * 16, dtype=np.uint8).repeat(1)[: 1000 * 16].view(FRAME)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "frames.npy"
    np.save(path, ARRAY)
    return path


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 999), max_size=30),
    st.slices(1000).filter(lambda s: (s.step or 1) > 0),
    st.sampled_from([7, 64, 4096]),
)
def test_integers_and_slices_give_what_numpy_gives(path, numbers, part, block):
    before, rows._BLOCK = rows._BLOCK, block
    try:
        found = Rows(path)
        np.testing.assert_array_equal(found[np.array(numbers, np.int64)], ARRAY[np.array(numbers, np.int64)])
        np.testing.assert_array_equal(found[part], ARRAY[part])
        grid = np.array(numbers[: len(numbers) // 2 * 2], np.int64).reshape(-1, 2)
        np.testing.assert_array_equal(found[grid], ARRAY[grid])
        for number in numbers[:3]:
            assert found[number] == ARRAY[number]
            assert int(found[number]["offset"]) == int(ARRAY[number]["offset"])
    finally:
        rows._BLOCK = before


def test_scattered_rows_are_read_one_by_one(path, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK", 2)
    monkeypatch.setattr(rows, "_KEPT", 3)
    found, numbers = Rows(path), np.random.default_rng(0).integers(0, 1000, (20, 2))
    np.testing.assert_array_equal(found[numbers], ARRAY[numbers])
    assert found._block.cache_info().currsize == 0


def test_it_converts_to_an_array_and_is_pickled(path):
    found = pickle.loads(pickle.dumps(Rows(path)))
    assert (len(found), found.dtype, found.shape) == (1000, FRAME, (1000,))
    np.testing.assert_array_equal(np.array(found), ARRAY)
    assert list(found)[5] == ARRAY[5]


def test_a_bounded_number_of_blocks_is_kept(path, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK", 10)
    monkeypatch.setattr(rows, "_KEPT", 3)
    found = Rows(path)
    found[np.arange(100)]
    for first in range(0, 1000, 30):
        found[np.arange(first, first + 10)]
    assert found._block.cache_info().currsize == 3
