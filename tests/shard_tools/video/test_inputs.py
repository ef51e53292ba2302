"""Films as cameras, recorders and archives write them: each has the cuts of the film it was made from.

The film has seven cuts between eight sources; every input is made from it by one line of ffmpeg.
"""

from __future__ import annotations

import random
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shard_tools.errors import SourceError
from shard_tools.video.detectors import make_cutter
from shard_tools.video.frames import decode
from shard_tools.video.shots import Shot, cut_shots
from shard_tools.video.timing import read_timing

pytestmark = pytest.mark.slow

LENGTHS = (25, 30, 20, 22, 20, 28, 20, 50)  # frames, at 25 a second
CUTS = [25, 55, 75, 97, 117, 145, 165]
FRAMES = 215
SOURCES = (
    *("testsrc=", "mandelbrot=", "smptebars=", "testsrc2=", "rgbtestsrc="),
    *("yuvtestsrc=", "cellauto=seed=1:", "color=c=0x305080:"),
)
SOUND = ("-f", "lavfi", "-i", "sine=d=8.6:r=48000")
CHAPTERS = (
    ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=4000\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=4000\nEND=7000\n"
)
COVER = ("-disposition:v:1", "attached_pic")
SUBTITLES = "1\n00:00:01,000 --> 00:00:03,000\nhello\n\n2\n00:00:40,000 --> 00:01:03,000\nbye\n"


