"""`hf://` addresses: a zip on the Hugging Face Hub is packed without unpacking or fetching it whole, and resumed."""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shard_tools.annotations import movienet
from shard_tools.errors import MissingDependency, RemoteError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.packing.verify import verify
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import zip_films
from shard_tools.storage import remote
from shard_tools.storage.cache import Cache
from tests.films import digests, write_set
from tests.hub import hub
from tests.shard_tools.sources.test_films import write_zip

pytestmark = pytest.mark.slow
SET = "hf://datasets/lab/movienet"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("source"), {"a [1]": 3, "b#%?": (0, 2), "c": 4}, {"c": "test"})


@pytest.fixture(scope="module")
def packed(tmp_path_factory, source) -> dict[str, str]:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    pack(source, dst)
    return digests(dst)


@pytest.fixture(scope="module")
def stored(tmp_path_factory, source) -> Path:
    """The set as a zip of tars, a zip of folders, and folders, with its annotations."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "lab" / "movienet"
    folder.mkdir(parents=True)
    write_zip(source, folder / "tars.zip", root / "tars")
    with zipfile.ZipFile(folder / "folders.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((source / movienet.FRAMES_DIR).rglob("*"), reverse=True):
            archive.write(path, path.relative_to(source))
    for name in ("anno", "scene318"):
        shutil.copytree(source / name, folder / name)
    shutil.copytree(source / movienet.FRAMES_DIR, folder / "films" / movienet.FRAMES_DIR)
    return root


class Requests(list[str]):
    """Paths asked for; `status` answers those that hold `part` while `left` lasts."""

    status, part, left = 0, "", 0

    def __call__(self, path: str) -> int:
        self.append(path)
        if self.part in path and self.left:
            self.left -= 1
            return self.status
        return 0


@pytest.fixture
def requests(stored, monkeypatch) -> Iterator[Requests]:
    found = Requests()
    with hub(stored, found) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield found


@pytest.mark.parametrize("name", ["tars.zip", "folders.ZIP"])
def test_a_zip_with_the_annotations_beside_it(requests, packed, tmp_path, name):
    pack(f"{SET}/{name}", tmp_path / "dst")
    assert digests(tmp_path / "dst") == packed


def test_folders(requests, packed, tmp_path):
    pack(f"{SET}/films", tmp_path / "dst", annotations=SET)
    assert digests(tmp_path / "dst") == packed


def test_a_film_is_fetched_alone_and_a_stopped_pack_resumes(requests, packed, tmp_path, monkeypatch):
    """Requests are as small as members: only the film that was not finished is asked for again."""
    monkeypatch.setattr(zip_films, "_BLOCK", 1)
    monkeypatch.setattr(remote, "WAIT", 0.5)
    films = zip_films.zip_films(f"{SET}/tars.zip")
    assert [film.name for film in sorted(films, key=lambda film: film.name)] == ["a [1]", "b#%?", "c"]
    opened = len([path for path in requests if path.endswith(".zip")])
    requests.clear()
    pack(f"{SET}/tars.zip", tmp_path / "whole")
    before = len([path for path in requests if path.endswith(".zip")])

    def stop(*_: object) -> None:
        raise SourceError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", stop)
        with pytest.raises(SourceError, match="stopped"):
            pack(f"{SET}/tars.zip", tmp_path / "dst")
    (tmp_path / "dst" / "c.tar").unlink()
    requests.clear()
    pack(f"{SET}/tars.zip", tmp_path / "dst")
    again = len([path for path in requests if path.endswith(".zip")])
    assert opened < again < before
    assert digests(tmp_path / "dst") == packed


def test_a_busy_hub_only_costs_time(requests, packed, tmp_path):
    requests.part, requests.status, requests.left = "tars.zip", 503, 2
    pack(f"{SET}/tars.zip", tmp_path / "dst")
    assert requests.left == 0
    assert digests(tmp_path / "dst") == packed


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        (f"{SET}/none.zip", SourceError, "no such file; give the zip"),
        ("hf://datasets/lab/none", SourceError, "no films here"),
        ("hf://datasets/lab", RemoteError, "refused; fix the address"),
    ],
)
def test_what_is_not_there_is_said_at_once(requests, tmp_path, address, kind, said):
    with pytest.raises(kind, match=said):
        pack(address, tmp_path / "dst")


def test_the_hub_is_not_written_to(source):
    with pytest.raises(RemoteError, match="hf addresses are read-only; give a path"):
        pack(source, f"{SET}/shards")


def test_no_permission_is_said_at_once(requests, tmp_path):
    requests.part, requests.status, requests.left = "/api/datasets", 403, 99
    with pytest.raises(RemoteError, match="no permission; set the keys"):
        pack(f"{SET}/tars.zip", tmp_path / "dst")


def test_shards_and_files_on_the_hub_are_read_and_fetched_once(requests, stored, source, tmp_path, monkeypatch):
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    pack(source, stored / "lab" / "movienet" / "shards")
    assert verify(f"{SET}/shards", "all") == []
    index = ShardIndex.open(f"{SET}/shards")
    assert index.films == ["a [1]", "b#%?", "c"]
    annotations = f"{SET}/anno/anno.test.ndjson"
    assert Cache().file(annotations).read_bytes() == (source / "anno" / "anno.test.ndjson").read_bytes()
    requests.clear()
    Cache().file(annotations)
    assert not [path for path in requests if "/resolve/" in path]


def test_the_extra_is_named_if_the_package_is_missing(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "hf", raising=False)
    with pytest.raises(MissingDependency, match=r"pip install 'bassl-fast\[hf\]'"):
        pack(f"{SET}/tars.zip", tmp_path / "dst")
