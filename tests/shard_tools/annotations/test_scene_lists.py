"""BBC Planet Earth and OVSD as published, with videos beside: labelled films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bassl_fast import cli
from shard_tools.annotations.scene_lists import find_scene_lists, match_videos, read_scene_list
from shard_tools.errors import ConfigError, SourceError
from shard_tools.shards.index import ShardIndex
from tests.videos import draw_video

SHOTS = [25, 30, 20, 35, 15]  # frames
ROWS = "0\t24\n25\t54\n55\t74\n75\t109\n110\t124\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def bbc(tmp_path) -> Path:
    root = tmp_path / "bbc"
    (root / "videos").mkdir(parents=True)
    for number in (1, 5):
        draw_video(root / "videos" / f"bbc_{number:02d}.mp4", SHOTS, rate=25)
    for episode in ("01_From_Pole_to_Pole", "05_Jungles"):
        write(root / "annotations" / "shots" / f"{episode}.txt", ROWS)
        write(root / "annotations" / "scenes" / "annotator_0" / f"{episode}.txt", "0,1,4")
        write(root / "annotations" / "scenes" / "annotator_1" / f"{episode}.txt", "0,3,5\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(("annotator", "boundary"), [("0", [1, 0, 0, 1, 0]), ("1", [0, 0, 1, 0, 0])])
def test_bbc_packs_as_labelled_films(bbc, tmp_path, capsys, annotator, boundary):
    assert cli.main(["pack", str(bbc), str(tmp_path / "dst"), "--annotator", annotator, "--strict"]) == 0
    assert "annotated: test 2 of 2 films, 10 of 10 shots" in capsys.readouterr().out
    index = ShardIndex.open(tmp_path / "dst")
    assert index.films == ["bbc_01", "bbc_05"]
    for film in range(2):
        assert index.shots_of(film)["boundary"].tolist() == boundary
    assert index.shots_of(0)["start"].tolist() == [0, 24, 53, 72, 106]  # at 24 a second


@pytest.mark.slow
def test_ovsd_packs_as_labelled_films_of_shots_that_are_found(tmp_path, capsys):
    root = tmp_path / "ovsd"
    root.mkdir()
    draw_video(root / "Big Buck Bunny.mp4", SHOTS, rate=25)
    draw_video(root / "Sintel.mp4", SHOTS, rate=25)
    write(root / "annotations" / "scenes" / "big_buck_bunny_scenes.txt", "0\t58\r\n59\t108\r\n109\t124\r\n")
    write(root / "annotations" / "scenes" / "valkaama.txt", "0 9\n10 19\n")
    arguments = ["pack", str(root), str(tmp_path / "dst"), "--detector", "adaptive"]
    assert cli.main([*arguments, "--strict"]) == 1
    assert "valkaama.txt: scenes without a video" in capsys.readouterr().err
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "valkaama.txt: scenes without a video" in said
    assert "left out" not in said
    assert "annotated: test 1 of 1 films, 5 of 5 shots" in said
    assert "films without annotations: 1 (Sintel)" in said
    index = ShardIndex.open(tmp_path / "dst")
    assert index.shots_of(0)["boundary"].tolist() == [0, 1, 0, 1, 0]
    assert index.shots_of(1)["boundary"].tolist() == [-1] * 5


def test_a_scene_that_begins_inside_a_shot_begins_at_the_nearest(tmp_path):
    path = write(tmp_path / "scenes" / "a.txt", "0 59\n60 100\n101 200\n201 300\n")
    assert read_scene_list(path).boundaries(np.array([0, 50, 75, 110, 199])).tolist() == [1, 0, 1, 1, 0]


def test_names_are_matched_by_letters_then_by_numbers():
    lists = [Path(name) for name in ("01_Pole.txt", "02_Ice Worlds.txt", "Lord_scenes.txt", "7_x.txt", "8_y.txt")]
    found, left = match_videos(lists, ["bbc_01", "02_ice_worlds", "lord", "8_a", "8_b"])
    assert {film: path.name for film, path in found.items()} == {
        "02_ice_worlds": "02_Ice Worlds.txt",
        "lord": "Lord_scenes.txt",
        "bbc_01": "01_Pole.txt",
    }
    assert [path.name for path in left] == ["7_x.txt", "8_y.txt"]


@pytest.mark.parametrize(
    ("scenes", "said"),
    [
        ("0,1,6", r"a scene begins with shot 6; .*shots/a\.txt has 5, from 0"),
        ("0,2,1", "scenes that do not follow each other"),
        ("0,1.5", "not a list of first shots"),
        ("0 9\n20 10\n", r"a\.txt:2: ends at frame 10"),
        ("", r"scenes that do not follow each other, or none"),
    ],
)
def test_wrong_lists_are_named(tmp_path, scenes, said):
    write(tmp_path / "shots" / "a.txt", ROWS)
    with pytest.raises(SourceError, match=said):
        read_scene_list(write(tmp_path / "scenes" / "a.txt", scenes))


def test_what_is_missing_is_named(bbc):
    with pytest.raises(ConfigError, match=r"annotator 7: .* has annotator_0, annotator_1"):
        find_scene_lists(bbc, 7)
    (bbc / "annotations" / "shots" / "05_Jungles.txt").unlink()
    with pytest.raises(SourceError, match=r"there is no list of shots; put .*05_Jungles\.txt there"):
        read_scene_list(find_scene_lists(bbc)[1])