def ffmpeg(*words: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With the film, `film.mp4`, and texts that some inputs take."""
    root = tmp_path_factory.mktemp("inputs")
    parts = "".join(
        f"{source}s=160x120:r=25,trim=end_frame={frames},setpts=N,format=yuv420p,setsar=1[v{i}];"
        for i, (source, frames) in enumerate(zip(SOURCES, LENGTHS, strict=True))
    )
    joined = f"{parts}{''.join(f'[v{i}]' for i in range(8))}concat=n=8,setpts=N/25/TB"
    ffmpeg("-filter_complex", joined, "-r", 25, "-c:v", "libx264", "-preset", "veryfast", "-qp", 14, root / "film.mp4")
    (root / "chapters.txt").write_text(CHAPTERS)
    (root / "subtitles.srt").write_text(SUBTITLES)
    (root / "font.ttf").write_bytes(bytes(500))
    return root


def shots_of(path: Path | str) -> list[Shot]:
    return list(cut_shots(path, make_cutter()))


def firsts(path: Path | str, frames: int = FRAMES) -> list[int]:
    """The first frames of shots but the first."""
    shots = shots_of(path)
    assert shots[-1].last == frames - 1
    rate = (shots[-1].last + 1) / shots[-1].end
    assert all(abs(shot.start * rate - shot.first) < 0.8 for shot in shots)
    return [shot.first for shot in shots[1:]]


COPIES = {  # name of the file -> words of ffmpeg: what comes before, and what after the input
    "time-code-track.mov": ((), ("-c", "copy", "-timecode", "10:00:00:00")),
    "chapters.mp4": ((), ("-i", "chapters.txt", "-map_chapters", 1, "-c", "copy")),
    "font.mkv": ((), ("-attach", "font.ttf", "-metadata:s:t", "mimetype=font/ttf", "-c", "copy")),
    "sound-first.mp4": (SOUND, ("-map", "0:a", "-map", "1:v", "-c:v", "copy")),
    "two-sounds-first.mkv": (SOUND, ("-map", "0:a", "-map", "0:a", "-map", "1:v", "-c:v", "copy")),
    "long-subtitles.mkv": ((), ("-i", "subtitles.srt", "-c", "copy")),
    "long-subtitles.mp4": ((), ("-i", "subtitles.srt", "-c:v", "copy", "-c:s", "mov_text")),
    "clock-wraps.ts": ((), ("-c", "copy", "-output_ts_offset", 95438)),
    "a.mts": ((), ("-c", "copy", "-f", "mpegts")),
    "fragments.mp4": ((), ("-c", "copy", "-movflags", "frag_keyframe+empty_moov")),
    "begins-before-zero.mkv": ((), ("-c", "copy", "-output_ts_offset", -1, "-avoid_negative_ts", "disabled")),
    "no-times.h264": ((), ("-c", "copy")),
    "b-frames.ts": ((), ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 3)),
    "b-frames.avi": ((), ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 2)),
    "b-frames.mkv": (SOUND, ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 3)),
    "dvd.vob": ((), ("-c:v", "mpeg2video", "-q:v", 2, "-f", "vob")),
    "broadcast.mxf": ((), ("-c:v", "mpeg2video", "-q:v", 2)),
    "tape.dv": ((), ("-s", "720x576", "-pix_fmt", "yuv420p")),
    "anime.mkv": ((), ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-attach", "font.ttf",
                       "-metadata:s:t", "mimetype=font/ttf")),
    "repeats.ogv": ((), ("-c:v", "libtheora", "-q:v", 9)),
    "a.flv": ((), ("-c:v", "flv", "-q:v", 2)),
    "a.wmv": ((), ("-c:v", "wmv2", "-q:v", 2)),
    "fast.mp4": ((), ("-vf", "setpts=N/240/TB", "-r", 240, "-c:v", "libx264", "-preset", "ultrafast")),
    "two-programs.ts": (SOUND, ("-map", "1:v", "-map", "0:a", "-map", "1:v", "-c:v", "mpeg2video", "-q:v", 2,
                                "-program", "st=0:st=1", "-program", "st=2")),
    "a-fragment-a-frame.mp4": (SOUND, ("-c:v", "libx264", "-preset", "ultrafast", "-bf", 3,
                                       "-movflags", "frag_every_frame+empty_moov")),
    "slow.mp4": ((), ("-vf", "setpts=PTS*2", "-r", "12.5", "-c:v", "libx264", "-preset", "ultrafast")),
    "slides.mp4": ((), ("-vf", "setpts=PTS*125", "-r", "1/5", "-c:v", "libx264", "-preset", "ultrafast")),
    "cover.mp4": (
        ("-f", "lavfi", "-i", "color=s=320x320:d=1"),
        ("-map", "1:v", "-map", "0:v", "-c:v:0", "copy", "-c:v:1", "mjpeg", "-frames:v:1", 1, *COVER),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_cuts_are_found_to_the_frame(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(folder)
    before, after = COPIES[name]
    ffmpeg(*before, "-i", "film.mp4", *after, tmp_path / name)
    # Theora's encoder leaves out the last of pictures that are all alike.
    assert firsts(tmp_path / name, FRAMES - 1 if name == "repeats.ogv" else FRAMES) == CUTS


def test_times_of_a_varying_rate_are_those_of_the_pictures(folder, tmp_path):
    path = tmp_path / "phone.mp4"
    ffmpeg("-i", folder / "film.mp4", "-vf", "select='mod(n,7)'", "-vsync", "vfr", "-c:v", "libx264", "-qp", 14, path)
    starts = [25 * shot.start for shot in shots_of(path)[1:]]
    assert all(abs(start - cut) <= 1.1 for start, cut in zip(starts, CUTS, strict=True))  # a cut may be left out
    assert read_timing(path).rate == 25


def test_a_recording_of_a_screen_leaves_out_pictures_that_stay(folder, tmp_path):
    path = tmp_path / "screen.mkv"
    drop = "mpdecimate=hi=200:lo=200:frac=1:max=10"
    ffmpeg("-i", folder / "film.mp4", "-vf", drop, "-vsync", "vfr", "-c:v", "libx264", "-preset", "ultrafast", path)
    shots = shots_of(path)
    assert shots[-1].last < 0.7 * FRAMES
    assert [round(25 * shot.start) for shot in shots[1:]] == CUTS


def packets(data: bytes, pid: int) -> list[int]:
    return [i for i in range(0, len(data) - 187, 188) if (data[i + 1] & 31) << 8 | data[i + 2] == pid]


@pytest.fixture(scope="module")
def stream(folder) -> bytes:
    """A transport stream, video 256 and sound 257."""
    path = folder / "off-air.ts"
    ffmpeg("-i", folder / "film.mp4", *SOUND, "-c:v", "copy", "-c:a", "mp2", path)
    return path.read_bytes()


@pytest.mark.parametrize(("pid", "damaged"), [(256, True), (257, False)], ids=["video", "sound"])
def test_a_lost_packet_does_not_end_a_film(stream, tmp_path, pid, damaged):
    places = packets(stream, pid)
    lost = places[len(places) // 3]
    (tmp_path / "a.ts").write_bytes(stream[:lost] + stream[lost + 188 :])
    shots = shots_of(tmp_path / "a.ts")
    assert [shot.first for shot in shots[1:]] == CUTS
    assert (sum(shot.damaged for shot in shots) > 0) == damaged


def test_two_recordings_in_one_file(stream, folder, tmp_path):
    (tmp_path / "a.ts").write_bytes(stream + stream)
    starts = [round(25 * shot.start) for shot in shots_of(tmp_path / "a.ts")]
    assert starts == [0, *CUTS, FRAMES, *(FRAMES + cut for cut in CUTS)]
    ffmpeg("-i", folder / "film.mp4", "-c", "copy", "-output_ts_offset", 5000, tmp_path / "later.ts")
    (tmp_path / "b.ts").write_bytes(stream + (tmp_path / "later.ts").read_bytes())
    assert [round(25 * shot.start) for shot in shots_of(tmp_path / "b.ts")] == starts


def test_what_is_damaged_is_counted_in_its_shot(folder, tmp_path):
    data, draw = bytearray((folder / "film.mp4").read_bytes()), random.Random(0)
    begin = data.find(b"mdat") + 8
    for _ in range(8):
        at = draw.randrange(begin + 2000, begin + (len(data) - begin) // 3)
        data[at : at + 40] = draw.randbytes(40)
    (tmp_path / "a.mp4").write_bytes(data)
    shots = shots_of(tmp_path / "a.mp4")
    assert sum(shot.damaged for shot in shots) >= 3
    assert not any(shot.damaged for shot in shots[-2:])
    assert sum(shot.damaged for shot in shots_of(folder / "film.mp4")) == 0


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("cover.m4a", ("-f", "lavfi", "-i", "color=s=320x320:d=1", *SOUND, "-map", "1:a", "-map", "0:v",
                       "-frames:v:0", 1, "-c:v", "mjpeg", "-disposition:v:0", "attached_pic"),
         "sound with a cover picture"),
        ("sound.wav", SOUND, "no video stream"),
        ("still.png", ("-f", "lavfi", "-i", "color=s=320x320:d=1", "-frames:v", 1), "a picture, not a video"),
    ],
)  # fmt: skip
def test_what_is_no_film_is_refused(tmp_path, name, words, said):
    ffmpeg(*words, tmp_path / name)
    with pytest.raises(SourceError, match=said):
        shots_of(tmp_path / name)


def test_a_shape_that_changes_midway(tmp_path):
    """Off air, 4:3 becomes 16:9 between programmes: 720 x 576 both, with pixels of other shapes."""
    for name, aspect in (("a", "4/3"), ("b", "16/9")):
        source = ("-f", "lavfi", "-i", f"testsrc=s=720x576:r=25:d=1,setdar={aspect}")
        ffmpeg(*source, "-c:v", "mpeg2video", "-q:v", 3, tmp_path / f"{name}.ts")
    (tmp_path / "c.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    shapes = [round(720 / 576 * shown.pixel_aspect, 2) for shown in decode(tmp_path / "c.ts")]
    assert (shapes[0], shapes[-1]) == (1.33, 1.78)


@pytest.mark.parametrize(
    "name", ["Alien: Covenant.mp4", "100%d.mp4", "-i.mp4", b"b\xff.mp4".decode(errors="surrogateescape")]
)
def test_any_name_is_that_of_a_file(folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes((folder / "film.mp4").read_bytes())
    assert sum(1 for _ in decode(name)) == FRAMES


@contextmanager
def server(data: bytes, sized: bool):
    """Of one file, only as a whole, with or without its length."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            if sized:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                if self.command == "GET":
                    self.wfile.write(data)
            except OSError:  # nobody waits for the rest
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/film.mp4"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("sized", [True, False])
def test_a_web_server_that_only_sends_whole_files(folder, sized):
    data = (folder / "film.mp4").read_bytes() + bytes(8 << 20)  # more than is read ahead
    with server(data, sized) as address:
        assert firsts(address) == CUTS
