"""From films to results folders: what is found, what is kept, and what a user gets wrong."""

from __future__ import annotations

import csv
import doctest
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import pytest
import torch

from bassl_fast import SceneDetector, cli
from bassl_fast.scenes import detector, film
from bassl_fast.scenes.detector import ColourChange
from bassl_fast.scenes.exports import FORMATS
from bassl_fast.segmentation.features import FeatureSet
from shard_tools import plugins
from tests.bassl_fast.conftest import Project
from tests.browser import open_browser
from tests.films import digests, small_disk
from tests.refused import refused
from tests.servers import BUCKET, s3_server, use_s3
from tests.shard_tools.storage.test_download import http_server
from tests.shard_tools.video.test_keyframes import REAL, bad_file
from tests.videos import PEAK, draw_video, join_videos, loop_video

pytestmark = pytest.mark.slow

FILES = {"report.html", "scenes.json", "sheets", "keyframes", *FORMATS}


def scenes(*argv: object) -> int:
    return cli.main(["scenes", *map(str, argv)])


def document(folder: Path) -> dict:
    return json.loads((folder / "scenes.json").read_text())


def test_a_film_from_a_checkpoint(project: Project, film_file: Path, tmp_path: Path, capsys):
    argv = [film_file, "--checkpoint", project.finetuned, "--out", tmp_path, "--split", "copy"]
    assert scenes(*argv, "--scenes", "2") == 0
    said = capsys.readouterr().out
    assert "film: 2 scenes of 4 shots, threshold" in said
    folder = tmp_path / "film"
    assert {path.name for path in folder.iterdir()} == FILES | {"clips"}
    assert [path.name for path in tmp_path.iterdir()] == ["film"]
    found = document(folder)
    assert [shot["first_frame"] for shot in found["shots"]] == [0, 24, 60, 90]
    assert [scene["last_shot"] for scene in found["scenes"]][-1] == 3
    assert len(list((folder / "sheets").iterdir())) == len(list((folder / "clips").iterdir())) == 2
    assert len(list((folder / "keyframes").iterdir())) == 12
    with open(folder / "scenes.csv") as file:
        assert [float(row["end"]) for row in csv.DictReader(file)][-1] == 5.5


def test_python_gives_what_the_command_writes(project: Project, film_file: Path, tmp_path: Path):
    assert scenes(film_file, "--checkpoint", project.finetuned, "--out", tmp_path) == 0
    found, written = SceneDetector.from_checkpoint(project.finetuned)(film_file), document(tmp_path / "film")
    assert [shot.probability for shot in found.shots] == [shot["probability"] for shot in written["shots"]]
    assert [scene.end for scene in found.scenes] == [scene["end"] for scene in written["scenes"]]
    state = torch.load(project.finetuned, weights_only=True)
    assert found.threshold == written["threshold"] == state["threshold"]
    assert written["threshold_from"] == "chosen on the val films"


def test_features_are_those_of_pack_and_extract(project: Project, tmp_path: Path):
    (tmp_path / "videos").mkdir()
    source = draw_video(tmp_path / "videos" / "film.mp4", [24, 36, 30, 42])
    for argv in (
        ["pack", tmp_path / "videos", tmp_path / "shards"],
        ["extract", project.pretrained, tmp_path / "shards", tmp_path / "features"],
    ):
        assert cli.main(list(map(str, argv))) == 0
    (wanted,) = FeatureSet.open(tmp_path / "features").films(None)
    seen = []
    model = SceneDetector.from_checkpoint(project.finetuned).model
    probability = model.probability
    model.probability = lambda features, seconds: (seen.append(features), probability(features, seconds))[1]
    SceneDetector(model)(source)
    assert torch.nn.functional.cosine_similarity(torch.tensor(seen[0]), torch.tensor(wanted.features)).min() > 0.9999


