"""Clips: videos and folders of frames, with the lists of four data sets; what is missing or malformed is one line."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from shard_tools.errors import BasslFastError, ShardError, SourceError
from shard_tools.packing.pack import pack
from shard_tools.packing.repair import repair
from shard_tools.packing.verify import verify
from shard_tools.shards import format as fmt
from shard_tools.shards.index import ShardIndex
from shard_tools.sources import folders as trees
from shard_tools.sources.detect import Reading
from shard_tools.sources.lists import find_lists
from shard_tools.video.clips import clip_frames
from tests.films import digests, picture


def make_video(path: Path, frames: int = 12, fps: int = 24, size: tuple[int, int] = (64, 48), times=None) -> Path:
    """A video whose frame number k is a grey of 8 k; `times` are the frames' own, in ticks of 1/240 s."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 2_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 240)
        for k in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((*size[::-1], 3), min(255, 8 * k), np.uint8), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[k], Fraction(1, 240)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_frames(folder: Path, frames: int, name: str = "{:08d}.jpg", seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for k in range(frames):
        (folder / name.format(k + 1)).write_bytes(picture(1000 * seed + k))
    return folder


def greys(jpegs: list[bytes]) -> list[int]:
    return [round(np.asarray(Image.open(io.BytesIO(jpeg))).mean() / 8) for jpeg in jpegs]


def clips_of(shards: Path) -> dict[tuple[str, str], tuple[str | None, int]]:
    """(split, name) -> (class or None, frames)."""
    index = ShardIndex.open(shards)
    rows = index.sequences[["split", "name", "label", "frames_per_shot"]].tolist()
    return {(s.decode(), n.decode()): (index.classes[c] if c >= 0 else None, t) for s, n, c, t in rows}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(source: Path, dst: Path, **options) -> str:
    with pytest.raises(BasslFastError) as error:
        pack(source, dst, workers=1, **options)
    assert "\n" not in str(error.value)
    assert not (dst / fmt.MANIFEST).exists()
    return str(error.value)


# --- a video as frames


def test_frame_k_is_the_one_shown_at_k_over_fps(tmp_path):
    video = make_video(tmp_path / "a.mp4", 12, 24)
    assert greys(list(clip_frames(video, 24, 0))) == list(range(12))
    assert greys(list(clip_frames(video, 12, 0))) == list(range(0, 12, 2))
    assert greys(list(clip_frames(video, 48, 0))) == [k // 2 for k in range(24)]
    assert greys(list(clip_frames(video, 30, 0))) == [int(k * 24 / 30 + 1e-6) for k in range(15)]


def test_a_varying_frame_rate_is_resampled_in_time(tmp_path):
    video = make_video(tmp_path / "a.mp4", 5, 24, times=[0, 10, 100, 110, 120])
    shown = greys(list(clip_frames(video, 24, 0)))
    assert shown[:13] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((64, 48), 0, (64, 48)), ((64, 48), 96, (128, 96)), ((48, 64), 24, (24, 32)), ((100, 48), 32, (67, 32))],
)
def test_the_short_side_has_the_size_asked_for(tmp_path, size, short_side, expected):
    (jpeg, *_) = clip_frames(make_video(tmp_path / "a.mp4", 2, size=size), 24, short_side)
    assert Image.open(io.BytesIO(jpeg)).size == expected


# --- folders of classes, without lists


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for split, each in (("train", 3), ("val", 1)):
        for name in ("dance", "dance 2", "yo.yo"):
            for i in range(each):
                make_video(root / split / name / f"{name} v1.{i}.mp4", 6 + 2 * i)
    return root


