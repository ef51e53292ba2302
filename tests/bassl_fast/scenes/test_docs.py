"""The commands and messages of docs/tutorials/your-own-film.md and docs/how-to/troubleshooting.md."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import av
import pytest

from bassl_fast import cli
from tests.bassl_fast.conftest import Project
from tests.shard_tools.storage.test_download import http_server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SCENES = (ROOT / "docs" / "tutorials" / "your-own-film.md").read_text(encoding="utf-8")
TROUBLES = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")


@pytest.fixture
def place(project: Project, film_file: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with what the page speaks of."""
    monkeypatch.chdir(tmp_path)
    for folder in ("films", "runs/scenes", "runs/bassl"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(film_file, "film.mp4")
    shutil.copy(film_file, "films/other.mp4")
    shutil.copy(project.finetuned, "runs/scenes/best.ckpt")
    shutil.copy(project.pretrained, "runs/bassl/last.ckpt")
    Path("shots.csv").write_text("start\n0\n2.5\n")
    for name in ("film", "films/other"):
        Path(f"{name}.srt").write_text("1\n00:00:01,200 --> 00:00:02,900\nA line.\n")
    return tmp_path


def test_every_command_of_the_page_runs(place: Path):
    commands = re.findall(r"^ +bassl-fast (scenes .*)$", SCENES, re.MULTILINE)
    assert len(commands) == 14
    with http_server(place / "films") as port:
        for command in commands:
            (place / "films" / "film.mp4").unlink(missing_ok=True)
            if "https://example.org/film.mp4" in command:
                shutil.copy("film.mp4", "films/film.mp4")
                shutil.rmtree("scenes/film")  # another source of the same name is refused
            argv = command.replace("https://example.org", f"http://127.0.0.1:{port}").split()
            if "--corrections" in argv:
                shutil.copy("scenes/film/scenes.json", "film-corrected.json")
            elif argv[1] == "film.mp4" and "--min_scene" not in argv:
                shutil.rmtree("scenes", ignore_errors=True)
            assert cli.main(argv) == 0, command


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg (apt-get install ffmpeg)")
def test_the_chapters_go_into_a_copy_of_the_film(place: Path):
    (command,) = re.findall(r"^ +(ffmpeg .*)$", SCENES, re.MULTILINE)
    assert cli.main(["scenes", "film.mp4", "--baseline", "--scenes", "3", "--out", "scenes"]) == 0
    subprocess.run(command.split(), check=True, capture_output=True)
    with av.open("film-chapters.mkv") as film:
        assert [chapter["metadata"]["title"] for chapter in film.chapters()] == ["Scene 1", "Scene 2", "Scene 3"]


def test_the_python_of_the_page_runs(place: Path, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", SCENES, re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert capsys.readouterr().out.splitlines()[-1].split()[2] == "5.5"
    assert len(names["film"].scenes) == 4


def test_the_messages_are_those_of_the_code():
    code = "".join(
        path.read_text()
        for package in ("bassl_fast", "pipelines", "shard_tools")
        for path in (ROOT / package).rglob("*.py")
    )
    code = re.sub(r'"\s+f?"', "", code)  # a text may continue on the next line
    code += os.strerror(errno.ENOSPC) + os.strerror(errno.EACCES)  # the system's own words
    code += "Timed out waiting ms"  # torch's
    messages = re.findall(r"^\* (`+)(.+?)\1 *$", TROUBLES, re.MULTILINE)
    assert len(messages) > 20
    for _, message in messages:
        # What differs from case to case: names in capitals, numbers, and what stands between backquotes or braces.
        for part in re.split(r"[A-Z]{4,}|\d+|scenedetect|(?<=\[)video|`[^`]*`|second|pretrain", message):
            part = part.removeprefix("/manifest.json").strip(" :,()/")
            assert part in code, message
