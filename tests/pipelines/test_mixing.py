"""Several sets of shards in one loader: the same exactness as of one."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.loader import WindowLoader
from pipelines.mixing import join, open_sets, part_of
from pipelines.store import Store
from shard_tools.errors import ConfigError
from shard_tools.packing.pack import pack
from shard_tools.shards.index import ShardIndex
from tests.servers import BUCKET, use_s3

from .conftest import SIZE, assert_all_equal, draw_films, flip_byte, sample

pytestmark = pytest.mark.slow

MORE = {"wide": (6, 2, 48, 64), "xtra": (5, 2, 48, 64)}  # one has the name of another film of the first set


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> ShardIndex:
    folder = tmp_path_factory.mktemp("more")
    draw_films(folder / "source", MORE)
    pack(folder / "source", folder / "shards", quiet=True)
    return ShardIndex.open(folder / "shards")


@pytest.fixture(scope="module")
def joined(shards: ShardIndex, more: ShardIndex) -> ShardIndex:
    return join([shards, more], [0.75, 0.25])


def loader_of(index: ShardIndex, **options) -> WindowLoader:
    return WindowLoader(index, index.select(None), sample, SIZE, **{"global_batch": 4, "seed": 3, **options})


def test_all_rows_are_those_of_the_parts(shards: ShardIndex, more: ShardIndex, joined: ShardIndex):
    assert joined.films == shards.films + more.films
    frames = np.arange(len(joined.frames))
    assert (joined.frames[frames] == np.concatenate([shards.frames[:], more.frames[:]])).all()
    assert (joined.frames[3:-2] == joined.frames[frames[3:-2]]).all()
    pictures = [bytes(jpeg) for jpeg in Store(joined).read(frames)]
    own = [bytes(jpeg) for part in (shards, more) for jpeg in Store(part).read(np.arange(len(part.frames)))]
    assert pictures == own
    assert [joined.locate(frame) for frame in frames.tolist()] == [
        part.locate(frame) for part in (shards, more) for frame in range(len(part.frames))
    ]
    for film in range(len(joined.films)):
        part, number = (shards, film) if film < len(shards.films) else (more, film - len(shards.films))
        assert (joined.shots_of(film) == part.shots_of(number)).all()
    assert part_of(joined, len(joined.shards) - 1) == (more, len(more.shards) - 1)


def test_processes_and_restarts_change_nothing(joined: ShardIndex):
    loader = loader_of(joined)
    straight = [*loader, *loader]
    ranks = [loader_of(joined, rank=rank, world_size=2) for rank in range(2)]
    parts = [[*rank, *rank] for rank in ranks]
    whole = [{k: torch.cat([p[k] for p in part]) for k in part[0]} for part in zip(*parts, strict=True)]
    assert_all_equal(whole, straight)
    steps = len(loader)
    again = loader_of(joined)
    again.load_state_dict({"epoch": 0, "step": steps - 1})
    assert_all_equal([*again, *islice(again, 2)], straight[steps - 1 : steps + 2])
    films = torch.cat([batch["film"] for batch in straight])
    assert (films >= 3).sum() == len(films) // 4


def test_a_fault_is_named_in_its_set(shards: ShardIndex, tmp_path: Path):
    """Also of a film whose name is in both sets."""
    draw_films(tmp_path / "source", MORE)
    pack(tmp_path / "source", tmp_path / "shards", quiet=True)
    broken = ShardIndex.open(tmp_path / "shards")
    flip_byte(broken, 0)
    store, first = Store(join([shards, broken], [1, 1])), len(shards.frames)
    _, faults = store.check(np.array([0, first]))
    assert list(faults) == [first]
    assert store.describe(first, "x").startswith(f"{tmp_path}/shards/wide.tar: wide/shot_0000.0.jpg at byte ")


def test_a_remote_and_a_local_set(
    joined: ShardIndex, more: ShardIndex, served: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    use_s3(monkeypatch, served)
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path))
    remote = ShardIndex.open(f"s3://{BUCKET}/shards")
    assert_all_equal([*loader_of(join([remote, more], [0.75, 0.25]))], [*loader_of(joined)])


def test_sets_that_do_not_go_together_are_refused(shards: ShardIndex, more: ShardIndex, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is the same set as .*; name it once"):
        join([shards, more, ShardIndex.open(shards.root)], [1, 1, 1])
    with pytest.raises(ConfigError, match=r"holds films, .* pictures; mix sets of one kind"):
        join([shards, replace(more, kind="pictures")], [1, 1])
    with pytest.raises(ConfigError, match="other classes"):
        join([shards, replace(more, classes=["yoga"])], [1, 1])
    with pytest.raises(ConfigError, match="weights are for several sets"):
        open_sets({str(shards.root): 1.0})
    assert open_sets(str(shards.root)).digest() == shards.digest()
    assert open_sets({str(shards.root): 1.0, str(more.root): 2}).digest() == f"{shards.digest()}+{more.digest()}"
