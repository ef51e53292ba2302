"""The loader benchmark runs, and all its contestants make the same images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import loader
from shard_tools.packing.pack import pack
from tests.films import write_film

pytestmark = pytest.mark.slow

REQUIRED = [
    "pil",
    "web",
    "dali",
    "ours",
    "ours-bfloat16",
    "decode",
]  # compiling FFCV takes as long as all others together


def test_runs_and_all_make_the_same_images(tmp_path: Path, warm: str) -> None:
    cores = len(os.sched_getaffinity(0))
    for film in range(2):
        write_film(tmp_path / "films", f"tt{film}", shots=20, size=(96, 64), seed=film)
    pack(tmp_path / "films", tmp_path / "shards", quiet=True)
    out = tmp_path / "loader.json"
    names = [*REQUIRED, *(["spdl"] if find_spec("spdl") else [])]
    sizes = ["--size", "64", "--batch", "4", "--steps", "2", "--rounds", "1", "--threads", str(min(2, cores))]
    command = [warm, "-m", "benchmarks.loader", "--shards", str(tmp_path / "shards"), "--out", str(out)]
    done = subprocess.run([*command, *sizes, "--only", *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

    result = json.loads(out.read_text())
    assert set(REQUIRED) <= set(result["contestants"]), result["left_out"]
    assert set(names) == {*result["contestants"], *result["left_out"]}
    assert result["jpegs"] == {"count": 120, "mean_bytes": pytest.approx(1800, rel=0.5), "sizes": ["96x64"]}
    for name, one in result["contestants"].items():
        assert len(one["windows_per_s"]["rounds"]) == 1
        assert min(one["windows_per_s"]["rounds"] + one["cpu_ms_a_view"]["rounds"]) > 0
        assert one["name"] in done.stdout
        pictures = one["pictures"]
        if name == "dali":
            for figure, theirs in pictures["theirs"].items():
                assert theirs == pytest.approx(pictures["ours"][figure], rel=0.25), figure
        elif name != "decode":
            assert pictures["psnr_db"] > 25, name  # a skipped flip, crop or jitter leaves less than 20
    assert result["contestants"]["pil"]["ratio"]["median"] == 1
    assert ElementTree.parse(out.with_suffix(".svg")).getroot().tag.endswith("svg")


@pytest.mark.parametrize("samples", ["pictures", "clips"])
def test_makes_pictures_and_clips_as_its_peer_does(samples: str, monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "loader.json"
    sizes = ["--size", "32", "--batch", "4", "--steps", "2", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr(loader, "draw_films", lambda folder, **_: write_film(folder, "tt0", shots=20, size=(96, 64)))
    monkeypatch.setattr(
        sys, "argv", ["loader", "--samples", samples, "--out", str(out), *sizes, "--only", "pil", "ours"]
    )
    cores = os.sched_getaffinity(0)
    try:
        loader.main()
    finally:
        os.sched_setaffinity(0, cores)
    result = json.loads(out.read_text())
    assert result["views_a_window"] == (16 if samples == "clips" else 2)
    assert result["contestants"]["pil"]["pictures"]["psnr_db"] > 25


def test_refuses_rounds_with_an_idle_worker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["loader", "--threads", "2", "--steps", "3"])
    with pytest.raises(SystemExit):
        loader.main()
    assert "multiple of 2" in capsys.readouterr().err