def test_finished_films_are_kept_and_regrouped_without_decoding(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    argv = [film_file, "--baseline", "--out", tmp_path]
    assert scenes(*argv) == 0
    before = (tmp_path / "film" / "report.html").stat().st_mtime_ns
    monkeypatch.setattr(detector, "cut_shots", None)  # decoding now fails
    assert scenes(*argv) == 0
    assert "(unchanged)" in capsys.readouterr().out
    assert (tmp_path / "film" / "report.html").stat().st_mtime_ns == before
    assert scenes(*argv, "--scenes", "4") == 0
    assert [scene["last_shot"] for scene in document(tmp_path / "film")["scenes"]] == [0, 1, 2, 3]
    assert scenes(*argv, "--threshold", "0", "--min-scene", "2") == 0
    assert [scene["end"] for scene in document(tmp_path / "film")["scenes"]] in ([2.5, 5.5], [3.75, 5.5])
    assert len(list((tmp_path / "film" / "sheets").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["film"]


def test_a_changed_film_or_another_detector_is_done_again(film_file: Path, tmp_path: Path):
    mine = tmp_path / "film.mp4"
    shutil.copy(film_file, mine)
    argv = [mine, "--baseline", "--out", tmp_path / "out"]
    assert scenes(*argv) == 0
    (tmp_path / "shots.csv").write_text("start_frame\n0\n60\n")
    assert scenes(*argv, "--shots", tmp_path / "shots.csv") == 0
    assert [shot["first_frame"] for shot in document(tmp_path / "out" / "film")["shots"]] == [0, 60]
    draw_video(mine, [24, 24])
    assert scenes(*argv) == 0
    assert [shot["first_frame"] for shot in document(tmp_path / "out" / "film")["shots"]] == [0, 24]


def test_finished_films_get_the_export_of_another_plug_in(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    argv = [film_file, "--baseline", "--out", tmp_path]
    assert scenes(*argv) == 0
    monkeypatch.setattr(detector, "cut_shots", None)  # decoding now fails
    registered = plugins._registered["outputs"]
    monkeypatch.setitem(registered, "count.txt", lambda film: f"{len(film.scenes)}\n")
    assert scenes(*argv) == 0
    assert (tmp_path / "film" / "count.txt").read_text() == f"{len(document(tmp_path / 'film')['scenes'])}\n"
    assert "(unchanged)" not in capsys.readouterr().out
    assert scenes(*argv) == 0
    assert "(unchanged)" in capsys.readouterr().out
    monkeypatch.delitem(registered, "count.txt")
    assert scenes(*argv) == 0
    assert not (tmp_path / "film" / "count.txt").exists()


@pytest.mark.parametrize("name", ["scenes.csv", "report.html", "sheets", "../film.txt"])
def test_a_plug_in_may_not_take_a_name_of_ours(name: str, film_file: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(plugins._registered["outputs"], name, lambda film: "")
    said = refused(capsys, "scenes", film_file, "--baseline", "--out", tmp_path / "out")
    assert f"plug-in {name} of " in said.replace("'", "")
    assert "rename" in said
    assert not (tmp_path / "out").exists()


def test_a_plug_in_that_returns_no_text(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setitem(plugins._registered["outputs"], "count.txt", lambda film: len(film.scenes))
    said = refused(capsys, "scenes", film_file, "--baseline", "--out", tmp_path)
    assert said == "bassl-fast: plug-in count.txt: returned int, not text; fix or remove it"
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_keeps_what_is_finished(film_file: Path, tmp_path: Path):
    films = tmp_path / "films"
    films.mkdir()
    shutil.copy(film_file, films / "a.mp4")
    draw_video(films / "b.mp4", [200] * 6)
    argv = [sys.executable, "-m", "bassl_fast.cli", "scenes", films, "--baseline", "--out", tmp_path / "out"]
    running = subprocess.Popen([*map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stdout:
        if line.startswith("a:"):
            break
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert said.strip() == "bassl-fast: interrupted; the same command resumes"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    before = (tmp_path / "out" / "a" / "report.html").stat().st_mtime_ns
    assert scenes(*argv[4:]) == 0
    assert (tmp_path / "out" / "a" / "report.html").stat().st_mtime_ns == before
    assert len(document(tmp_path / "out" / "b")["shots"]) == 6


def test_a_film_behind_an_address(film_file: Path, tmp_path: Path, capsys):
    with http_server(film_file.parent) as port:
        address = f"http://127.0.0.1:{port}/film.mp4"
        assert scenes(address, "--baseline", "--out", tmp_path, "--split", "copy") == 0
        argv = ["scenes", f"http://127.0.0.1:{port}/none.mp4", "--baseline", "--out", tmp_path]
        assert "no such file at this address" in refused(capsys, *argv)
    assert scenes(film_file, "--baseline", "--out", tmp_path / "here") == 0
    there, here = document(tmp_path / "film"), document(tmp_path / "here" / "film")
    assert there["shots"] == here["shots"]
    assert there["source"] == address


def test_memory_grows_by_little_a_shot(film_file: Path, tmp_path: Path, warm: str):
    """200 shots more: decoded they would take 150 MB, their JPEGs take 3."""
    film = loop_video(draw_video(tmp_path / "clip.mp4", [16] * 10), tmp_path / "film.mp4", 16 * 200 / 24 - 1)
    code = (
        "import sys; from bassl_fast import SceneDetector\n"
        f"{PEAK}\n"
        "detector = SceneDetector.baseline()\n"
        "detector(sys.argv[1]); before = peak(); print(len(detector(sys.argv[2]).shots), peak() - before)"
    )
    argv = [warm, "-c", code, str(film_file), str(film)]
    shots, kilobytes = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert int(shots) == 200
    assert int(kilobytes) < 70_000


@pytest.mark.parametrize("rate", [10, 60])
def test_one_shot_is_one_scene(tmp_path: Path, rate):
    draw_video(tmp_path / "one.mp4", [rate], rate=rate)
    assert scenes(tmp_path / "one.mp4", "--baseline", "--out", tmp_path / "out", "--scenes", "3") == 0
    found = document(tmp_path / "out" / "one")
    assert (len(found["shots"]), len(found["scenes"]), found["duration"]) == (1, 1, 1.0)


# User mistakes


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no such file"),
        ("empty", "an empty file"),
        ("text", "not a video, or a broken one"),
        ("sound", "no video stream, only sound or data"),
        ("no_index", "a damaged header"),
        ("cut_mp4", "cut short"),
        ("cut_mkv", "cut short"),
    ],
)
def test_a_bad_film_is_one_line_and_the_others_are_finished(film_file: Path, tmp_path: Path, capsys, kind, said):
    bad = bad_file(kind, tmp_path)
    argv = ["scenes", bad, "--baseline", "--out", tmp_path / "out"]
    line = refused(capsys, *argv)
    assert str(bad) in line
    assert said in line
    assert list((tmp_path / "out").glob("*")) == []
    assert scenes(film_file, *argv[1:]) == 1
    assert "1 of 2 films failed, see above; the others are in" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film"]


def test_a_stream_without_a_picture(tmp_path: Path, capsys):
    source = draw_video(tmp_path / "film.mkv", [24], sound=True)
    with av.open(str(source)) as read, av.open(str(tmp_path / "none.mkv"), "w") as write:
        copies = {stream.index: write.add_stream_from_template(stream) for stream in read.streams}
        for packet in read.demux():
            if packet.dts is not None and packet.stream.type == "audio":
                packet.stream = copies[packet.stream_index]
                write.mux(packet)
    line = refused(capsys, "scenes", tmp_path / "none.mkv", "--baseline", "--out", tmp_path / "out")
    assert "none.mkv: a video stream without pictures" in line


def test_an_unknown_codec(tmp_path: Path, capsys):
    source = draw_video(tmp_path / "film.avi", [24])
    source.write_bytes(source.read_bytes().replace(b"FMP4", b"QQQQ"))
    assert "no decoder for its video" in refused(capsys, "scenes", source, "--baseline", "--out", tmp_path / "out")


def test_a_folder_without_write_permission(film_file: Path, tmp_path: Path, capsys):
    if os.geteuid():
        pytest.skip("needs root: becomes another user for a moment")
    # Imports all that the command needs, as another user may not be allowed to read the interpreter's folder.
    assert "no such file" in refused(capsys, "scenes", tmp_path / "none.mp4", "--baseline", "--out", tmp_path / "out")
    with tempfile.TemporaryDirectory() as place:  # one that anybody may enter
        Path(place).chmod(0o755)
        shutil.copy(film_file, place)
        os.seteuid(65534)
        try:
            line = refused(capsys, "scenes", f"{place}/film.mp4", "--baseline", "--out", f"{place}/out")
        finally:
            os.seteuid(0)
    assert line == f"bassl-fast: {place}/out: cannot be written (Permission denied); choose a folder you may write to"
    line = refused(capsys, "scenes", film_file, "--baseline", "--out", film_file)
    assert "a file is in the place of a folder" in line


def test_a_full_disk_keeps_finished_films(film_file: Path, tmp_path: Path, capsys):
    draw_video(tmp_path / "second.mp4", [16] * 12, size=(320, 240))
    with small_disk(tmp_path / "disk", "400k") as disk:
        argv = ["scenes", film_file, tmp_path / "second.mp4", "--baseline", "--out", disk]
        assert "No space left on device; make room" in refused(capsys, *argv)
        assert [path.name for path in disk.iterdir()] == ["film"]
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        assert cli.main(list(map(str, argv))) == 0
        assert "(unchanged)" in capsys.readouterr().out


def test_checkpoints_that_do_not_fit(project: Project, film_file: Path, tmp_path: Path, capsys):
    def said(*argv: object) -> str:
        return refused(capsys, "scenes", film_file, "--out", tmp_path / "out", *argv)

    wrong = "a checkpoint of `bassl-fast pretrain` or `bassl-fast train` or `bassl-fast import-checkpoint`; this needs"
    assert wrong in said("--checkpoint", project.pretrained)
    assert "no such checkpoint" in said("--checkpoint", tmp_path / "none.ckpt")
    assert "give one of them" in said("--checkpoint", project.finetuned, "--baseline")
    state = torch.load(project.pretrained, weights_only=True)
    state["state_dict"]["encoder.bn1.weight"] += 1
    torch.save(state, tmp_path / "other.ckpt")
    assert "holds its own encoder" in said("--checkpoint", project.finetuned, "--encoder", project.pretrained)
    state = torch.load(project.finetuned, weights_only=True)
    state["model"]["encoder"] = None
    torch.save(state, tmp_path / "lone.ckpt")
    assert "give the checkpoint of the encoder with --encoder" in said("--checkpoint", tmp_path / "lone.ckpt")
    assert "not the encoder that" in said("--checkpoint", tmp_path / "lone.ckpt", "--encoder", tmp_path / "other.ckpt")
    argv = [film_file, "--checkpoint", tmp_path / "lone.ckpt", "--encoder", project.pretrained, "--out", tmp_path / "o"]
    assert scenes(*argv) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threshold", "2"], "threshold 2.0: a probability; choose from 0 to 1"),
        (["--scenes", "0"], "scenes 0: must be at least 1"),
        (["--scenes", "3", "--threshold", "0.5"], "give one of them"),
        (["--min-scene", "-1"], "min_scene -1.0: seconds; must be at least 0"),
        (["--shots", "none.csv"], "none.csv: no such shot list"),
        (["--shot-detector", "magic"], "shot_detector magic: must be one of transitions, adaptive"),
        (["--encoder", "x.ckpt"], "encoder: the baseline has none"),
        (["--min-scenes", "1"], "unknown option --min_scenes; did you mean '--min_scene'?"),
    ],
)
def test_impossible_options(film_file: Path, tmp_path: Path, capsys, options, said):
    assert said in refused(capsys, "scenes", film_file, "--baseline", "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_folders_and_names(film_file: Path, tmp_path: Path, capsys):
    """Videos of all folders in a folder; those of one name get longer ones; what is left out is said."""
    for name in ("film.mp4", "deep/film.mp4", "deep/film.MTS", "deep/._film.mp4", "notes.txt"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(film_file, tmp_path / "films" / name)
    argv = ["--baseline", "--out", tmp_path / "out"]
    assert scenes(tmp_path / "films", *argv) == 0
    assert "left out notes.txt (not videos by their names); deep/._film.mp4 (hidden)" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"films_film", "deep_film", "film_MTS"}
    assert document(tmp_path / "out" / "film_MTS")["film"] == "film_MTS"

    assert "give one film at a time" in refused(
        capsys, "scenes", tmp_path / "films", film_file, "--shots", "x.csv", *argv
    )
    assert scenes(film_file, "--baseline", "--out", tmp_path / "one") == 0
    (tmp_path / "again").mkdir()
    same = shutil.copyfile(film_file, tmp_path / "again" / film_file.name)
    assert scenes(same, "--baseline", "--out", tmp_path / "one") == 0
    assert "(unchanged)" in capsys.readouterr().out
    same.write_bytes(same.read_bytes() + bytes(8))
    assert "holds the scenes of" in refused(capsys, "scenes", same, "--baseline", "--out", tmp_path / "one")
    (tmp_path / "mine" / "film").mkdir(parents=True)
    assert "not a result of this command" in refused(
        capsys, "scenes", film_file, "--baseline", "--out", tmp_path / "mine"
    )
    (tmp_path / "empty").mkdir()
    assert "no videos in it" in refused(capsys, "scenes", tmp_path / "empty", *argv)


def test_one_film_by_two_paths_is_one(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    argv = ["--baseline", "--out", tmp_path / "out"]
    assert scenes(film_file, film_file.parent / "." / ".." / film_file.parent.name / film_file.name, *argv) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film"]
    monkeypatch.chdir(film_file.parent)
    capsys.readouterr()
    assert scenes(f"./{film_file.name}", *argv) == 0
    assert "(unchanged)" in capsys.readouterr().out


NAMES = ("Alien: Covenant.mp4", "line\nbreak.mp4", "-dash.mp4", "x" * 250 + ".mp4", "b\udcff.mp4", "100%d.mp4")


def test_films_of_any_name(film_file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shutil.copy(film_file, name)
    assert scenes("--baseline", "--out", "out", "--", *NAMES) == 0
    found = {path.name for path in Path("out").iterdir()}
    assert {"Alien_Covenant", "line_break", "dash", "b", "100_d"} < found
    assert len(found) == len(NAMES)
    for name in found:
        edl = (tmp_path / "out" / name / "scenes.edl").read_text()
        assert sum(line[:3].isdigit() for line in edl.splitlines()) == len(document(tmp_path / "out" / name)["scenes"])


def test_a_bug_that_one_film_shows_does_not_lose_the_others(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    whole = ColourChange.probability

    def fails_once(self, features, seconds=None):
        monkeypatch.setattr(ColourChange, "probability", whole)
        raise ZeroDivisionError("of a test")

    monkeypatch.setattr(ColourChange, "probability", fails_once)
    other = shutil.copy(film_file, tmp_path / "other.mp4")
    assert scenes(film_file, other, "--baseline", "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: of a test" in said
    assert said.endswith(f"1 of 2 films failed, see above; the others are in {tmp_path / 'out'}\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["other"]


def test_damage_is_said_and_kept(film_file: Path, tmp_path: Path, capsys):
    data = bytearray(film_file.read_bytes())
    begin = data.find(b"mdat") + 4
    for part in (0.2, 0.3, 0.4):
        at = begin + int(part * (data.find(b"moov") - begin))
        data[at : at + 60] = bytes(range(60))
    (tmp_path / "bad.mp4").write_bytes(data)
    assert scenes(tmp_path / "bad.mp4", "--baseline", "--out", tmp_path / "out") == 0
    assert "packets or pictures of" in capsys.readouterr().out
    assert sum(shot["damaged"] for shot in document(tmp_path / "out" / "bad")["shots"]) > 0


def test_the_time_code_of_the_first_picture(film_file: Path, tmp_path: Path, capsys):
    argv = [film_file, "--baseline", "--out", tmp_path / "out"]
    for start in ("10:00:00:00", "01:00:00:12"):  # the second without decoding again
        assert scenes(*argv, "--start-timecode", start) == 0
        assert document(tmp_path / "out" / "film")["shots"][0]["start_timecode"] == start
    assert scenes(*argv, "--scenes", "2") == 0  # it stays
    assert document(tmp_path / "out" / "film")["shots"][0]["start_timecode"] == "01:00:00:12"
    said = refused(capsys, "scenes", *argv, "--start-timecode", "00:00:00:24")
    assert "film.mp4: time code 00:00:00:24: does not exist at 24 frames a second; frames are 00 to 23" in said


def test_what_others_put_into_the_folder_stays(film_file: Path, tmp_path: Path, capsys):
    argv = [film_file, "--baseline", "--out", tmp_path / "out"]
    assert scenes(*argv, "--scenes", "2") == 0
    mine = ["notes.txt", "my/a.txt", "sheets/mine.jpg", "film-corrected.json"]
    for name in mine:
        (tmp_path / "out" / "film" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / "film" / name).write_text(name)
    capsys.readouterr()
    assert scenes(*argv, "--scenes", "3") == 0
    assert f"kept from before: {', '.join(sorted(mine))}" in capsys.readouterr().out
    assert all((tmp_path / "out" / "film" / name).read_text() == name for name in mine)


def test_clips_stay_with_their_scenes_and_it_is_said_when_they_go(film_file: Path, tmp_path: Path, capsys):
    argv, folder = [film_file, "--baseline", "--out", tmp_path / "out"], tmp_path / "out" / "film"
    assert scenes(*argv, "--scenes", "2", "--split", "copy", "--chapters") == 0
    clips = digests(folder / "clips")
    capsys.readouterr()
    assert scenes(*argv, "--scenes", "2") == 0
    assert "(unchanged)" in capsys.readouterr().out
    assert scenes(*argv, "--scenes", "2", "--min_scene", "0.1") == 0  # the same scenes
    assert digests(folder / "clips") == clips
    assert (folder / "film-chapters.mkv").is_file()
    capsys.readouterr()
    assert scenes(*argv, "--scenes", "3") == 0
    assert "deleted, as of other scenes: clips and film-chapters.mkv" in capsys.readouterr().out
    assert not (folder / "clips").exists()


# Examples, and real films


@pytest.mark.parametrize("module", [detector, film], ids=lambda module: module.__name__)
def test_examples(module, project: Project, film_file: Path, tmp_path: Path, monkeypatch):
    shutil.copy(film_file, tmp_path)
    shutil.copy(project.finetuned, tmp_path)
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real clips, which are not in the repository")
def test_real_clips_alone_and_as_one_film(project: Project, tmp_path: Path):
    argv = ["--checkpoint", project.finetuned, "--out", tmp_path / "out"]
    assert scenes(REAL, *argv) == 0
    clips = sorted(path for path in REAL.iterdir() if path.suffix in (".mp4", ".webm"))
    found = {path.stem: document(tmp_path / "out" / path.stem) for path in clips}
    assert [len(found[name]["shots"]) for name in ("sintel_trailer", "sintel_sunset", "big_buck_bunny_30s")] == [
        16,
        7,
        4,
    ]
    short = [clip for clip in clips if clip.suffix == ".webm"]
    joined = join_videos(short, tmp_path / "joined.mp4")
    assert scenes(joined, *argv, "--scenes", "6") == 0
    whole = document(tmp_path / "out" / "joined")
    assert len(whole["scenes"]) == 6
    alone = sum(len(found[clip.stem]["shots"]) for clip in short)
    assert abs(len(whole["shots"]) - alone) <= 1  # smaller frames may be cut differently
    with open_browser() as browser:
        browser.open(tmp_path / "out" / "joined" / "report.html")
        assert len(browser.all(".shot")) == len(whole["shots"])
        assert browser.attributes(".shot", "data-scene")[-1] == "6"
        ends = [
            shot["shot"] for shot in whole["shots"] if shot["shot"] in {s["last_shot"] for s in whole["scenes"][:-1]}
        ]
        marks = browser.attributes(".shot", "data-mark")
        assert [i for i, mark in enumerate(marks) if mark == "predicted"] == ends


def test_scenes_behind_an_address(film_file: Path, tmp_path: Path, monkeypatch, capsys):
    """The same bytes; regrouped from there; files that the new grouping does not have are gone."""
    (tmp_path / "s3" / BUCKET).mkdir(parents=True)
    monkeypatch.setenv("BASSL_FAST_CACHE", str(tmp_path / "cache"))
    with s3_server(tmp_path / "s3") as port:
        use_s3(monkeypatch, port)
        argv, there = [film_file, "--baseline"], ["--out", f"s3://{BUCKET}/scenes"]
        for options in (["--scenes", "3"], ["--scenes", "2"]):
            assert scenes(*argv, *options, "--out", tmp_path / "here") == 0
            assert scenes(*argv, *options, *there) == 0
            here, remote = digests(tmp_path / "here"), digests(tmp_path / "s3" / BUCKET / "scenes")
            del here["film/report.html"], remote["film/report.html"]  # says where the film is from there
            assert remote == here
        assert f"s3://{BUCKET}/scenes/film/report.html" in capsys.readouterr().out
        assert scenes(*argv, "--scenes", "2", *there) == 0
        assert "(unchanged)" in capsys.readouterr().out
