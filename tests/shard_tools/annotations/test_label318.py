"""MovieNet's own labels: every line counts, and what contradicts or shifts others is an error with its line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shard_tools.annotations import movienet
from shard_tools.annotations.label318 import read_label318, read_shot_times
from shard_tools.errors import SourceError

LABELS = [0, 1, -1, 0, 0, 1, 0]  # of shots 0 to 6 of 8


def write(root: Path, film: str = "tt1", labels: list[int] = LABELS, shots: int = 8, folder: str = "scene318") -> Path:
    """Files of MovieNet's form; returns the file of labels."""
    for part in ("label318", "shot_movie318", "meta"):
        (root / folder / part).mkdir(parents=True, exist_ok=True)
    times = "".join(f"{24 * s} {24 * s + 23} {24 * s + 3} {24 * s + 11} {24 * s + 19}\n" for s in range(shots))
    (root / folder / "shot_movie318" / f"{film}.txt").write_text(times)
    splits = {"train": [], "val": ["tt9"], "test": [film], "all": ["tt9", film]}
    (root / folder / "meta" / "split318.json").write_text(json.dumps(splits))
    path = root / folder / "label318" / f"{film}.txt"
    path.write_text("".join(f"{shot:04d} {label}\n" for shot, label in enumerate(labels)))
    return path


@pytest.mark.parametrize("folder", ["scene318", "."])
@pytest.mark.parametrize(
    ("unsure", "boundary"),
    [(1, [0, 1, 1, 0, 0, 1, 0, 0]), (0, [0, 1, 0, 0, 0, 1, 0, 0]), (-1, [0, 1, -1, 0, 0, 1, 0, 0])],
)
def test_labels_times_and_split(tmp_path, unsure, boundary, folder):
    write(tmp_path, folder=folder)
    labels = movienet.labels_of_film(tmp_path, "tt1", np.arange(8), movienet.read_labels(tmp_path, unsure))
    assert labels.boundary.tolist() == boundary
    assert labels.start.tolist() == list(range(0, 192, 24))
    assert labels.split == "test"
    assert labels.scene.tolist() == ([-1] * 8 if unsure < 0 else [0, *np.cumsum(boundary)[:-1].tolist()])


def test_a_label_of_the_last_shot_counts(tmp_path):
    write(tmp_path, labels=[*LABELS, -1])
    found = read_label318(tmp_path)["tt1"]
    assert found.on(np.arange(8)).boundary.tolist() == [0, 1, 1, 0, 0, 1, 0, 1]
    assert (len(found.labels), found.count) == (8, 8)


def test_labels_of_fewer_shots_than_the_film_has(tmp_path):
    write(tmp_path, shots=10)
    found = read_label318(tmp_path)["tt1"]
    assert found.on(np.arange(10)).boundary.tolist() == [0, 1, 1, 0, 0, 1, 0, -1, -1, -1]
    assert (len(found.labels), found.count) == (7, 10)


def test_labels_without_times_or_splits(tmp_path):
    (tmp_path / "label318").mkdir()
    (tmp_path / "label318" / "f.txt").write_bytes("\ufeff0000 1\r0001 0\r\n".encode())
    found = read_label318(tmp_path)["f"]
    assert (found.split, found.labels, found.count) == ("", {0: (1, -1), 1: (0, -1), 2: (0, -1)}, 3)


def test_labels_of_bassl_come_first(tmp_path):
    write(tmp_path)
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno" / "anno.train.ndjson").write_text(
        '{"video_id": "tt1", "shot_id": "0000", "boundary_label": 0}\n'
    )
    assert movienet.read_labels(tmp_path)["tt1"].labels == {0: (0, -1)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0007 2", "7.txt:8: not a shot and its label"),
        ("0007 0.7", "7.txt:8: not a shot and its label"),
        ("7.5 1", "7.txt:8: not a shot and its label"),
        ("0003 1", "7.txt:8: shot 3 is labelled 1, in an earlier line 0"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    path = write(tmp_path, "tt7")
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(SourceError, match=said):
        read_label318(tmp_path)


@pytest.mark.parametrize(
    ("splits", "said"), [({"train": ["f"], "val": ["f"]}, "film f is in train and in val"), ([], "not the")]
)
def test_wrong_splits_are_named(tmp_path, splits, said):
    write(tmp_path)
    (tmp_path / "scene318" / "meta" / "split318.json").write_text(json.dumps(splits))
    with pytest.raises(SourceError, match=rf"split318\.json: {said}"):
        read_label318(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 9 1 2 3\n\n10 19 1 2 3\n", "f.txt:2: blank, which would shift all later shots"),
        ("\n0 9 1 2 3\n", "f.txt:1: blank"),
        ("0 9 1 2 3\n19 10 1 2 3\n", "f.txt:2: ends at frame 10, before it starts at 19"),
        ("0 9 1 2 3\n-1 10 1 2 3\n", "f.txt:2: ends at frame 10"),
        ("0 2.5\n", "f.txt:1: not a shot line"),
    ],
)
def test_wrong_times_are_named(tmp_path, text, said):
    (tmp_path / "f.txt").write_text(text)
    with pytest.raises(SourceError, match=said):
        read_shot_times(tmp_path / "f.txt")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
def test_times_of_other_systems(tmp_path, begin, end):
    (tmp_path / "f.txt").write_bytes((begin + end.join(["0 9 1", "10 19 1", "", ""])).encode())
    assert read_shot_times(tmp_path / "f.txt").tolist() == [[0, 9], [10, 19]]
