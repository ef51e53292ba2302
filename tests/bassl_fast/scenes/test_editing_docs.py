"""The table and the commands of docs/how-to/editing-programs.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import av
import pytest

from bassl_fast import cli
from bassl_fast.scenes.exports import FORMATS
from bassl_fast.scenes.exports.chapters import ffmetadata

from .test_split import AAC, BOTH, H264, TAGS, draw, ffmpeg, mkv, numbers, scenes_of, tracks

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "editing-programs.md").read_text(encoding="utf-8")
FFMPEG = re.findall(r"^ +(ffmpeg .*)$", PAGE, re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with the film of the page, which has chapters, two sound tracks and tags."""
    monkeypatch.chdir(tmp_path)
    draw(Path("plain.mp4"), *BOTH, *H264, *AAC, *TAGS)
    Path("old.txt").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=3\ntitle=old\n")
    ffmpeg(*("-i", "plain.mp4", "-i", "old.txt", "-map", 0, "-map_chapters", 1, "-codec", "copy", "film.mp4"))
    return tmp_path


def titles(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [chapter["metadata"]["title"] for chapter in container.chapters()]


def test_the_table_names_what_the_command_writes(place: Path):
    argv = ["scenes", "film.mp4", "--baseline", "--split", "copy", "--chapters", "true"]
    assert cli.main(argv) == 0
    listed = re.findall(r"^\| `(\S+?)/?(?:\S+)?` \|", PAGE, re.MULTILINE)
    named = {name.split("/")[0] for name in re.findall(r"^\| `(\S+)` \|", PAGE, re.MULTILINE)}
    assert len(listed) == len(FORMATS) + 6
    assert named == {path.name for path in (place / "scenes" / "film").iterdir()}


def test_the_commands_of_the_page_run(place: Path):
    commands = re.findall(r"^    bassl-fast (scenes .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert cli.main([*command.split(), "--baseline", "--scenes", "3"]) == 0
    (command,) = FFMPEG
    subprocess.run(command.split(), check=True, capture_output=True)
    whole = Path("film-new.mp4")
    made = titles(Path("scenes/film/film-chapters.mkv"))
    assert titles(whole) == made != ["old"]
    assert [track[0] for track in tracks(whole) if track[0] != "data"] == ["video", "audio", "audio"]
    assert [track[2] for track in tracks(whole)][1:3] == ["eng", "ger"]
    with av.open(str(whole)) as container:
        assert container.metadata["title"] == "Film"
    assert numbers(whole) == numbers(Path("film.mp4"))


def test_the_line_for_ffmpeg_keeps_all_tracks_of_matroska(tmp_path: Path):
    source = mkv(tmp_path / "film.mkv")
    (tmp_path / "chapters.ffmetadata").write_text(ffmetadata(scenes_of(source)))
    line = re.search(r"ffmpeg -i FILM .* NEW", ffmetadata.__doc__)[0]
    (command,) = FFMPEG
    same = command.replace("film.mp4", "FILM").replace("scenes/film/", "").replace("film-new.mp4", "NEW")
    assert line == same
    names = {"FILM": source, "chapters.ffmetadata": tmp_path / "chapters.ffmetadata", "NEW": tmp_path / "new.mkv"}
    subprocess.run([str(names.get(word, word)) for word in line.split()], check=True, capture_output=True)
    assert tracks(tmp_path / "new.mkv") == tracks(source)
    assert titles(tmp_path / "new.mkv") == [f"Scene {i}" for i in (1, 2, 3, 4)]


def test_pyscenedetect_loads_its_list(place: Path):
    assert cli.main(["scenes", "film.mp4", "--baseline"]) == 0
    (command,) = re.findall(r"`scenedetect (.*?)`", PAGE)
    argv = [sys.executable, "-m", "scenedetect", *command.replace("-i py", "-i scenes/film/py").split(), "list-scenes"]
    subprocess.run(argv, check=True, capture_output=True)
    assert Path("film-Scenes.csv").read_text() == Path("scenes/film/pyscenedetect.csv").read_text()
