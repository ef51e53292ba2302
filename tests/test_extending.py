"""docs/extending.md: its package is installed outside this repository, and every part of it works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.films import picture
from tests.refused import refused
from tests.videos import draw_video

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
# Everything in one process.
SCRIPT = """
import sys
from bassl_fast import cli
for argv in [
    ["pack", "stills", "shards"],
    [
        *["pretrain", "--data.shards", "shards", "--data.global_batch", "4", "--training.steps", "2", "--out", "run"],
        *["--encoder", "Patches", "--encoder.patch", "4", "--method", "NextShot", "--method.views", "{size: 32}"],
        *["--training.precision", "32-true", "--optimiser.name", "adamw"],
    ],
    ["extract", "run/last.ckpt", "shards", "features"],
    [
        *["finetune", "--data.features", "features", "--data.batch", "4", "--epochs", "1", "--out", "scenes-model"],
        *["--head", "crn", "--crn.hidden", "16", "--crn.heads", "2", "--crn.intermediate", "16"],
    ],
    ["evaluate", "scenes-model/best.ckpt", "features"],
    ["scenes", "film.mp4", "--checkpoint", "scenes-model/best.ckpt", "--out", "scenes", "--scenes", "2"],
]:
    assert cli.main(argv) == 0, argv
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, by their titles."""
    root = tmp_path_factory.mktemp("film-tools")
    blocks = re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 7
    for name, text in blocks:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "film_tools" / "__init__.py").write_text("")
    return root


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as the page reads it, and a film."""
    root = tmp_path_factory.mktemp("work")
    (root / "stills" / "stills").mkdir(parents=True)
    for film in "ab":
        for shot in range(9):
            (root / "stills" / "stills" / f"{film}-{shot}.jpg").write_bytes(picture(shot + 100 * (film == "b")))
    (root / "stills" / "scenes.csv").write_text("film,shot\na,2\na,5\nb,3\n")
    draw_video(root / "film.mp4", [12, 12, 12, 12])
    return root


def run(python: str, *argv: str, cwd: Path, path: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{path}{os.pathsep}{Path(__file__).parents[1]}"}
    return subprocess.run([python, *argv], cwd=cwd, env=environment, capture_output=True, text=True)


def test_an_installed_package_adds_all_of_it(package: Path, work: Path, tmp_path: Path, warm: str, monkeypatch, capsys):
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    done = run(sys.executable, *install, str(package), cwd=work, path=site)
    assert done.returncode == 0, done.stderr
    done = run(warm, "-c", SCRIPT, cwd=work, path=site)
    assert done.returncode == 0, done.stderr
    assert "2 films, 18 shots, 18 key-frames, 18 shots labelled" in done.stdout
    scores = json.loads((work / "scenes-model" / "evaluate-test" / "metrics.json").read_text())
    assert scores["predicted_per_true"] >= 0
    assert "predicted_per_true" in done.stdout
    subtitles = (work / "scenes" / "film" / "scenes.srt").read_text()
    assert re.match(r"1\n00:00:00,000 --> 00:00:0\d,\d{3}\nScene 1\n\n2\n", subtitles)

    # The checkpoint needs the package, which this process does not see: one line says so.
    monkeypatch.chdir(work)
    said = refused(capsys, "extract", "run/last.ckpt", "shards", "other")
    assert "run/last.ckpt: needs class film_tools.encoder.Patches; if you trust it" in said


def test_a_module_that_is_only_imported(package: Path, work: Path, warm: str, capsys):
    argv = ["-m", "bassl_fast.cli", "--import", "try_out", "scenes", "film.mp4", "--baseline", "--out", "tried"]
    done = run(warm, *argv, cwd=work, path=package)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"film: \d scenes\n", (work / "tried" / "film" / "scenes.txt").read_text())
    pytest.importorskip("ray", reason="needs Ray (the extra ray)")  # the nodes import it too
    done = run(sys.executable, *argv[:-1], "cluster", "--engine", "ray", cwd=work, path=package)
    assert done.returncode == 0, done.stderr
    assert (work / "cluster" / "film" / "scenes.txt").is_file()
    said = refused(capsys, "--import", "absent", "scenes", work / "film.mp4", "--baseline", "--out", work / "absent")
    assert "--import absent: cannot be imported (No module named 'absent'); check the name" in said
