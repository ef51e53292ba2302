"""Tiny films made on the fly: each shot has its own hue, each frame a grey that encodes its number."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shard_tools.annotations.label318 import read_shot_times
from shard_tools.annotations.movienet import labels_of_film, read_labels
from shard_tools.errors import BasslFastError, ConfigError, MissingDependency, SourceError
from shard_tools.sources.keyframe_folder import list_keyframes
from shard_tools.video.detectors import make_cutter
from shard_tools.video.keyframes import duration, extract_film, extract_folder
from shard_tools.video.listing import list_videos
from shard_tools.video.shots import cut_shots, ticks

pytestmark = pytest.mark.slow


HUES = [(220, 30, 30), (20, 40, 60), (230, 230, 210)]  # apart in hue, saturation and value
REAL = Path(__file__).resolve().parents[4] / "shared" / "films"


def picture(shot: int, number: int, width: int, height: int) -> np.ndarray:
    """`[H, W, 3]` uint8: left three quarters the hue of the shot, right the frame number as a grey of 2 a frame."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width * 3 // 4] = HUES[shot]
    pixels[:, width * 3 // 4 :] = number * 2
    return pixels


def read_picture(path: Path) -> tuple[int, int]:
    """(shot, frame number) read from a key-frame, the number within about one."""
    pixels = np.asarray(Image.open(path), np.int32)
    edge = pixels.shape[1] * 3 // 4
    left, right = pixels[60:180, 10 : edge - 20], pixels[60:180, edge + 20 : -10]
    return int(np.abs(np.array(HUES) - left.mean((0, 1))).sum(1).argmin()), round(right.mean() / 2)


def make(path: Path, shots: list[int], fps: int = 24, size=(64, 48), times=None, aspect=None, options=None) -> Path:
    """A film of shots with these numbers of frames; `times` are those of the frames, in ticks of 1/240 s."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 2_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times:
            stream.codec_context.time_base = Fraction(1, 240)
        number = 0
        for shot, length in enumerate(shots):
            for _ in range(length):
                frame = av.VideoFrame.from_ndarray(picture(shot, number, *size), format="rgb24")
                if times:
                    frame.pts, frame.time_base = times[number], Fraction(1, 240)
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode())
    return path


def make_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def detect_shots(path: Path, detector: str = "adaptive") -> list[tuple[float, float]]:
    return [(shot.start, shot.end) for shot in cut_shots(path, make_cutter(detector))]


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("detector", ["adaptive", "content"])
def test_shots_start_on_the_frame_of_the_cut(tmp_path, detector):
    path = make(tmp_path / "a.mp4", [24, 30, 36])
    assert np.allclose(detect_shots(path, detector), [(0, 1), (1, 2.25), (2.25, 3.75)], atol=1e-4)


def test_clip_without_cut_is_one_shot(tmp_path):
    assert np.allclose(detect_shots(make(tmp_path / "a.mp4", [20], fps=10)), [(0, 2)])
    assert len(detect_shots(make(tmp_path / "one.mp4", [1]))) == 1


def test_unknown_detector(tmp_path):
    with pytest.raises(ConfigError, match="adaptive, content, transnetv2"):
        make_cutter("magic")


def test_keyframes_of_one_file(tmp_path):
    path, seconds = make(tmp_path / "a.mp4", [24, 30, 36]), []
    labels = extract_film([path], tmp_path / "out", "a", progress=seconds.append)
    shots, images = list_keyframes(tmp_path / "out" / "240P_frames" / "a")
    assert shots.tolist() == labels.shot.tolist() == [0, 1, 2]
    assert (labels.start.tolist(), labels.end.tolist()) == ([0, 24, 54], [23, 53, 89])
    assert set(labels.boundary.tolist()) == set(labels.scene.tolist()) == {-1}
    assert labels.split == "test"
    for shot, start, end, files in zip(shots, labels.start, labels.end, images, strict=True):
        for sixth, file in zip((1, 3, 5), files, strict=True):
            seen, number = read_picture(file)
            assert seen == shot
            assert abs(number - (start + (end - start) * sixth // 6)) <= 1
            assert Image.open(file).size == (320, 240)
    assert sum(seconds) == pytest.approx(duration(path), abs=0.05)


def test_one_frame_is_a_film(tmp_path):
    labels = extract_film([make(tmp_path / "a.mp4", [1])], tmp_path, "a")
    assert (labels.start.tolist(), labels.end.tolist()) == ([0], [0])
    assert len(list((tmp_path / "240P_frames" / "a").iterdir())) == 3


def test_joins_are_the_scene_boundaries(tmp_path):
    files = [
        make(tmp_path / "a.mp4", [24, 24]),
        make(tmp_path / "b.mkv", [25, 25, 25], fps=25),
        make(tmp_path / "c.webm.mkv", [24]),
    ]
    labels = extract_film(files, tmp_path / "out", "all", split="val")
    assert labels.shot.tolist() == [0, 1, 2, 3, 4, 5]
    assert labels.boundary.tolist() == [0, 1, 0, 0, 1, 0]
    assert labels.scene.tolist() == [0, 0, 1, 1, 1, 2]
    assert labels.start.tolist() == [0, 24, 48, 72, 96, 120]
    assert labels.end.tolist() == [23, 47, 71, 95, 119, 143]
    images = list_keyframes(tmp_path / "out" / "240P_frames" / "all")[1]
    assert [read_picture(files[1])[0] for files in images] == [0, 1, 0, 1, 2, 0]
    assert abs(read_picture(images[3][1])[1] - 37) <= 2  # the middle of b's second second, at 25 frames a second


def test_joined_files_of_two_shapes_make_one_size_without_bars(tmp_path):
    files = [make(tmp_path / "wide.mp4", [30], size=(96, 48)), make(tmp_path / "narrow.mp4", [30])]
    extract_film(files, tmp_path / "out", "both")
    _, shots = list_keyframes(tmp_path / "out" / "240P_frames" / "both")
    pictures = [Image.open(path) for images in shots for path in images]
    assert {image.size for image in pictures} == {(320, 240)}
    assert min(np.asarray(image).max(-1)[:, :200].min() for image in pictures) > 100


def test_frames_keep_their_own_times(tmp_path):
    """Variable frame rate, not from 0: 48 frames at 24 a second, then 24 at 12 a second."""
    times = [2400 + 10 * i for i in range(48)] + [2880 + 20 * i for i in range(24)]
    path = make(tmp_path / "vfr.mkv", [24, 24, 24], times=times)
    labels = extract_film([path], tmp_path, "vfr")
    assert labels.start.tolist() == [0, 24, 48]
    assert abs(labels.end[-1] - 95) <= 1
    image = tmp_path / "240P_frames" / "vfr" / "shot_0002_img_1.jpg"
    assert abs(read_picture(image)[1] - (48 + 12)) <= 2


def test_pixels_are_made_square(tmp_path):
    extract_film([make(tmp_path / "a.mp4", [4], aspect=Fraction(2, 1))], tmp_path, "a")
    assert Image.open(tmp_path / "240P_frames" / "a" / "shot_0000_img_0.jpg").size == (640, 240)


def test_rotated_film_stands_upright(tmp_path):
    path = make(tmp_path / "a.mp4", [4])
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # 4 type, 4 version and flags, 36 to the matrix of a version-0 header
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    path.write_bytes(data)
    extract_film([path], tmp_path, "a")
    image = Image.open(tmp_path / "240P_frames" / "a" / "shot_0000_img_0.jpg")
    assert image.size == (180, 240)
    top, bottom = np.asarray(image)[40], np.asarray(image)[200]
    assert np.abs(top.mean(0) - HUES[0]).max() < 25  # a quarter turn clockwise lays the left side on top
    assert bottom.mean() < 25


@given(st.lists(st.floats(0.005, 3), min_size=1, max_size=12))
def test_timeline_has_no_gap(lengths):
    bounds = [0.0, *np.cumsum(lengths).tolist()]
    shots = [ticks(start, end) for start, end in pairwise(bounds)]
    shots = [(first, last) for first, last in shots if last >= first]
    assert shots[0][0] == 0
    assert all(last + 1 == first for (_, last), (first, _) in pairwise(shots))
    assert abs(shots[-1][1] + 1 - bounds[-1] * 24) <= 1.1


def test_folder_of_films(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    make(source / "b film (2008).mp4", [24, 24])
    make(source / "A.MKV", [24])
    (source / "notes.txt").write_text("not a film")
    assert [path.name for path in list_videos(source)] == ["A.MKV", "b film (2008).mp4"]

    first, broken = extract_folder(source, tmp_path / "one")
    extract_folder(source, tmp_path / "two")
    assert (list(first), broken) == (["A", "b_film_2008"], [])
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["240P_frames", "anno", "scene318"]

    joined, _ = extract_folder(source, tmp_path / "joined", join="whole film", split="train")
    assert list(joined) == ["whole_film"]
    root, film = tmp_path / "joined", "whole_film"
    shots, _ = list_keyframes(root / "240P_frames" / film)
    read = labels_of_film(root, film, shots, read_labels(root))
    assert read.split == "train"
    for name in ("shot", "boundary", "scene", "start", "end"):
        assert getattr(read, name).tolist() == getattr(joined[film], name).tolist()
    times = read_shot_times(root / "scene318" / "shot_movie318" / f"{film}.txt")
    assert times.tolist() == [[0, 23], [24, 47], [48, 71]]


def test_folder_refusals(tmp_path):
    source = tmp_path / "in"
    with pytest.raises(SourceError, match="no such folder"):
        list_videos(source)
    source.mkdir()
    with pytest.raises(SourceError, match="no videos in it"):
        extract_folder(source, tmp_path / "out")
    make(source / "a b.mp4", [3])
    with pytest.raises(SourceError, match="not an empty folder"):
        extract_folder(source, source, join="all")
    with pytest.raises(ConfigError, match="split"):
        extract_folder(source, tmp_path / "out", join="all", split="tset")
    with pytest.raises(SourceError, match="without files"):
        extract_film([], tmp_path, "all")
    extract_film([source / "a b.mp4"], tmp_path, "a")
    with pytest.raises(SourceError, match="already exists"):
        extract_film([source / "a b.mp4"], tmp_path, "a")


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no film, only words\n" * 200)
    elif kind == "sound":
        make_sound(path)
    elif kind == "no_index":  # the index of an mp4 stands last
        make(path, [30])
        path.write_bytes(path.read_bytes()[:-600])
    elif kind == "cut_mp4":
        make(path, [60], options={"movflags": "faststart"})
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    elif kind == "cut_mkv":
        path = make(folder / "cut.mkv", [90])
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "sound", "no_index", "cut_mp4", "cut_mkv"])
def test_bad_files_make_one_line_and_leave_nothing(tmp_path, capfd, kind):
    good, bad = make(tmp_path / "a.mp4", [24]), bad_file(kind, tmp_path)
    with pytest.raises(SourceError) as caught:
        extract_film([good, bad], tmp_path / "out", "all")
    assert str(bad) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path / "out") == {}
    assert capfd.readouterr() == ("", "")


def test_bad_file_in_a_folder_is_left_out_unless_joined(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    bad_file("cut_mp4", source)
    with pytest.raises(SourceError, match="cut_mp4"):
        extract_folder(source, tmp_path / "out")
    make(source / "a.mp4", [24])
    with pytest.raises(SourceError, match="cut_mp4"):
        extract_folder(source, tmp_path / "out", join="all")
    assert list((tmp_path / "out").iterdir()) == []
    labels, (error,) = extract_folder(source, tmp_path / "out")
    assert list(labels) == ["a"]
    assert "cut_mp4.mp4: cut short" in str(error)


@pytest.mark.parametrize("module", ["av", "scenedetect", "cv2"])
def test_missing_package_is_named(tmp_path, monkeypatch, module):
    path = make(tmp_path / "a.mp4", [2])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=r"pip install bassl-fast") as caught:
        detect_shots(path)
    assert isinstance(caught.value, BasslFastError)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real clips, which are not in the repository")
@pytest.mark.parametrize(("name", "shots"), [("tears_of_steel_5s.webm", 2), ("sintel_sunset.mp4", 7)])
def test_real_clips(name, shots):
    assert len(detect_shots(REAL / name)) == shots
