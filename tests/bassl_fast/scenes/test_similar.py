"""`bassl-fast scenes film.mp4`: colours, durations, and the weights that come with the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bassl_fast import SceneDetector
from tests.bassl_fast.conftest import Project
from tests.bassl_fast.scenes.test_scenes import document, scenes
from tests.films import digests
from tests.refused import refused
from tests.videos import draw_video

pytestmark = pytest.mark.slow


def test_no_option_is_needed(film_file: Path, tmp_path: Path, capsys):
    assert scenes(film_file, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "shots are scored by similarity of colours, and how long shots last" in said
    assert "(detail normal)" in said
    found = document(tmp_path / "out" / "film")
    assert [shot["first_frame"] for shot in found["shots"]] == [0, 24, 60, 90]
    same = SceneDetector()(film_file)
    assert [shot.probability for shot in same.shots] == [shot["probability"] for shot in found["shots"]]


def test_neither_dali_nor_torch_is_needed(film_file: Path, tmp_path: Path):
    code = "import sys; sys.modules |= {'nvidia.dali': None, 'torch': None}; from bassl_fast.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    argv = ["scenes", str(film_file), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "film" / "report.html").is_file()


def test_detail_regroups_a_finished_film(film_file: Path, tmp_path: Path, capsys):
    for detail in ("normal", "coarse", "fine"):
        assert scenes(film_file, "--detail", detail, "--out", tmp_path) == 0
        found, said = document(tmp_path / "film"), capsys.readouterr().out
        assert f"(detail {detail})" in said
        assert "(unchanged)" not in said
        assert found["threshold_from"] == f"detail {detail}"
    assert scenes(film_file, "--detail", "fine", "--out", tmp_path) == 0
    assert "(unchanged)" in capsys.readouterr().out


def test_an_encoder_is_one_more_kind(project: Project, film_file: Path, tmp_path: Path, capsys):
    assert scenes(film_file, "--out", tmp_path / "colours") == 0
    assert scenes(film_file, "--encoder", project.pretrained, "--out", tmp_path / "both") == 0
    assert f"and of features of {project.pretrained}" in capsys.readouterr().out
    scores = [[s["probability"] for s in document(tmp_path / name / "film")["shots"]] for name in ("colours", "both")]
    assert scores[0] != scores[1]
    assert all(0 <= p <= 1 for p in scores[1])
    # Shots that wait for the encoder keep their colours, whatever the batch.
    assert scenes(film_file, "--encoder", project.pretrained, "--batch", "3", "--out", tmp_path / "batch") == 0
    assert digests(tmp_path / "batch" / "film" / "keyframes") == digests(tmp_path / "both" / "film" / "keyframes")
    threes = [s["probability"] for s in document(tmp_path / "batch" / "film")["shots"]]
    assert threes == pytest.approx(scores[1], abs=1e-4)


@pytest.mark.parametrize("shots", [[30], [30, 30]])
def test_a_film_of_one_or_two_shots(shots: list[int], tmp_path: Path):
    draw_video(tmp_path / "short.mp4", shots)
    assert scenes(tmp_path / "short.mp4", "--out", tmp_path / "out") == 0
    found = document(tmp_path / "out" / "short")
    assert len(found["shots"]) == len(shots)
    assert 1 <= len(found["scenes"]) <= len(shots)


def test_a_black_film_says_that_it_has_no_colours(tmp_path: Path, capsys):
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "color=black:size=96x64:rate=24:duration=4",
        tmp_path / "b.mp4",
    ]
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg (apt-get install ffmpeg)")
    subprocess.run(command, check=True)
    assert scenes(tmp_path / "b.mp4", "--out", tmp_path / "out") == 0
    assert "note: the film has no colours" in capsys.readouterr().out
    assert len(document(tmp_path / "out" / "b")["scenes"]) == 1


def test_an_encoder_that_gives_nan_stops_one_film_alone(project: Project, film_file: Path, tmp_path: Path, capsys):
    state = torch.load(project.pretrained, weights_only=True)
    state["state_dict"]["encoder.bn1.weight"] *= float("nan")
    torch.save(state, tmp_path / "nan.ckpt")
    argv = ["scenes", film_file, "--encoder", tmp_path / "nan.ckpt", "--out", tmp_path / "out"]
    line = refused(capsys, *argv)
    assert "film.mp4: the encoder's features cannot be used" in line
    assert "the feature of shot 0 is NaN or infinite" in line


def test_options_that_contradict_each_other(project: Project, film_file: Path, tmp_path: Path, capsys):
    def said(*argv: object) -> str:
        return refused(capsys, "scenes", film_file, "--out", tmp_path / "out", *argv)

    assert "give one of them" in said("--detail", "fine", "--scenes", "3")
    assert "give one of them" in said("--detail", "fine", "--threshold", "0.3")
    assert "detail: only for the weights that come with" in said("--detail", "fine", "--checkpoint", project.finetuned)
    assert "detail fin: must be one of coarse, normal, fine" in said("--detail", "fin")
    assert "encoder: the baseline has none" in said("--baseline", "--encoder", project.pretrained)
    assert "no such checkpoint" in said("--encoder", tmp_path / "none.ckpt")
    assert "batch 0: must be at least 1" in said("--batch", "0")
    assert "threads -2: must be at least 0" in said("--threads", "-2")
