"""The verbs of `shard_tools` on what only they join: videos behind an address."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bassl_fast import cli
from tests.films import digests
from tests.servers import BUCKET, Proxy, s3_server, use_s3

av = pytest.importorskip("av")
pytest.importorskip("scenedetect")

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


VIDEOS = f"s3://{BUCKET}/videos"


def refused(capsys, *argv: object) -> str:
    capsys.readouterr()
    assert cli.main([str(word) for word in argv]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bassl-fast:")]
    return line


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
    said = refused(capsys, "pack", f"s3://{BUCKET}/broken/", tmp_path / "dst")
    assert said.startswith(f"bassl-fast: s3://{BUCKET}/broken/two.mp4: not a video")
    assert not (tmp_path / "dst").exists()


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
    assert said == f"bassl-fast: --join is for videos, and s3://{BUCKET}/nothing holds none; leave it out"
