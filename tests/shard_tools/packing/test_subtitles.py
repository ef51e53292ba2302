"""Times of speech in a set: columns of its shots, in version 1.1 of the format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bassl_fast import cli
from bassl_fast.segmentation.features import FeatureSet
from shard_tools.errors import ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.packing.repair import repair
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from tests.films import digests, write_set

SRT = """1
00:00:01,000 --> 00:00:05,000
Over the cut at 2 seconds and the one at 4.

2
00:00:06,500 --> 00:00:07,500
In a shot.
"""
A = [[1, 0, 0], [2, 0, 0], [1, 1, 0.5], [1, 0.5, 300]]  # of shots of 2 seconds each


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Films a, of 4 shots with subtitles, and b, of 2 shots without."""
    (tmp_path / "subtitles").mkdir()
    (tmp_path / "subtitles" / "a.en.srt").write_text(SRT)
    return write_set(tmp_path / "source", {"a": 4, "b": 2})


def speech(shards: Path) -> list:
    return np.stack([ShardIndex.open(shards).shots[name] for name in fmt.SPEECH.names], 1).tolist()


def test_shots_have_times_of_speech(source: Path, tmp_path: Path, capsys):
    subtitles, shards = tmp_path / "subtitles", tmp_path / "shards"
    assert cli.main(["pack", str(source), str(shards), "--subtitles", str(subtitles)]) == 0
    assert f"note: 1 of 2 films have no subtitles in {subtitles}\n" in capsys.readouterr().out
    assert json.loads((shards / fmt.MANIFEST).read_text())["version"] == 1.1
    found = np.array(speech(shards))
    assert found[:4] == pytest.approx(np.array(A))
    assert np.isnan(found[4:]).all()
    assert verify(shards) == []


def test_a_set_without_subtitles_is_what_it_was(source: Path, tmp_path: Path):
    pack(source, tmp_path / "shards")
    pack(source, tmp_path / "spoken", subtitles=tmp_path / "subtitles")
    plain, spoken = (digests(tmp_path / name) for name in ("shards", "spoken"))
    assert {name for name in plain if plain[name] != spoken[name]} == {fmt.MANIFEST, fmt.SHOTS}
    assert json.loads((tmp_path / "shards" / fmt.MANIFEST).read_text())["version"] == 1
    assert ShardIndex.open(tmp_path / "shards").shots.dtype == fmt.SHOT


def test_a_changed_time_is_found(source: Path, tmp_path: Path):
    pack(source, tmp_path / "shards", subtitles=tmp_path / "subtitles")
    path = tmp_path / "shards" / fmt.SHOTS
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    (fault,) = verify(tmp_path / "shards")
    assert "shots.npy: differs from manifest.json" in fault


def test_films_are_added_with_and_without(source: Path, tmp_path: Path):
    more = write_set(tmp_path / "more", {"c": 4})
    pack(source, tmp_path / "shards", subtitles=tmp_path / "subtitles")
    pack(more, tmp_path / "shards", add=True)
    found = np.array(speech(tmp_path / "shards"))
    assert found[:4] == pytest.approx(np.array(A))
    assert np.isnan(found[4:]).all()
    pack(source, tmp_path / "later")
    (tmp_path / "subtitles" / "c.srt").write_text(SRT)
    pack(more, tmp_path / "later", add=True, subtitles=tmp_path / "subtitles")
    found = np.array(speech(tmp_path / "later"))
    assert found[-4:] == pytest.approx(np.array(A))
    assert np.isnan(found[:-4]).all()


def test_a_repair_makes_them_again(source: Path, tmp_path: Path):
    shards, subtitles = tmp_path / "shards", tmp_path / "subtitles"
    pack(source, shards, subtitles=subtitles)
    before = digests(shards)
    (shards / "a.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="was packed with --subtitles; give the same"):
        repair(shards, source)
    repair(shards, source, subtitles=subtitles)
    assert digests(shards) == before


def test_features_have_those_of_the_shards_or_of_extract(source: Path, tmp_path: Path):
    subtitles = ["--subtitles", str(tmp_path / "subtitles")]
    pack(source, tmp_path / "plain")
    pack(source, tmp_path / "spoken", subtitles=tmp_path / "subtitles")
    shots = {}
    for name, more in (("plain", []), ("spoken", []), ("plain", subtitles)):
        assert cli.main(["extract", "colours", str(tmp_path / name), str(tmp_path / f"features of {name}"), *more]) == 0
        shots[name, bool(more)] = FeatureSet.open(tmp_path / f"features of {name}").shots
    assert shots["plain", False].dtype == fmt.SHOT
    assert shots["plain", True].tobytes() == shots["spoken", False].tobytes()
    assert shots["spoken", False].tobytes() == ShardIndex.open(tmp_path / "spoken").shots.tobytes()


def test_features_keep_times_of_speech_that_are_not_given_again(source: Path, tmp_path: Path, capsys):
    pack(source, tmp_path / "shards")
    features = tmp_path / "features"
    words = ["extract", "colours", str(tmp_path / "shards"), str(features)]
    assert cli.main([*words, "--subtitles", str(tmp_path / "subtitles")]) == 0
    before = digests(features)
    (features / "a.npy").write_bytes(b"")
    assert cli.main(words) == 0
    assert digests(features) == before
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "b.srt").write_text(SRT)
    assert cli.main([*words, "--subtitles", str(tmp_path / "others")]) == 0
    assert np.isfinite(FeatureSet.open(features).shots["speech"]).all()
    (features / "shots.npy").write_bytes(before["shots.npy"].encode())
    capsys.readouterr()
    assert cli.main(words) == 0
    assert "shots.npy or sequences.npy is damaged (differs from its checksum)" in capsys.readouterr().out
    assert FeatureSet.open(features).shots.dtype == fmt.SHOT


def test_subtitles_of_no_film_or_a_broken_file_are_refused_before_the_work(source: Path, tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match=r"no subtitles of these films; name them .* such as a\.srt"):
        pack(source, tmp_path / "shards", subtitles=tmp_path / "none")
    (tmp_path / "subtitles" / "b.srt").write_text("no line")
    with pytest.raises(SourceError, match=r"b\.srt: has no line of subtitles"):
        pack(source, tmp_path / "shards", subtitles=tmp_path / "subtitles")
    assert not list((tmp_path / "shards").glob("*.tar"))


def test_without_times_of_shots_subtitles_are_left_out(source: Path, tmp_path: Path, capsys):
    (source / "scene318" / "shot_movie318" / "a.txt").unlink()
    pack(source, tmp_path / "shards", subtitles=tmp_path / "subtitles")
    assert "the times of the shots of a are unknown" in capsys.readouterr().out
    assert ShardIndex.open(tmp_path / "shards").shots.dtype == fmt.SHOT
