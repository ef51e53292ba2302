"""Films are added to a finished set: it ends as if packed at once, and is the old set until the manifest is written."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from shard_tools.annotations import movienet
from shard_tools.errors import ShardError
from shard_tools.packing.pack import pack
from shard_tools.packing.repair import repair
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.storage.cache import Cache
from shard_tools.storage.output import LocalPlace
from tests.films import picture, write_set

FIRST, SECOND, THIRD = {"b": 3, "d": (0, 2, 5)}, {"a": 2, "c": 4}, {"e and longer": 1}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> list[Path]:
    """Three sets of films, and all of them in one."""
    sets = [FIRST, SECOND, THIRD, FIRST | SECOND | THIRD]
    made = [write_set(tmp_path_factory.mktemp("source"), films, {"c": "test"}, images=1) for films in sets]
    for source in made[:3]:  # the same key-frames in both
        for film in (source / movienet.FRAMES_DIR).iterdir():
            shutil.copytree(film, made[3] / movienet.FRAMES_DIR / film.name, dirs_exist_ok=True)
    return made


@pytest.fixture
def shards(tmp_path: Path, sources: list[Path]) -> Path:
    pack(sources[0], tmp_path / "shards")
    return tmp_path / "shards"


def manifest(shards: Path) -> dict:
    return json.loads((shards / fmt.MANIFEST).read_text())


def contents(index: ShardIndex) -> list:
    return [index.shards, index.frames[:].tolist(), index.sequences.tolist(), index.shots.tolist()]


def test_a_set_that_films_were_added_to_is_that_of_all_films(sources: list[Path], shards: Path, tmp_path: Path):
    pack(sources[1], shards, add=True)
    report = pack(sources[2], shards, add=True)
    pack(sources[3], tmp_path / "all")
    grown, whole = ShardIndex.open(shards), ShardIndex.open(tmp_path / "all")
    assert grown.films == ["a", "b", "c", "d", "e and longer"]
    assert contents(grown) == contents(whole)
    assert verify(shards) == []
    assert manifest(shards)["edition"] == 3
    assert manifest(shards)["completeness"] == manifest(tmp_path / "all")["completeness"] == report.as_json()


def test_films_are_added_at_an_address(sources: list[Path], shards: Path, tmp_path: Path):
    address, cache = "memory://adding/shards", Cache(tmp_path / "cache")
    pack(sources[0], address)
    before = ShardIndex.open(address, cache)
    pack(sources[1], address, add=True)
    pack(sources[1], shards, add=True)
    assert contents(ShardIndex.open(address, cache)) == contents(ShardIndex.open(shards))
    assert before.films == ["b", "d"] == [before.name_of(film) for film in range(2)]
    assert verify(address) == []


def test_a_set_is_the_old_one_for_who_has_it_open_and_until_all_is_there(sources, shards, monkeypatch):
    opened, before = ShardIndex.open(shards), manifest(shards)
    old, write = contents(opened), LocalPlace.write

    def stop_at_manifest(place: LocalPlace, name: str, data: bytes) -> None:
        if name == fmt.MANIFEST:
            raise KeyboardInterrupt
        write(place, name, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LocalPlace, "write", stop_at_manifest)
        pack(sources[1], shards, add=True)
    assert manifest(shards) == before
    assert contents(ShardIndex.open(shards)) == old
    assert verify(shards) == []
    (shards / "x.tar").touch()
    assert verify(shards) == [f"{shards}/x.tar: not of this set; move it away"]
    pack(sources[1], shards, add=True)  # resumes
    assert len(ShardIndex.open(shards).films) == 4
    assert contents(opened) == old
    assert contents(pickle.loads(pickle.dumps(opened))) == old  # in a process started later


def test_notes_left_by_an_earlier_pack_remove_no_film_of_the_set(sources, shards):
    (shards / ".pack").mkdir(exist_ok=True)
    (shards / ".pack" / "b.npz").write_bytes(b"left when the machine stopped after the manifest was written")
    pack(sources[1], shards, add=True)
    assert verify(shards) == []


def test_what_was_missing_before_stays_in_the_report(sources, shards, tmp_path):
    source = write_set(tmp_path / "source", {"f": 3, "g": 2}, images=1)
    for name in ("f/shot_0001_img_0.jpg", "g/shot_0000_img_0.jpg", "g/shot_0001_img_0.jpg"):
        (source / movienet.FRAMES_DIR / name).unlink()
    (source / movienet.FRAMES_DIR / "g").rmdir()
    pack(source, shards, add=True)
    pack(sources[1], shards, add=True)
    report = manifest(shards)["completeness"]
    assert report["films without key-frames"] == ["g"]
    assert report["shots without key-frames"] == {"d": "1, 3-4", "f": "1"}


def test_films_that_were_added_are_not_repaired_away(sources, shards):
    pack(sources[1], shards, add=True)
    with pytest.raises(ShardError, match=r"lacks 2 shards of the set, a.tar among them; repair from"):
        repair(shards, sources[0])
    assert verify(shards) == []


def test_what_cannot_be_added_is_refused_in_one_line(sources, shards, tmp_path):
    before = sorted(path.name for path in shards.iterdir())
    with pytest.raises(ShardError, match="already holds film b and 1 more; leave it out of the source"):
        pack(sources[0], shards, add=True)
    with pytest.raises(ShardError, match="no finished set of shards to add to; leave out --add"):
        pack(sources[0], tmp_path / "none", add=True)
    for name in ("train/x/0.jpg", "train/y/1.jpg"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(picture())
    with pytest.raises(ShardError, match="a set of films; only films can be added to films, not pictures"):
        pack(tmp_path / "pictures", shards, add=True)
    assert sorted(path.name for path in shards.iterdir() if path.name != ".pack") == before
