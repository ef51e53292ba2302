"""The same batches from any number of real processes, however they are started; they all end together."""

from __future__ import annotations

import re
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from shard_tools.shards.index import ShardIndex
from tests.servers import BUCKET, use_s3

from .conftest import flip_byte
from .processes import Case, digests, open_loader, run_apart

pytestmark = pytest.mark.slow

STEPS = 4  # 31 shots in batches of 8
EQUAL = {
    "spawned": {"world_size": 2, "start": "spawn", "threads": 3},
    "four": {"world_size": 4, "threads": 1},
    "eight": {"world_size": 8},
    "resumed": {"world_size": 2, "at": 3, "threads": 5},
    "pooled": {"world_size": 2, "pool": 1},
}
BROKEN = {
    "too many": {"world_size": 2, "gloo": True, "max_broken": 1e-6},
    "one raises": {"world_size": 2, "gloo": True},
}


@pytest.fixture(scope="module")
def damaged(shards: ShardIndex, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Films with a changed key-frame, which process 1 of 2 shows in step 2 and no process before."""
    index = ShardIndex.open(shutil.copytree(shards.root, tmp_path_factory.mktemp("damaged") / "shards"))
    frames = [open_loader(Case(str(shards.root), 1), 0).draw(0, step)[1].views["frame"] for step in range(3)]
    flip_byte(
        index, int(np.setdiff1d(frames[2][4:], [*frames[0].ravel(), *frames[1].ravel(), *frames[2][:4].ravel()])[0])
    )
    return str(index.root)


@pytest.fixture(scope="module")
def answers(shards: ShardIndex, damaged: str, warm: str) -> dict:
    whole = [Case(str(shards.root), **case) for case in EQUAL.values()]
    found = run_apart(warm, whole + [Case(damaged, **case) for case in BROKEN.values()])
    return {**dict(zip([*EQUAL, *BROKEN], found["cases"], strict=True)), "forked": found["forked"]}


def expected(shards: ShardIndex, case: Case) -> list[list[str]]:
    """Digests of what one process sees."""
    loader = open_loader(Case(str(shards.root), 1, at=case.at, pool=case.pool), 0)
    return [digests(batch) for _ in range(2) for batch in loader]


def together(answer: list) -> list[list[str]]:
    """Digests of the global batches."""
    assert [error for _, error in answer] == [None] * len(answer)
    return [[*chain(*parts)] for parts in zip(*(seen for seen, _ in answer), strict=True)]


@pytest.mark.parametrize("name", EQUAL)
def test_real_processes_together_see_what_one_sees(shards: ShardIndex, answers: dict, name: str):
    case = Case(str(shards.root), **EQUAL[name])
    assert together(answers[name]) == expected(shards, case)
    assert len(expected(shards, case)) == 2 * STEPS - case.at


def test_real_processes_see_the_same_from_remote_shards(
    shards: ShardIndex, served: int, warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    use_s3(monkeypatch, served)
    case = Case(f"s3://{BUCKET}/shards", 2, pool=2, cache=str(tmp_path / "cache"))
    assert together(run_apart(warm, [case])["cases"][0]) == expected(shards, case)


def test_above_the_rate_all_processes_stop_at_the_same_step(answers: dict):
    (seen, error), (other_seen, other_error) = answers["too many"]
    assert re.search(r"PictureError: .*: [1-9]\d* of the last 224 views show a substitute", error)
    assert other_error == error
    assert len(seen) == len(other_seen) == STEPS - 1


def test_where_one_process_raises_the_other_does_not_hang(answers: dict):
    (_, error), (_, other_error) = answers["one raises"]
    assert other_error.startswith("PictureError: ")
    assert error.startswith("RuntimeError: ")


def test_a_loader_in_use_is_refused_after_a_fork(answers: dict):
    assert answers["forked"].startswith("ConfigError: this process was forked")
