"""The MovieNet layout: what is written is read back, and what is wrong is named with file and line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shard_tools.annotations import movienet
from shard_tools.annotations.label318 import read_shot_times
from shard_tools.annotations.labels import ShotLabels, scenes_from_boundaries
from shard_tools.errors import SourceError
from shard_tools.sources import keyframe_folder
from tests.films import make_labels, write_film, write_set

NAMES = ["tt0001", "Amélie – 映画", "two words", "v1.0.cut"]
COLUMNS = ("shot", "boundary", "scene", "start", "end")


def read_back(root: Path, film: str, shots: np.ndarray) -> ShotLabels:
    return movienet.labels_of_film(root, film, shots, movienet.read_labels(root))


def assert_same(found: ShotLabels, expected: ShotLabels) -> None:
    assert found.split == expected.split
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(found, column), getattr(expected, column), column)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("shots", [range(7), (0, 1, 4, 5, 9), (3,)])
def test_annotations_are_read_back_as_written(tmp_path, split, shots):
    written = {film: make_labels(shots, split) for film in NAMES}
    movienet.write_annotations(tmp_path, written)
    for film, expected in written.items():
        assert_same(read_back(tmp_path, film, expected.shot), expected)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_labels_are_read_back_as_written(data):
    shots = np.array(sorted(data.draw(st.sets(st.integers(0, 60), min_size=1, max_size=12))))
    boundary = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=len(shots), max_size=len(shots))), np.int8)
    start = np.array(data.draw(st.lists(st.integers(0, 2**30), min_size=len(shots), max_size=len(shots))), np.int32)
    split = data.draw(st.sampled_from(movienet.SPLITS))
    expected = ShotLabels(shots, boundary, scenes_from_boundaries(boundary), start, start + 9, split)
    with tempfile.TemporaryDirectory() as folder:
        movienet.write_annotations(Path(folder), {"f": expected})
        assert_same(read_back(Path(folder), "f", shots), expected)


def test_annotation_files_are_where_movienet_has_them(tmp_path):
    write_set(tmp_path, {"a": 4, "b": (0, 2)}, {"b": "test"})
    rows = [json.loads(line) for line in (tmp_path / "anno" / "anno.test.ndjson").read_text().splitlines()]
    assert [(row["video_id"], row["shot_id"], row["num_shot"]) for row in rows] == [("b", "0000", 2), ("b", "0002", 2)]
    assert len((tmp_path / "anno" / "anno.trainvaltest.ndjson").read_text().splitlines()) == 6
    assert {json.loads(x)["boundary_label"] for x in (tmp_path / "anno" / "anno.pretrain.ndjson").open()} == {-1}
    assert json.loads((tmp_path / "anno" / "vid2idx.json").read_text()) == {"a": 0, "b": 1}
    times = (tmp_path / "scene318" / "shot_movie318" / "b.txt").read_text().splitlines()
    assert times == ["0 47 7 23 39", "-1 -1 -1 -1 -1", "96 143 103 119 135"]


def test_a_film_without_annotations_has_unknown_labels(tmp_path):
    labels = read_back(tmp_path, "nobody", np.arange(3))
    assert labels.split == ""
    assert all((getattr(labels, column) == -1).all() for column in COLUMNS[1:])


def test_shots_beyond_the_files_have_unknown_labels(tmp_path):
    movienet.write_annotations(tmp_path, {"f": make_labels(3)})
    labels = read_back(tmp_path, "f", np.array([1, 2, 8]))
    assert labels.boundary.tolist() == [0, 0, -1]
    assert labels.start.tolist() == [48, 96, -1]
    assert labels.scene.tolist() == [-1, -1, -1]


GOOD = '{"video_id": "f", "shot_id": "0000", "boundary_label": 0}\n'


@pytest.mark.parametrize(
    "line",
    [
        '{"video_id": "f", "shot_id": "00',
        '{"video_id": "f", "shot_id": "0001"}',
        '{"video_id": "f", "shot_id": "one", "boundary_label": 0}',
        '{"video_id": "f", "shot_id": 1, "boundary_label": Infinity}',
        '{"video_id": "f", "shot_id": 1, "boundary_label": 7}',
        '{"video_id": "f", "shot_id": 1, "boundary_label": null}',
        '{"video_id": "f", "shot_id": 1, "boundary_label": 0, "invideo_scene_id": 99999999999}',
        "[1, 2]",
        "7",
    ],
)
def test_a_broken_annotation_line_is_named(tmp_path, line):
    path = tmp_path / "anno" / "anno.val.ndjson"
    path.parent.mkdir()
    path.write_text(GOOD + "\n" + line + "\n")
    with pytest.raises(SourceError, match=r"anno\.val\.ndjson:3: ") as error:
        movienet.read_labels(tmp_path)
    assert "\n" not in str(error.value)


def test_annotations_that_are_not_text_are_an_error(tmp_path):
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno" / "anno.train.ndjson").write_bytes(b"\xff\xd8\xff\xe0" * 9)
    with pytest.raises(SourceError, match=r"anno\.train\.ndjson: not UTF-8"):
        movienet.read_labels(tmp_path)


def test_a_film_in_two_splits_is_an_error(tmp_path):
    (tmp_path / "anno").mkdir()
    for split in ("train", "test"):
        (tmp_path / "anno" / f"anno.{split}.ndjson").write_text(GOOD)
    with pytest.raises(SourceError, match=r"anno\.test\.ndjson:1: film f is also in train"):
        movienet.read_labels(tmp_path)


@pytest.mark.parametrize("line", ["12", "a b c d e", "1.5 2 3 4 5", "1 99999999999 2 3 4"])
def test_a_broken_shot_line_is_named(tmp_path, line):
    path = tmp_path / "f.txt"
    path.write_text(f"0 47 7 23 39\n{line}\n\n")
    with pytest.raises(SourceError, match=r"f\.txt:2: not a shot line"):
        read_shot_times(path)


def test_gaps_in_shot_numbers_are_kept(tmp_path):
    numbers, files = keyframe_folder.list_keyframes(write_film(tmp_path, "f", (0, 3, 10_000), images=2))
    assert numbers.tolist() == [0, 3, 10_000]
    assert [[Path(path).name for path in shot] for shot in files][2] == ["shot_10000_img_0.jpg", "shot_10000_img_1.jpg"]


def test_images_are_ordered_by_number_not_by_name(tmp_path):
    _, files = keyframe_folder.list_keyframes(write_film(tmp_path, "f", 1, images=12))
    assert [Path(path).name for path in files[0]] == [f"shot_0000_img_{k}.jpg" for k in range(12)]


@pytest.mark.parametrize("name", ["shot_0001_img_1.jpg", "shot_0002_img_0.jpg", "shot_0000_img_2.jpg"])
def test_a_missing_keyframe_is_named(tmp_path, name):
    folder = write_film(tmp_path, "f", 3)
    (folder / name).unlink()
    with pytest.raises(SourceError, match=f"{name}: key-frame missing"):
        keyframe_folder.list_keyframes(folder)


@pytest.mark.parametrize("name", ["cover.jpg", "shot_0000_img_0.jpg.tmp", "shot_0000_img_0.png", "shot_0_1.jpg", "x"])
def test_a_file_outside_the_naming_scheme_is_an_error(tmp_path, name):
    folder = write_film(tmp_path, "f", 1)
    (folder / name).write_bytes(b"")
    with pytest.raises(SourceError, match="not a key-frame name"):
        keyframe_folder.list_keyframes(folder)


def test_two_files_for_one_keyframe_are_an_error(tmp_path):
    folder = write_film(tmp_path, "f", 2)
    (folder / "shot_1_img_0.jpg").write_bytes(b"other")
    with pytest.raises(SourceError, match="same key-frame as"):
        keyframe_folder.list_keyframes(folder)


@pytest.mark.parametrize("name", [".DS_Store", "._shot_0000_img_0.jpg", "Thumbs.db", "thumbs.db", "desktop.ini"])
def test_litter_of_desktop_systems_is_ignored(tmp_path, name):
    folder = write_film(tmp_path, "f", 2)
    (folder / name).write_bytes(b"x")
    assert keyframe_folder.list_keyframes(folder)[0].tolist() == [0, 1]


def test_a_film_with_no_shots_is_an_error(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / ".DS_Store").write_bytes(b"x")
    with pytest.raises(SourceError, match="a film without shots"):
        keyframe_folder.list_keyframes(tmp_path / "f")


def test_the_frames_folder_is_found_from_above_or_given_itself(tmp_path):
    write_film(tmp_path, "f", 1)
    frames = tmp_path / movienet.FRAMES_DIR
    assert keyframe_folder.find_frames_dir(tmp_path) == frames
    assert keyframe_folder.find_frames_dir(frames) == frames


@pytest.mark.parametrize(
    "folders", [[], ["240P_frames"], ["240P_frames/f"], ["anno", "scene318"], ["240P_frames/.git"]]
)
def test_a_folder_not_in_the_layout_is_an_error_that_shows_the_layout(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(
        SourceError, match=r"(not a key-frame|an empty) folder.*240P_frames/<film>/shot_0000_img_0\.jpg"
    ):
        keyframe_folder.find_frames_dir(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_source_that_is_not_a_folder_is_an_error(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SourceError, match=f"{name}: no such folder"):
        keyframe_folder.find_frames_dir(tmp_path / name)


def test_films_are_listed_by_name_through_links_and_without_hidden_folders(tmp_path):
    elsewhere = write_film(tmp_path / "elsewhere", "x", 1)
    for film in ("b", "a", ".pack"):
        write_film(tmp_path, film, 1)
    frames = tmp_path / movienet.FRAMES_DIR
    (frames / "c").symlink_to(elsewhere, target_is_directory=True)
    (frames / "list.txt").write_text("x")
    assert [film.name for film in keyframe_folder.list_films(frames)] == ["a", "b", "c"]
    (frames / "d").symlink_to(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="d: broken symlink"):
        keyframe_folder.list_films(frames)


def test_a_scene_whose_last_shot_has_no_pictures_ends_with_the_shot_before(tmp_path):
    labels = ShotLabels(
        np.arange(6),
        np.array([0, 0, 1, 0, 1, 0], np.int8),
        np.array([0, 0, 0, 1, 1, 2], np.int32),
        np.arange(6, dtype=np.int32),
        np.arange(6, dtype=np.int32),
        "train",
    )
    movienet.write_annotations(tmp_path, {"film": labels})
    found = read_back(tmp_path, "film", np.array([0, 1, 3, 5]))
    np.testing.assert_array_equal(found.boundary, [0, 1, 1, 0])
    np.testing.assert_array_equal(found.scene, [0, 0, 1, 2])
    np.testing.assert_array_equal(read_back(tmp_path, "film", np.array([3, 5])).boundary, [1, 0])


def line(shot: object, boundary: object, **more: object) -> str:
    return json.dumps({"video_id": "f", "shot_id": shot, "boundary_label": boundary} | more) + "\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(0, 0.7)], r":1: not an annotation line \(0.7 is not a whole number\)"),
        ([line(0, 0), line(2.5, 0)], r":2: not an annotation line \(2.5 is not a whole number\)"),
        ([line("2.5", 0)], ":1: not an annotation line"),
        ([line(0, True)], ":1: not an annotation line"),
        ([line(0, 0), line(1, 1), line(0, 1)], r":3: shot 0 of f is labelled 1 \(scene -1\), in an earlier line 0"),
        ([line(0, 0, num_shot=2), line(1, 0, num_shot=3)], ":2: num_shot 3 of f, in an earlier line 2"),
    ],
)
def test_lines_that_are_cut_to_fit_or_contradict_others_are_named(tmp_path, lines, said):
    (tmp_path / "anno").mkdir()
    (tmp_path / "anno" / "anno.test.ndjson").write_text("".join(lines))
    with pytest.raises(SourceError, match=rf"anno\.test\.ndjson{said}"):
        movienet.read_labels(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("folder", ["anno", "anno/anno", "."])
def test_annotations_of_other_systems_and_one_folder_deeper(tmp_path, folder, begin, end):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    text = begin + "".join([line("0000", 0), line(1.0, 1), line(1, 1)]).replace("\n", end)
    (tmp_path / folder / "anno.val.ndjson").write_bytes(text.encode())
    found = movienet.read_labels(tmp_path)["f"]
    assert (found.split, found.labels) == ("val", {0: (0, -1), 1: (1, -1)})


def test_trainvaltest_alone_labels_films_of_no_split(tmp_path):
    write_set(tmp_path, {"f": 4})
    for split in movienet.SPLITS:
        (tmp_path / "anno" / f"anno.{split}.ndjson").unlink()
    found = movienet.read_labels(tmp_path)["f"]
    assert (found.split, len(found.labels)) == ("", 4)


def test_the_last_shot_with_key_frames_does_not_end_a_scene(tmp_path):
    labels = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    (tmp_path / "anno").mkdir()
    text = "".join(line(shot, label, num_shot=10) for shot, label in enumerate(labels))
    (tmp_path / "anno" / "anno.test.ndjson").write_text(text)
    found = movienet.read_labels(tmp_path)["f"]
    assert found.on(np.arange(7)).boundary.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert found.missing(np.arange(7)) == [range(7, 10)]
    assert found.on(np.arange(4)).boundary.tolist() == [0, 0, 0, 0]
    assert found.missing(np.array([1, 2, 5])) == [range(1), range(3, 5), range(6, 10)]
    assert found.on(np.arange(10)).boundary.tolist() == labels
