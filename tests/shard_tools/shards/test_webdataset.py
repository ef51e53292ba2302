"""The `webdataset` package reads our shards: every sample exactly once over all processes and workers."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import webdataset
from torch.utils.data import DataLoader

from shard_tools.errors import ShardError
from shard_tools.packing.pack import pack
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.shards.webdataset import shard_urls, webdataset_of
from tests.films import keyframes, write_set
from tests.servers import BUCKET, s3_server, use_s3

FILMS = {f"film {number}": 2 + number for number in range(7)}
TRAIN = sorted(FILMS)[:4]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), FILMS, {film: "test" for film in FILMS if film not in TRAIN})


@pytest.fixture(scope="module")
def served(source, tmp_path_factory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("s3")
    pack(source, folder / BUCKET / "shards")
    with s3_server(folder) as port:
        yield folder / BUCKET / "shards", port


@pytest.fixture(scope="module")
def index(served) -> ShardIndex:
    return ShardIndex.open(served[0])


def expected(source: Path, films: Iterable[str] = FILMS) -> dict[str, dict[str, bytes]]:
    """Key of a shot -> JPEG bytes by extension, from the key-frame folder."""
    shots: dict[str, dict[str, bytes]] = {}
    for (film, shot, image), data in keyframes(source).items():
        if film in films:
            key, extension = fmt.member_name(film, shot, image).split(".", 1)
            shots.setdefault(key, {})[extension] = data
    return shots


def read_all(samples: Iterable[dict], monkeypatch: pytest.MonkeyPatch, nodes: int, workers: int) -> list[dict]:
    """What all processes of a run read, each with its own DataLoader workers."""
    found = []
    for rank in range(nodes):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(nodes))
        found += DataLoader(samples, batch_size=None, num_workers=workers)
    return found


def alter(shard: Path) -> None:
    """Change one byte of a picture."""
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)


def pictures(sample: dict) -> dict[str, bytes]:
    return {name: data for name, data in sample.items() if not name.startswith("__")}


@pytest.mark.parametrize(("nodes", "workers"), [(1, 0), (1, 3), (2, 2), (3, 0)])
def test_nodes_and_workers_read_every_shot_exactly_once(index, source, monkeypatch, nodes, workers):
    """By webdataset's own class from the list of files, and by our pipeline."""
    urls = webdataset.WebDataset(
        shard_urls(index), shardshuffle=False, nodesplitter=webdataset.split_by_node, empty_check=False
    )
    for samples in (urls, webdataset_of(index)):
        found = read_all(samples, monkeypatch, nodes, workers)
        assert max(Counter(sample["__key__"] for sample in found).values()) == 1
        assert {sample["__key__"]: pictures(sample) for sample in found} == expected(source)


def test_a_split_is_the_shards_of_its_films(index, source):
    assert [Path(url).stem for url in shard_urls(index, "train")] == TRAIN
    found = {sample["__key__"]: pictures(sample) for sample in webdataset_of(index, "train")}
    assert found == expected(source, TRAIN)
    with pytest.raises(ShardError, match="no film in split 'val'"):
        webdataset_of(index, "val")


def test_a_set_on_s3_is_read_through_the_cache(served, source, monkeypatch, tmp_path):
    use_s3(monkeypatch, served[1])
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    index = ShardIndex.open(f"s3://{BUCKET}/shards")
    samples = webdataset_of(index)
    for _ in range(2):
        found = list(samples)
        assert {sample["__key__"]: pictures(sample) for sample in found} == expected(source)
        assert found[0]["__url__"].startswith(f"s3://{BUCKET}/shards/")
    cached = list((tmp_path / "cache" / "shards").glob("*.tar"))
    assert len(cached) == len(FILMS)
    alter(cached[0])
    assert {sample["__key__"]: pictures(sample) for sample in samples} == expected(source)


def test_a_local_shard_that_was_altered_is_named(served, tmp_path):
    shutil.copytree(served[0], tmp_path / "shards")
    alter(tmp_path / "shards" / f"{TRAIN[1]}.tar")
    samples = iter(webdataset_of(ShardIndex.open(tmp_path / "shards"), "train"))
    assert next(samples)["__key__"].startswith(TRAIN[0])
    with pytest.raises(ShardError, match=rf"{TRAIN[1]}\.tar: differs from its manifest; run `bassl-fast verify`"):
        list(samples)


def test_a_remote_set_larger_than_the_cache_is_read_shard_by_shard(served, source, monkeypatch, tmp_path):
    """A shard that was read is released, so that the next one has room."""
    use_s3(monkeypatch, served[1])
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    largest = max(shard["bytes"] for shard in ShardIndex.open(served[0]).shards)
    monkeypatch.setenv("BASSL_FAST_CACHE_GIB", str(largest / 2**30))
    samples = webdataset_of(ShardIndex.open(f"s3://{BUCKET}/shards"))
    assert {sample["__key__"] for sample in samples} == set(expected(source))
