"""What annotations promise is held against what was packed, and said; `strict` fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bassl_fast import cli
from shard_tools.annotations import movienet
from shard_tools.errors import SourceError
from shard_tools.packing.pack import pack
from shard_tools.packing.verify import verify
from shard_tools.shards.index import ShardIndex
from tests.films import digests, make_labels, write_film, write_set


def test_a_film_that_lacks_its_last_shots(tmp_path):
    """Labels move to shots with key-frames, but the end of a film is not a boundary."""
    write_film(tmp_path, "f", 7)
    movienet.write_annotations(tmp_path, {"f": make_labels(10, "test", scene=4)})
    report = pack(tmp_path, tmp_path / "dst")
    assert report.lines() == [
        "f: no key-frames of shots 7-9",
        "annotated: test 1 of 1 films, 7 of 10 shots",
        "annotated shots without key-frames: 3",
    ]
    index = ShardIndex.open(tmp_path / "dst")
    assert index.shots["boundary"].tolist() == [0, 0, 0, 1, 0, 0, 0]


@pytest.fixture
def source(tmp_path) -> Path:
    """Films a and b as annotated; c without annotations; d annotated alone; of e, other shots; g in no split."""
    root = tmp_path / "films"
    for film, shots in {"a": 4, "b": 3, "c": 2, "e": (0, 1, 2, 5), "g": 2}.items():
        write_film(root, film, shots)
    labels = {film: make_labels(shots, split) for film, shots, split in [("a", 4, "train"), ("b", 3, "val")]}
    labels |= {"d": make_labels(6, "train"), "e": make_labels(4, "test")}
    movienet.write_annotations(root, labels)
    (root / "scene318" / "label318").mkdir()
    (root / "scene318" / "label318" / "g.txt").write_text("0000 1\n")
    return root


LINES = [
    "e: no key-frames of shots 3-4",
    "annotated: train 1 of 2 films, 4 of 10 shots; val 1 of 1 films, 3 of 3 shots; test 1 of 1 films, 3 of 4 shots; "
    "none 1 of 1 films, 2 of 2 shots",
    "films without annotations: 1 (c)",
    "annotated films without key-frames: 1 (d)",
    "shots with key-frames that the annotations of their film leave out: 1 (e: 5)",
    "annotated films in no split, so their labels are not used: 1",
]


def test_everything_on_one_side_only_is_said(source, tmp_path, capsys):
    assert cli.main(["pack", str(source), str(tmp_path / "dst")]) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == LINES
    assert cli.main(["info", str(tmp_path / "dst"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["completeness"]
    assert found["films without key-frames"] == ["d"]
    assert found["films without annotations"] == ["c"]
    assert found["shots without key-frames"] == {"e": "3-4"}
    assert found["key-frames without annotation"] == {"e": "5"}
    assert found["by split"]["train"]["annotated shots packed"] == 4
    assert cli.main(["info", str(tmp_path / "dst")]) == 0
    assert "films without key-frames d" in capsys.readouterr().out


def test_strict_fails_and_the_same_command_without_it_goes_on(source, tmp_path, capsys):
    assert cli.main(["pack", str(source), str(tmp_path / "dst"), "--strict"]) == 1
    said = f"bassl-fast: {tmp_path / 'dst'}: not finished; annotated films without key-frames: 1 (d), and 2 more;"
    assert capsys.readouterr().err.startswith(said)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "dst").glob("*.tar")}
    assert not (tmp_path / "dst" / "manifest.json").exists()
    pack(source, tmp_path / "dst")
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "dst").glob("*.tar")}
    pack(source, tmp_path / "other")
    assert digests(tmp_path / "other") == digests(tmp_path / "dst")


def test_strict_is_content_with_what_is_complete(tmp_path):
    write_set(tmp_path / "films", {"a": (0, 2, 3), "b": 3}, {"b": "test"})
    write_film(tmp_path / "films", "without", 2)
    assert pack(tmp_path / "films", tmp_path / "dst", strict=True).faults() == []
    shutil.rmtree(tmp_path / "films" / "anno")
    with pytest.raises(SourceError, match="--strict needs annotations"):
        pack(tmp_path / "films", tmp_path / "new", strict=True)


@pytest.mark.parametrize("name", ["other", "f"])
def test_annotations_that_label_nothing_are_an_error(tmp_path, name):
    write_film(tmp_path / "films", "f", range(5, 8))
    write_film(tmp_path / "films", "g", 1)
    movienet.write_annotations(tmp_path / "there", {name: make_labels(3)})
    with pytest.raises(SourceError, match=r"there: labels none of the"):
        pack(tmp_path / "films", tmp_path / "dst", annotations=tmp_path / "there")
    assert not (tmp_path / "dst" / "manifest.json").exists()


def test_a_wrong_address_of_annotations_is_an_error(tmp_path):
    write_film(tmp_path / "films", "f", 1)
    with pytest.raises(SourceError, match="memory://nothing: no folder anno/ or scene318/ in it"):
        pack(tmp_path / "films", tmp_path / "dst", annotations="memory://nothing")


def test_from_inside_the_folder_of_films(tmp_path, monkeypatch):
    write_set(tmp_path, {"f": 3})
    monkeypatch.chdir(tmp_path / movienet.FRAMES_DIR)
    assert pack(".", tmp_path / "dst").splits == {"train": (1, 1, 3, 3)}


def test_annotations_unpacked_one_folder_too_deep(tmp_path):
    write_set(tmp_path, {"f": 3})
    (tmp_path / "anno").rename(tmp_path / "unpacked")
    (tmp_path / "anno").mkdir()
    (tmp_path / "unpacked").rename(tmp_path / "anno" / "anno")
    assert pack(tmp_path, tmp_path / "dst").labelled == 3


def test_the_folder_that_the_reference_downloads(tmp_path):
    """anno.tar beside the films, which are in 240P as tars, in 240P_frames as folders, one of them unpacked in part."""
    root = write_set(tmp_path / "data", {"a": 3, "b": 4, "c": 2})
    pack(root, tmp_path / "expected")
    (root / "240P").mkdir()
    for film in "ab":
        shutil.make_archive(str(root / "240P" / film), "tar", root / movienet.FRAMES_DIR, film)
    shutil.rmtree(root / movienet.FRAMES_DIR / "b")
    write_film(root, "b", 1)
    (root / "anno.tar").write_bytes(b"\0" * 10240)
    pack(root, tmp_path / "dst")
    assert digests(tmp_path / "dst") == digests(tmp_path / "expected")


def test_a_changed_report_is_found(tmp_path):
    write_set(tmp_path, {"f": 3})
    pack(tmp_path, tmp_path / "dst")
    manifest = tmp_path / "dst" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"annotated shots": 3', '"annotated shots": 4'))
    assert verify(tmp_path / "dst", "none") == [
        f"{manifest}: changed since it was written; copy it again or repair",
    ]