def test_videos_in_folders_of_classes(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "SHARD", 20_000)
    for workers in (1, 3):
        pack(tree, tmp_path / str(workers), workers=workers, reading=Reading(short_side=32))
    assert digests(tmp_path / "1") == digests(tmp_path / "3")
    index = ShardIndex.open(tmp_path / "1")
    assert (index.kind, index.classes) == ("clips", ["dance", "dance 2", "yo.yo"])
    assert len(index.shards) > 3
    assert index.sequences.dtype["fps"] == np.float32
    assert set(index.sequences["fps"].tolist()) == {30.0}
    assert clips_of(tmp_path / "1") == {
        (split, f"{name}/{name} v1.{i}"): (name, -(-(6 + 2 * i) * 30 // 24))
        for split, each in (("train", 3), ("val", 1))
        for name in index.classes
        for i in range(each)
    }
    assert index.sequences[["shots", "height", "width"]].tolist() == [(1, 32, 43)] * 12
    assert len(index.select("val")) == 3
    assert verify(tmp_path / "1", "all") == []
    frame = int(index.sequences["first_frame"][4]) + 2
    shard, member, offset = index.locate(frame)
    assert member == f"{index.name_of(4)}/frame.000002.jpg"
    with tarfile.open(shard) as tar:
        assert tar.getmember(member).offset_data == offset


def test_webdataset_gives_every_clip_with_all_its_frames(tree, tmp_path):
    import webdataset

    pack(tree, tmp_path / "dst", reading=Reading(fps=24, short_side=32))
    found = {}
    for sample in webdataset.WebDataset(str(tmp_path / "dst" / "train-00000.tar"), shardshuffle=False):
        found[sample["__key__"]] = greys([sample[key] for key in sorted(sample) if not key.startswith("__")])
    names = ("dance", "dance 2", "yo.yo")
    assert found == {f"{c}/{c} v1.{i}/frame": list(range(6 + 2 * i)) for c in names for i in range(3)}


def test_folders_of_frames_are_copied_byte_for_byte(tmp_path):
    for i, name in enumerate(("a", "b")):
        make_frames(tmp_path / "src" / name / f"v{i}", 3 + i, seed=i)
        make_frames(tmp_path / "src" / name / "other", 2, "img_{:05d}.jpg", seed=i + 5)
    pack(tmp_path / "src", tmp_path / "dst")
    assert clips_of(tmp_path / "dst") == {
        ("", "a/other"): ("a", 2),
        ("", "a/v0"): ("a", 3),
        ("", "b/other"): ("b", 2),
        ("", "b/v1"): ("b", 4),
    }
    index = ShardIndex.open(tmp_path / "dst")
    assert set(index.sequences["fps"].tolist()) == {0.0}
    data = [path.read_bytes() for path in sorted((tmp_path / "src").rglob("*.jpg"))]
    for frame, expected in enumerate(data):
        shard, _, offset = index.locate(frame)
        assert Path(shard).read_bytes()[offset : offset + len(expected)] == expected
    pack(tmp_path / "src", tmp_path / "with-fps", reading=Reading(fps=12.5))
    assert set(ShardIndex.open(tmp_path / "with-fps").sequences["fps"].tolist()) == {12.5}


def missing_frame(folder: Path) -> str:
    (folder / "00000002.jpg").unlink()
    return "a/v: frame 2 missing; extract its frames again"


def foreign_file(folder: Path) -> str:
    (folder / "notes.txt").write_text("x")
    return "a/v/notes.txt: not a frame like its neighbours"


def twice(folder: Path) -> str:
    (folder / "0002.jpg").write_bytes(picture())
    return "not a frame like its neighbours"


def other_size(folder: Path) -> str:
    (folder / "00000002.jpg").write_bytes(picture(0, (32, 48)))
    return "00000002.jpg: 32x48 pixels where the clip has 48x32; extract its frames again"


def no_frames(folder: Path) -> str:
    (folder.parent / "w").mkdir()
    return "a/w: a clip without frames"


def empty_class(folder: Path) -> str:
    (folder.parents[1] / "b").mkdir()
    return "b: a class without clips; fill or remove its folder"


def dead_link(folder: Path) -> str:
    (folder / "00000001.jpg").unlink()
    (folder / "00000001.jpg").symlink_to("nowhere")
    return "a/v/00000001.jpg: No such file or directory; extract its frames again"


def classes_of_one_name(folder: Path) -> str:
    shutil.copytree(folder.parent, folder.parents[1] / "A")
    return "classes 'A' and 'a' differ only in case or Unicode form; merge them"


@pytest.mark.parametrize(
    "spoil",
    [dead_link, classes_of_one_name, missing_frame, foreign_file, twice, other_size, no_frames, empty_class],
)
def test_wrong_frames_are_one_line(tmp_path, spoil):
    folder = make_frames(tmp_path / "src" / "a" / "v", 4)
    reason = spoil(folder)
    assert reason in refused(tmp_path / "src", tmp_path / "dst")


def cut_video(path: Path) -> str:
    path.write_bytes(path.read_bytes()[:-200])
    return "a/v.mp4: "


def text_video(path: Path) -> str:
    path.write_text("no video")
    return "a/v.mp4: not a video"


def sound_alone(path: Path) -> str:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return "a/v.mp4: no video stream"


def empty_video(path: Path) -> str:
    path.write_bytes(b"")
    return "a/v.mp4: an empty file"


def same_name(path: Path) -> str:
    shutil.copy(path, path.with_suffix(".mkv"))
    return "would be packed as a/v, like"


def no_video(path: Path) -> str:
    (path.parent / "notes.txt").write_text("x")
    return "notes.txt: neither a video nor a folder of frames"


@pytest.mark.parametrize("spoil", [cut_video, text_video, sound_alone, empty_video, same_name, no_video])
def test_wrong_videos_are_one_line(tmp_path, spoil):
    video = make_video(tmp_path / "src" / "a" / "v.mp4", 40)
    reason = spoil(video)
    assert reason in refused(tmp_path / "src", tmp_path / "dst")


@pytest.mark.parametrize("frames", [9, 10])
def test_a_film_is_too_long_for_a_clip(tmp_path, monkeypatch, frames):
    monkeypatch.setattr(fmt, "MOST_IMAGES", 9)
    make_video(tmp_path / "src" / "a" / "film.mp4", frames)
    reading = Reading(fps=24, short_side=16)
    if frames == 10:
        said = refused(tmp_path / "src", tmp_path / "dst", reading=reading)
        assert "a/film.mp4: 10 frames, a clip has at most 9; cut it, or pack the folder it is in as films" in said
    else:
        pack(tmp_path / "src", tmp_path / "dst", reading=reading)


# --- stopped packs, verify, repair


def test_a_stopped_pack_starts_again_with_other_options_and_repair_uses_them(tree, tmp_path, monkeypatch):
    dst, reading = tmp_path / "dst", Reading(short_side=32, fps=10)
    with monkeypatch.context() as patch:
        patch.setattr("shard_tools.packing.pack.write_index", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pack(tree, dst, workers=1, reading=Reading(short_side=24))
    pack(tree, dst, workers=1, reading=reading)
    pack(tree, tmp_path / "fresh", workers=1, reading=reading)
    assert digests(dst) == digests(tmp_path / "fresh")
    before = (dst / "val-00000.tar").stat().st_mtime_ns
    (dst / "train-00000.tar").write_bytes(b"gone")
    assert verify(dst)
    repair(dst, tree, workers=1)
    assert digests(dst) == digests(tmp_path / "fresh")
    assert (dst / "val-00000.tar").stat().st_mtime_ns == before
    with pytest.raises(ShardError, match="already holds a finished set"):
        pack(tree, dst)


# --- Kinetics


@pytest.fixture
def kinetics(tmp_path) -> Path:
    root = tmp_path / "k"
    for split in ("train", "val"):
        for label, name in enumerate(("abseiling", "yo yo")):
            make_video(root / split / name / f"{split}-{label}.mp4", 6)
    write(root / "train.csv", "abseiling/train-0.mp4 0\nyo yo/train-1.mp4 1\n")
    write(root / "val.csv", "abseiling/val-0.mp4 0\nyo yo/val-1.mp4 1 6")
    return root


def test_kinetics_lists(kinetics, tmp_path):
    make_video(kinetics / "train" / "yo yo" / "unlisted.mp4", 6)
    pack(kinetics, tmp_path / "dst", reading=Reading(short_side=24))
    assert clips_of(tmp_path / "dst") == {
        (split, f"{name}/{split}-{label}"): (name, 8)
        for split in ("train", "val")
        for label, name in enumerate(("abseiling", "yo yo"))
    }


def test_kinetics_as_frames_with_their_numbers(kinetics, tmp_path):
    for path in [*kinetics.glob("*/*/*.mp4")]:
        path.unlink()
        make_frames(path.with_suffix(""), 6)
    pack(kinetics, tmp_path / "dst")
    assert {frames for _, frames in clips_of(tmp_path / "dst").values()} == {6}
    assert set(ShardIndex.open(tmp_path / "dst").sequences["fps"].tolist()) == {30.0}
    (kinetics / "val" / "yo yo" / "val-1" / "00000006.jpg").unlink()
    assert "5 frames, its list says 6; extract its frames again" in refused(kinetics, tmp_path / "new")


def test_lists_elsewhere_and_paths_from_the_root(kinetics, tmp_path):
    lists = tmp_path / "lists"
    for split in ("train", "val"):
        text = (kinetics / f"{split}.csv").read_text()
        write(lists / f"{split}.csv", "".join(f"{split}/{line}\n" for line in text.splitlines()))
        (kinetics / f"{split}.csv").unlink()
    pack(kinetics, tmp_path / "dst", annotations=lists, reading=Reading(short_side=24))
    assert clips_of(tmp_path / "dst")["val", "val/yo yo/val-1"] == ("yo yo", 8)
    with pytest.raises(SourceError, match="list: no lists of clips here"):
        pack(kinetics, tmp_path / "other", annotations=tmp_path / "list", reading=Reading(short_side=24))


def test_videos_in_one_folder_have_numbers_for_classes(tmp_path):
    for label in (0, 2):
        make_video(tmp_path / "src" / f"{label}.mp4", 6)
    write(tmp_path / "src" / "train.csv", "0.mp4 0\n2.mp4 2\n")
    pack(tmp_path / "src", tmp_path / "dst", reading=Reading(short_side=24))
    assert ShardIndex.open(tmp_path / "dst").classes == ["0", "1", "2"]
    assert clips_of(tmp_path / "dst") == {("train", "0"): ("0", 8), ("train", "2"): ("2", 8)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("yo yo/train-1.mp4\n", "val.csv:3: not a line of a list of clips; expected 'class/video.mp4 0'"),
        ("label,youtube_id,split\n", "val.csv:3: not a line of a list of clips"),
        ("yo yo/x.mp4 -1\n", "val.csv:3: not a line"),
        ("yo yo/gone.mp4 1\n", "val/yo yo/gone.mp4 is missing; fetch it or remove it from the list"),
        ("yo yo/gone.mp4 1\nyo yo/gone2.mp4 1\n", "gone.mp4 is missing, as are 1 more; fetch"),
        ("yo yo/x.mp4 0\n", "val.csv:3: label 0 is used for 'yo yo' and 'abseiling'; fix the list"),
        ("yo yo/x.mp4 2\n", "two labels for one class folder"),
        ("zumba/x.mp4 7\n", "val.csv:3: label 7 is out of range: 3 classes are numbered from 0; renumber them"),
        ("yo yo/val-1.mp4 1\n", "val.csv:3: yo yo/val-1.mp4 is also listed at"),
        ("yo yo/../../train.csv 1\n", "label 1 is used for '..'"),
        ("../yo yo/x.mp4 1\n", "leaves the folder; give a path relative to it"),
        ("/data/yo yo/x.mp4 1\n", "leaves the folder"),
    ],
)
def test_a_wrong_list_is_one_line(kinetics, tmp_path, line, said):
    with (kinetics / "val.csv").open("a") as file:
        file.write(f"\n{line}")
    assert said in refused(kinetics, tmp_path / "dst")


def test_a_clip_of_two_splits_is_refused(kinetics, tmp_path):
    for split in ("train", "val"):
        text = (kinetics / f"{split}.csv").read_text()
        write(kinetics / f"{split}.csv", "".join(f"{split}/{line}\n" for line in text.splitlines()))
    with (kinetics / "val.csv").open("a") as file:
        file.write("train/yo yo/train-1.mp4 1\n")
    said = refused(kinetics, tmp_path / "dst")
    assert f"val.csv:3: train/yo yo/train-1.mp4 is also listed at {kinetics}/train.csv:2; keep one of them" in said


def test_a_class_folder_in_no_list_is_refused(kinetics, tmp_path):
    make_video(kinetics / "train" / "zumba" / "x.mp4", 6)
    assert "train/zumba: not a class in the lists of Kinetics; move it away" in refused(kinetics, tmp_path / "dst")


# --- UCF101, HMDB51


def write_ucf(root: Path, classes: int = 101, lists: str = "ucfTrainTestlist") -> Path:
    names = [f"Class{n:03d}" for n in reversed(range(classes))]  # labels are those of classInd.txt, not of the alphabet
    write(root / lists / "classInd.txt", "".join(f"{n} {name}\r\n" for n, name in enumerate(names, 1)))
    for n, name in enumerate(names, 1):
        for clip in ("g01_c01", "g02_c01"):
            make_frames(root / "UCF-101" / name / f"v_{name}_{clip}", 1)
        with open(root / lists / "trainlist02.txt", "a") as file:
            file.write(f"{name}/v_{name}_g01_c01.avi {n}\n")
        with open(root / lists / "testlist02.txt", "a") as file:
            file.write(f"{name}/v_{name}_g02_c01.avi\n")
    return root


@pytest.fixture(scope="module")
def ucf(tmp_path_factory) -> Path:
    return write_ucf(tmp_path_factory.mktemp("ucf"))


def test_ucf101(ucf, tmp_path):
    pack(ucf, tmp_path / "dst", workers=1, reading=Reading(split_id=2))
    index = ShardIndex.open(tmp_path / "dst")
    assert index.classes[0] == "Class100"
    assert set(index.sequences["fps"].tolist()) == {25.0}
    clips = clips_of(tmp_path / "dst")
    assert len(clips) == 202
    assert clips["train", "Class007/v_Class007_g01_c01"] == ("Class007", 1)
    assert clips["test", "Class007/v_Class007_g02_c01"] == ("Class007", 1)
    assert len(index.select("test")) == 101


def test_ucf101_of_a_split_without_lists(ucf, tmp_path):
    assert "trainlist01.txt: missing; put it there" in refused(ucf, tmp_path / "dst")


def test_ucf101_has_101_classes(tmp_path):
    root = write_ucf(tmp_path / "u", 5)
    said = refused(root, tmp_path / "dst", reading=Reading(split_id=2))
    assert "lists of 5 classes, UCF101 has 101; fetch its lists again" in said


@pytest.mark.parametrize(
    ("list_name", "line", "said"),
    [
        ("trainlist02.txt", "Class001/x.avi 101", "label 101, Class001 has 100, of 1 to 101; fix the list"),
        ("trainlist02.txt", "Class001/x.avi 0", "label 0, Class001 has 100"),
        ("trainlist02.txt", "Class999/x.avi 1", "Class999 is not a class of the lists; fix them"),
        ("trainlist02.txt", "x.avi 1", "not a line of this list; expected 'class/video.avi 1'"),
        ("testlist02.txt", "Class001/x.avi", "Class001/x is missing"),
        ("classInd.txt", "102", "classInd.txt:102: not a class"),
        ("classInd.txt", "103 New", "classes are not numbered 1 to 102"),
        ("classInd.txt", "102 New", "lists of 102 classes, UCF101 has 101"),
    ],
)
def test_wrong_ucf_lists(ucf, tmp_path, list_name, line, said):
    lists = Path(shutil.copytree(ucf / "ucfTrainTestlist", tmp_path / "lists"))
    with (lists / list_name).open("a") as file:
        file.write(f"{line}\n")
    assert said in refused(ucf, tmp_path / "dst", annotations=lists, reading=Reading(split_id=2))


def test_ucf_folders_that_are_not_those_of_the_lists(ucf, tmp_path):
    root = Path(shutil.copytree(ucf, tmp_path / "u"))
    shutil.copytree(root / "UCF-101" / "Class001", root / "UCF-101" / "Extra")
    options = {"reading": Reading(split_id=2)}
    assert "UCF-101/Extra: not a class in the lists of UCF101" in refused(root, tmp_path / "dst", **options)
    shutil.rmtree(root / "UCF-101" / "Extra")
    shutil.rmtree(root / "UCF-101" / "Class001")
    for name in ("trainlist02.txt", "testlist02.txt"):
        path = root / "ucfTrainTestlist" / name
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "Class001" not in line))
    assert "Class001: no clips here, and UCF101 lists 101 classes; fetch them" in refused(
        root, tmp_path / "dst", **options
    )


