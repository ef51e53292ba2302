from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines.store import Store
from shard_tools.errors import PictureError
from shard_tools.format import ShardIndex
from shard_tools.movienet import keyframe_name

from .conftest import FILMS


def test_bytes_are_those_of_the_files_in_order_of_film_shot_and_image(shards: ShardIndex, source: Path):
    names = [
        source / "240P_frames" / film / keyframe_name(shot, image)
        for film in sorted(FILMS)
        for shot in range(FILMS[film][0])
        for image in range(FILMS[film][1])
    ]
    pictures = Store(shards).read(np.arange(len(shards.frames)))
    assert [picture.tobytes() for picture in pictures] == [name.read_bytes() for name in names]


def test_rows_come_in_any_order_and_repeated(shards: ShardIndex):
    store = Store(shards)
    every = store.read(np.arange(len(shards.frames)))
    rows = np.random.default_rng(0).integers(0, len(every), 50)
    assert all((picture == every[row]).all() for picture, row in zip(store.read(rows), rows, strict=True))


def test_more_shards_than_may_be_mapped(shards: ShardIndex, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipelines.store._MAPPED", 1)
    store, whole = Store(shards), Store(shards)
    first_rows = shards.sequences["first_frame"].astype(np.int64)
    for rows in (first_rows, first_rows[::-1]):
        assert all((a == b).all() for a, b in zip(store.read(rows), whole.read(rows), strict=True))


def test_a_changed_byte_is_found_and_named(shards: ShardIndex, tmp_path: Path):
    root = shutil.copytree(shards.root, tmp_path / "shards")
    index = ShardIndex.open(root)
    frame = 17
    offset = int(index.frames["offset"][frame])
    shard, member, at = index.locate(frame)
    with tarfile.open(shard) as tar:
        assert tar.getmember(member).offset_data == at == offset
    data = bytearray(Path(shard).read_bytes())
    data[offset + 99] ^= 1
    Path(shard).write_bytes(data)

    store = Store(index)
    store.read(np.setdiff1d(np.arange(len(index.frames)), [frame]))
    for _ in range(2):  # not taken for good the second time
        with pytest.raises(PictureError) as error:
            store.read(np.array([3, frame]))
        assert str(error.value).startswith(f"{shard}: {member} at byte {offset}: ")
