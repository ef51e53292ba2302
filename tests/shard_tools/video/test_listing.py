"""Which files of a folder are films, and how they are called."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.errors import SourceError
from shard_tools.video import listing
from shard_tools.video.listing import film_name, find_videos, list_videos, name_films


def test_videos_of_all_folders_are_found_and_the_rest_is_named(tmp_path):
    for name in ("b.MTS", "a/c.vob", "a/d/e.m2ts", "._b.MTS", ".trash/f.mp4", "notes.txt", "a/f.srt", "x/scenes.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x" / "clip.mp4").touch()  # of the results of an earlier run
    found = find_videos(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found.files] == ["a/c.vob", "a/d/e.m2ts", "b.MTS"]
    said = "._b.MTS, .trash (hidden); notes.txt, a/f.srt (not videos by their names); x (earlier results)"
    assert found.say(tmp_path) == f"{tmp_path}: left out {said}"
    assert "notes.txt and 1 more (not videos by their names)" in found.say(tmp_path, 1)
    assert find_videos(tmp_path / "a" / "d").say(tmp_path) == ""


def test_linked_folders_are_followed_once(tmp_path):
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "a.mp4").touch()
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "link").symlink_to(tmp_path / "volume")
    (tmp_path / "films" / "loop").symlink_to(tmp_path / "films")
    assert [path.name for path in list_videos(tmp_path / "films")] == ["a.mp4"]


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        list_videos(tmp_path / "none")
    with pytest.raises(SourceError, match="no videos in it"):
        list_videos(tmp_path)
    (tmp_path / "scenes.json").touch()
    with pytest.raises(SourceError, match="only earlier results in it; give the films themselves"):
        list_videos(tmp_path)


def test_film_names_are_plain():
    names = ("tt001", "../x", "a b.c", "...", "Nausicaä", "-dash", "a\nb", b"\xff.".decode(errors="surrogateescape"))
    assert [film_name(name) for name in names] == ["tt001", "x", "a_b_c", "film", "Nausicaä", "dash", "a_b", "film"]


def test_long_names_are_cut_and_stay_apart():
    one, two = film_name("ä" * 125 + "1"), film_name("ä" * 125 + "2")
    assert one != two
    assert max(len(one.encode()), len(two.encode())) <= 180


def test_examples():
    assert not doctest.testmod(listing).failed


files = st.lists(st.from_regex(r"[ab]{1,2}/[ab .]{1,3}\.(mp4|mkv)", fullmatch=True).map(Path), max_size=12)


@given(files)
def test_every_file_has_a_name_of_its_own(paths):
    named = name_films(paths)
    assert list(named.values()) == list(dict.fromkeys(paths))
    assert all(name == film_name(name) for name in named)