@pytest.fixture(scope="module")
def hmdb(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("hmdb")
    for n in range(51):
        for tag in range(3):
            make_frames(root / f"class_{n}" / f"#{n} [clip]_{tag}!", 1)
        lines = "".join(f"#{n} [clip]_{tag}!.avi {tag} \n" for tag in range(3))
        write(root / "testTrainMulti_7030_splits" / f"class_{n}_test_split3.txt", lines)
        write(root / "testTrainMulti_7030_splits" / f"class_{n}_test_split1.txt", lines)
    return root


def test_hmdb51_by_its_tags(hmdb, tmp_path):
    pack(hmdb, tmp_path / "dst", workers=1, reading=Reading(split_id=3))
    clips = clips_of(tmp_path / "dst")
    assert len(clips) == 102
    assert clips["train", "class_7/#7 [clip]_1!"] == clips["test", "class_7/#7 [clip]_2!"] == ("class_7", 1)
    index = ShardIndex.open(tmp_path / "dst")
    assert index.classes == sorted(f"class_{n}" for n in range(51))
    assert set(index.sequences["fps"].tolist()) == {30.0}


def test_generated_lists_of_hmdb51_take_precedence(hmdb, tmp_path):
    root = Path(shutil.copytree(hmdb, tmp_path / "h"))
    names = sorted(f"class_{n}" for n in range(51))
    rows = [f"{name}/#{name[6:]} [clip]_0!.avi {label} 1" for label, name in enumerate(names)]
    write(root / "trainlist01.txt", "\n".join(rows))
    write(root / "testlist01.txt", "\n".join(row.replace("_0!", "_1!") for row in rows[:3]))
    pack(root, tmp_path / "dst", workers=1)
    assert len(clips_of(tmp_path / "dst")) == 54
    write(root / "testlist01.txt", rows[0].replace("_0!", "_1!").replace("avi 0", "avi 1"))
    assert "label 1, class_0 has 0, of 0 to 50" in refused(root, tmp_path / "new")


@pytest.mark.parametrize("line", ["clip.avi", "clip.avi 3", " 1", "a/b.avi 1"])
def test_a_bad_tag(hmdb, tmp_path, line):
    lists = Path(shutil.copytree(hmdb / "testTrainMulti_7030_splits", tmp_path / "lists"))
    with (lists / "class_7_test_split1.txt").open("a") as file:
        file.write(f"{line}\n")
    said = refused(hmdb, tmp_path / "dst", annotations=lists)
    assert "class_7_test_split1.txt:4: not a line of this list; expected 'video.avi 1'" in said


def test_hmdb51_has_51_classes(hmdb, tmp_path):
    lists = Path(shutil.copytree(hmdb / "testTrainMulti_7030_splits", tmp_path / "lists"))
    (lists / "class_7_test_split1.txt").unlink()
    assert "lists of 50 classes, HMDB51 has 51" in refused(hmdb, tmp_path / "dst", annotations=lists)


# --- Something-Something

TEMPLATES = ["Holding something", "Moving something up", "Putting something, onto something"]


def write_something(root: Path, version: int) -> Path:
    name = root / f"something-something-v{version}"
    parts = {"train": [10, 11, 12], "validation": [20, 22], "test": [30]}
    for n in (n for clips in parts.values() for n in clips):
        if version == 1:
            make_frames(root / "20bn-something-something-v1" / str(n), n % 10 + 2, "{:05d}.jpg")
        else:
            make_frames(root / str(n), n % 10 + 2, f"{n}_{{:06d}}.jpg")
    if version == 1:
        write(Path(f"{name}-labels.csv"), "\n".join(TEMPLATES))  # without a newline at its end
        for part, clips in parts.items():
            rows = (f"{n}" if part == "test" else f"{n};{TEMPLATES[n % 10]}" for n in clips)
            write(Path(f"{name}-{part}.csv"), "\n".join(rows))
    else:
        write(Path(f"{name}-labels.json"), json.dumps({t: str(n) for n, t in enumerate(TEMPLATES)}))
        for part, clips in parts.items():
            bracketed = [template.replace("something", "[something]") for template in TEMPLATES]
            rows = [{"id": str(n)} | ({} if part == "test" else {"template": bracketed[n % 10]}) for n in clips]
            write(Path(f"{name}-{part}.json"), json.dumps(rows))
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_something_something(tmp_path, version):
    root = write_something(tmp_path / "s", version)
    pack(root, tmp_path / "dst")
    split = {1: "train", 2: "val", 3: "test"}
    assert clips_of(tmp_path / "dst") == {
        (split[n // 10], str(n)): (None if n == 30 else TEMPLATES[n % 10], n % 10 + 2) for n in (10, 11, 12, 20, 22, 30)
    }
    index = ShardIndex.open(tmp_path / "dst")
    assert index.classes == TEMPLATES
    assert set(index.sequences["fps"].tolist()) == {12.0 if version == 1 else 30.0}


def test_something_something_as_videos(tmp_path):
    root = write_something(tmp_path / "s", 2)
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
        make_video(root / "videos" / f"{folder.name}.mp4", 4)
    pack(root, tmp_path / "dst", reading=Reading(short_side=24))
    assert {frames for _, frames in clips_of(tmp_path / "dst").values()} == {5}


def test_lists_of_frames_give_the_frames_of_a_clip(tmp_path):
    root = write_something(tmp_path / "s", 2)
    for split, clips in (("train", [10, 11, 12]), ("val", [20, 22])):
        rows = [f'{n} {i} {k} {n}/{n}_{k + 1:06d}.jpg ""' for i, n in enumerate(clips) for k in range(n % 10 + 2)]
        write(root / f"{split}.csv", "\n".join(["original_vido_id video_id frame_id path labels", *rows, ""]))
    pack(root, tmp_path / "dst")
    (root / "22" / "22_000004.jpg").unlink()
    assert "22: 3 frames, its list says 4; extract its frames again" in refused(root, tmp_path / "new")
    (root / "val.csv").write_bytes((root / "val.csv").read_bytes() + b"\xff 0 0 0\n")
    assert "val.csv: not UTF-8 text" in refused(root, tmp_path / "new")


@pytest.mark.parametrize(
    ("version", "name", "text", "said"),
    [
        (
            1,
            "train.csv",
            "10;Holding something\n11\n",
            "v1-train.csv:2: not a line of this list; expected 'id;template'",
        ),
        (1, "train.csv", "10;Eating something\n", "'Eating something' is not one of the 3 templates in"),
        (1, "train.csv", "99;Holding something\n", "99 is missing; fetch it or remove it from the list"),
        (1, "labels.csv", "Holding something\nHolding something\n", "a template appears twice"),
        (2, "train.json", "[{]", "not JSON"),
        (2, "train.json", '[{"id": "10"}]', "train.json: entry 1: not a clip; expected"),
        (2, "train.json", '["10"]', "entry 1: not a clip"),
        (2, "labels.json", '{"Holding something": "5"}', "not the labels of v2"),
        (2, "labels.json", "[]", "not the labels of v2"),
    ],
)
def test_wrong_something_lists(tmp_path, version, name, text, said):
    root = write_something(tmp_path / "s", version)
    write(root / f"something-something-v{version}-{name}", text)
    assert said in refused(root, tmp_path / "dst")


def test_a_folder_without_lists(tmp_path):
    assert find_lists(tmp_path) is None


def test_a_list_that_is_not_text_is_one_line(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00a 0\n")
    with pytest.raises(SourceError, match=r"train\.csv: not UTF-8 text"):
        find_lists(tmp_path)


# --- lists as other programs write them

CLIPS_LISTED = [("a b/one, 1.mp4", 0), ('c"d/two.mp4', 1)]


@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "lines",
    [
        ["a b/one, 1.mp4 0", 'c"d/two.mp4 1'],
        ["a b/one, 1.mp4,0", 'c"d/two.mp4,1'],
        ['"a b/one, 1.mp4",0', '"c""d/two.mp4",1'],
        ["path,label", "a b/one, 1.mp4, 0", 'c"d/two.mp4, 1'],
        ['"video_path","label"', '"a b/one, 1.mp4",0', '"c""d/two.mp4",1'],
        ["frame_dir total_frames label", "a b/one, 1.mp4 0 0", 'c"d/two.mp4 0 1'],
    ],
)
def test_lists_with_commas_headers_and_quotes(tmp_path, lines, end, begin):
    (tmp_path / "train.csv").write_bytes((begin + end.join(lines) + end).encode())
    listing = find_lists(tmp_path)
    assert [(clip.path, clip.label) for clip in listing.clips] == CLIPS_LISTED
    assert listing.classes == ["a b", 'c"d']


@pytest.mark.parametrize("begin", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_lists_of_other_systems(tmp_path, end, begin):
    for split in ("train", "test"):
        lines = [f"{chr(97 + c // 26)}{chr(97 + c % 26)}/{split}.avi {c}" for c in range(51)]
        (tmp_path / f"{split}list01.txt").write_bytes((begin + end.join(lines)).encode())
    listing = find_lists(tmp_path)
    assert (len(listing.classes), len(listing.clips)) == (51, 102)
    assert listing.clips[1].path == "ab/train.avi"
