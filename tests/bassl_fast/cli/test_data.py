"""The verbs of `shard_tools` as a user meets them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from bassl_fast import cli
from shard_tools import plugins
from shard_tools.shards.format import FILMS
from shard_tools.shards.index import ShardIndex
from shard_tools.sources.detect import Request
from shard_tools.sources.films import open_source
from shard_tools.sources.source import Source
from tests.films import digests, small_disk, write_set
from tests.servers import BUCKET, Proxy, s3_server, use_s3

pytestmark = pytest.mark.slow


CLIPS = {"Clip – one": [(220, 30, 30), (20, 40, 60)], "two": [(230, 230, 210)]}  # the colour of each shot


def make_clip(path: Path, shots: list[tuple[int, int, int]]) -> None:
    """A clip of one second of one colour a shot."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for colour in shots:
            for _ in range(24):
                pixels = np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


VIDEOS = f"s3://{BUCKET}/videos"


def refused(capsys, *argv: object) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in argv]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("bassl-fast: ")
    return line


# --- shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    write_set(root / "films", {"a": (0, 1, 5, 9), "b": 3, "c": 2}, {"c": "test"})
    assert cli.main(["pack", str(root / "films"), str(root / "shards")]) == 0
    return root / "shards"


def test_pack_tells_of_shots_without_key_frames(shards, tmp_path, capsys):
    assert cli.main(["pack", str(shards.parent / "films"), str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: no key-frames of shots 2-4, 6-8",
        "annotated: train 2 of 2 films, 7 of 7 shots; test 1 of 1 films, 2 of 2 shots",
        f"shards: {tmp_path / 'again'} (3 films, 9 shots, 27 key-frames, 9 shots labelled)",
    ]


def test_info_as_text_json_and_plot(shards, tmp_path, capsys):
    assert cli.main(["info", str(shards), "--plot", str(tmp_path / "plot.svg")]) == 0
    text = capsys.readouterr().out
    assert cli.main(["info", str(shards), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {
        "films": 3,
        "shots": 9,
        "key-frames": 27,
        "bytes": sum(path.stat().st_size for path in shards.glob("*.tar")),
        "picture sizes": ["48x32"],
        "films by split": {"test": 1, "train": 2},
        "labelled shots": 9,
        "scene boundaries": 1,
        "shots a film": {"2-3": 1, "3-3": 1, "3-4": 1},
        "completeness": {
            "by split": {
                split: {
                    "annotated films": films,
                    "annotated films packed": films,
                    "annotated shots": shots,
                    "annotated shots packed": shots,
                }
                for split, films, shots in [("train", 2, 7), ("test", 1, 2)]
            },
            "shots without key-frames": {"a": "2-4, 6-8"},
        },
    }
    facts |= facts.pop("completeness")
    facts["by split"] = {split: f"({shown(counts)})" for split, counts in facts["by split"].items()}
    assert text.split() == [word for name, fact in facts.items() for word in f"{name} {shown(fact)}".split()]
    plot = ElementTree.parse(tmp_path / "plot.svg")
    texts = [text.text for text in plot.iterfind(".//{*}text")]
    assert sorted(texts) == ["1", "1", "1", "2-3", "3-3", "3-4", "films", "shots a film"]
    assert cli.main(["info", str(shards), "--plot", str(tmp_path / "again.svg")]) == 0
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "plot.svg").read_bytes()
    assert "no folder" in refused(capsys, "info", shards, "--plot", tmp_path / "absent" / "plot.svg")


def shown(fact: object) -> str:
    if isinstance(fact, dict):
        return ", ".join(f"{key}: {value}" for key, value in fact.items())
    return ", ".join(fact) if isinstance(fact, list) else str(fact)


def test_verify_prints_every_fault_and_repairs_them(shards, tmp_path, capsys):
    broken = Path(shutil.copytree(shards, tmp_path / "shards"))
    (broken / "a.tar").unlink()
    data = bytearray((broken / "b.tar").read_bytes())
    data[1000] ^= 1
    (broken / "b.tar").write_bytes(data)
    capsys.readouterr()
    assert cli.main(["verify", str(broken)]) == 1
    said = capsys.readouterr()
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [f"{broken}/a.tar", f"{broken}/b.tar"]
    assert said.err == f"bassl-fast: {broken}: 2 faults, see above; copy those files again or --repair SOURCE\n"
    assert cli.main(["verify", str(broken), "--repair", str(shards.parent / "films"), "--decode", "all"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{broken}: whole (3 films")
    assert digests(broken) == digests(shards)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pack", "absent", "new"], "absent: no such folder; give a folder of 240P_frames/"),
        (
            ["pack", ".", "new"],
            ".: not a key-frame folder (no folder of a film with key-frames); expected 240P_frames/",
        ),
        (["pack", "films", "file/new"], "file: Not a directory; a file is in the place of a folder"),
        (["pack", "films", "shards"], "shards: already holds a finished set of shards; choose another"),
        (["pack", "file", "new"], "file: not a zip; give the zip of key-frames, or the folder that holds the films"),
        (["pack", "text", "new"], "text/film.tar: not a tar, or cut short (no end mark at byte 6); copy it again"),
        (["pack", "films", "new", "--worker", "2"], "unknown option --worker; did you mean '--workers'?"),
        (["pack", "films", "new", "--workers", "0"], "workers 0: must be at least 1"),
        (["pack", "films", "new", "--annotations", "text"], "text: no folder anno/ or scene318/ in it; give"),
        (["pack", "films"], "missing arguments: destination; `bassl-fast pack --help` shows an example"),
        (["verify", "absent"], "absent: no such folder; give the one that `bassl-fast pack` wrote"),
        (
            ["verify", "films", "--repair", "films"],
            "films/manifest.json: missing, so this is not a finished set of shards;",
        ),
        (["verify", "shards", "--workers", "0"], "workers 0: must be at least 1"),
        (["info", "version"], "version/manifest.json: format version 7, this program reads version 1 or 1.1 of films"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_thing_and_the_fix(shards, tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    for name in ("films", "shards"):
        Path(name).symlink_to(shards.parent / name)
    Path("file").write_text("notes\n")
    for name in ("text/film.tar", "version/manifest.json"):
        Path(name).parent.mkdir()
    Path("text/film.tar").write_text("notes\n")
    Path("version/manifest.json").write_text('{"version": 7}')
    assert refused(capsys, *argv).startswith(f"bassl-fast: {said}")
    assert not list(Path("new").glob("[!.]*"))


# --- videos


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, shots in CLIPS.items():
        make_clip(folder / f"{name}.mp4", shots)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory, clips) -> dict[str, str]:
    dst = tmp_path_factory.mktemp("packed") / "shards"
    assert cli.main(["pack", str(clips), str(dst)]) == 0
    return digests(dst)


@pytest.fixture(scope="module")
def served(tmp_path_factory, clips) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("s3")
    shutil.copytree(clips, folder / BUCKET / "videos")
    with s3_server(folder) as port:
        yield folder / BUCKET, port


@pytest.fixture
def bucket(served, monkeypatch) -> Path:
    use_s3(monkeypatch, served[1])
    return served[0]


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_plug_in_is_asked_before_a_folder_is_taken_for_videos(where, clips, bucket, tmp_path, monkeypatch, capsys):
    write_set(tmp_path / "films", {"mine": 2})

    def opener(request: Request) -> Source:
        assert str(request.source) == source
        return Source(FILMS, open_source(tmp_path / "films"), [], 0.0, {})

    source = str(clips) if where == "here" else VIDEOS
    monkeypatch.setitem(plugins._registered["sources"], "mine", opener)
    annotations = ["--annotations", str(tmp_path / "films")]
    assert cli.main(["pack", source, str(tmp_path / "dst"), *annotations]) == 0
    assert "(1 films, 2 shots" in capsys.readouterr().out
    assert "holds none" in refused(capsys, "pack", source, tmp_path / "other", "--split", "val")


def test_remote_videos_pack_as_local_ones_from_and_to_an_address(bucket, packed, tmp_path):
    assert cli.main(["pack", VIDEOS, str(tmp_path / "dst")]) == 0
    assert digests(tmp_path / "dst") == packed
    assert cli.main(["pack", VIDEOS, f"s3://{BUCKET}/shards"]) == 0
    assert digests(bucket / "shards") == packed


def test_a_connection_cut_while_a_video_comes_only_costs_time(served, packed, tmp_path, monkeypatch):
    proxy = Proxy(served[1], lambda request: request.startswith(b"GET") and b"/videos/two.mp4" in request)
    use_s3(monkeypatch, proxy.port)
    proxy.faults.extend(["cut", "refuse", "busy"])
    try:
        assert cli.main(["pack", VIDEOS, str(tmp_path / "dst")]) == 0
    finally:
        proxy.close()
    assert proxy.spoilt == 3
    assert digests(tmp_path / "dst") == packed


def test_a_broken_remote_video_is_named_by_its_address(bucket, tmp_path, capsys):
    shutil.copytree(bucket / "videos", bucket / "broken")
    (bucket / "broken" / "two.mp4").write_text("no video at all")
    capsys.readouterr()
    assert cli.main(["pack", f"s3://{BUCKET}/broken/", str(tmp_path / "dst")]) == 1
    broken, failed = capsys.readouterr().err.splitlines()[-2:]
    assert broken.startswith(f"bassl-fast: s3://{BUCKET}/broken/two.mp4: not a video")
    assert failed.endswith("1 videos of s3://films/broken/ failed, see above; the others are packed")
    assert len(ShardIndex.open(tmp_path / "dst").select("test")) == 1


def test_a_finished_destination_is_refused_before_a_video_is_asked_for(served, tmp_path, capsys, monkeypatch):
    requests: list[bytes] = []
    proxy = Proxy(served[1], lambda request: bool(requests.append(request)))
    proxy.faults.append("none")
    use_s3(monkeypatch, proxy.port)
    (tmp_path / "manifest.json").write_text("{}")
    try:
        assert "already holds a finished set" in refused(capsys, "pack", VIDEOS, tmp_path)
    finally:
        proxy.close()
    assert requests == []


def test_options_for_videos_are_refused_where_there_are_none(bucket, tmp_path, capsys):
    said = refused(capsys, "pack", f"s3://{BUCKET}/nothing", tmp_path / "dst", "--join", "film")
    assert said == f"bassl-fast: --join is for films from videos, and s3://{BUCKET}/nothing holds none; leave it out"


@pytest.mark.parametrize(("source", "size"), [("clips", "16k"), (VIDEOS, "16k"), (VIDEOS, "4k")])
def test_no_room_for_videos_or_their_key_frames(bucket, clips, tmp_path, monkeypatch, capsys, source, size):
    with small_disk(tmp_path / "disk", size) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        said = refused(capsys, "pack", source.replace("clips", str(clips)), tmp_path / "dst")
        assert said.endswith("No space left on device; set TMPDIR to a folder with more space")
        assert list(disk.iterdir()) == []
