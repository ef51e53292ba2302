"""Clips and the film with chapters, read back: their frames, sound, subtitles, tags and chapters.

Every frame of the test films shows its number: nine stripes, white for the bits that are 1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from bassl_fast import cli
from bassl_fast.scenes.film import FilmScenes, SceneShot
from bassl_fast.scenes.remux import write_with_chapters
from bassl_fast.scenes.split import split_film
from shard_tools.errors import SourceError
from shard_tools.video.frames import decode
from shard_tools.video.timing import read_timing
from tests.refused import refused
from tests.videos import draw_video

pytestmark = pytest.mark.slow

LENGTH = 120  # frames
BOUNDS = [0, 47, 90, 91, LENGTH]  # of scenes; key-frames are 20 apart
PICTURE = ("-f", "rawvideo", "-s", "180x64", "-r", "25", "-pix_fmt", "yuv420p", "-i", "pipe:0")
TONES = ("-f", "lavfi", "-i", "sine=440:d=4.8", "-f", "lavfi", "-i", "sine=880:d=4.8:r=48000")
TAGS = ("-metadata", "title=Film", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "3", "-g", "20", "-sc_threshold", "0", "-pix_fmt", "yuv420p")
BOTH = ("-map", "0:v", "-map", "1", "-map", "2")
AAC = ("-c:a", "aac", "-ac", "1")
SUBTITLES = "1\n00:00:00,500 --> 00:00:01,000\nfirst\n\n2\n00:00:02,000 --> 00:00:03,000\nsecond\n"


@cache
def numbered_frames() -> bytes:
    """Planes of YUV 4:2:0 of 180 x 64 pixels."""
    bits = np.arange(LENGTH)[:, None] >> np.arange(9) & 1
    rows = (235 * bits).astype(np.uint8).repeat(20, 1)
    grey = np.full((LENGTH, 180 * 64 // 2), 128, np.uint8)
    return np.concatenate([np.tile(rows, 64), grey], 1).tobytes()


def ffmpeg(*argv: object) -> None:
    """Its standard input, and so its input `PICTURE`, are the numbered frames."""
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *map(str, argv)], input=numbered_frames(), check=True)


def draw(path: Path, *options: object) -> Path:
    """A film of `LENGTH` numbered frames and two tracks of sound."""
    ffmpeg(*PICTURE, *TONES, *options, path)
    return path


def numbers(path: Path) -> list[int]:
    """Of the frames of a file, in the order shown."""
    with av.open(str(path)) as container:
        stripes = [_stripes(frame) > 120 for frame in container.decode(container.streams.best("video"))]
    return [int(bits @ (1 << np.arange(9))) for bits in stripes]


def _stripes(frame: av.VideoFrame) -> np.ndarray:
    """Grey levels `[9]` in the middle of the stripes."""
    if frame.format.name != "yuv420p":
        return frame.to_ndarray(format="gray")[32, 10::20]
    plane = frame.planes[0]  # much faster than a conversion
    return np.frombuffer(plane, np.uint8)[32 * plane.line_size :][10:180:20]


def scenes_of(path: Path, bounds: list[int] | None = None) -> FilmScenes:
    """The film with scenes between these frames, of its own times."""
    shown = [(frame.start, frame.end) for frame in decode(path)]
    bounds = [*(bounds or BOUNDS)[:-1], len(shown)]
    shots = tuple(
        SceneShot(i, shown[first][0], shown[after - 1][1], first, after - 1, 0.9, ())
        for i, (first, after) in enumerate(pairwise(bounds))
    )
    every = tuple(range(len(shots) - 1))
    return FilmScenes("film", str(path), read_timing(path), shots, every, 0.5, "", 0.0, "test")


def tracks(path: Path) -> list[tuple[str, str, str | None, str | None]]:
    """Kind, codec, language and title of the tracks but those of time code."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.codec_context.name if stream.codec_context else "",
                stream.metadata.get("language", "und"),
                stream.metadata.get("title"),
            )
            for stream in container.streams
            if not (stream.type == "data" and "timecode" in stream.metadata)
        ]


def h264_ts(path: Path, *options: str) -> Path:
    return draw(path, *BOTH, *H264, *AAC, *TAGS, *options)


def mkv(path: Path) -> Path:
    """With everything: subtitles and a font."""
    (path.parent / "s.srt").write_text(SUBTITLES)
    (path.parent / "f.ttf").write_bytes(b"font")
    kinds = ("-c:s", "srt", "-metadata:s:s:0", "language=ger", "-metadata:s:s:0", "title=Signs")
    font = ("-attach", path.parent / "f.ttf", "-metadata:s:t", "mimetype=font/ttf")
    return draw(path, "-i", path.parent / "s.srt", *BOTH, "-map", "3", *H264, *AAC, *TAGS, *kinds, *font)


def mp4(path: Path) -> Path:
    (path.parent / "s.srt").write_text(SUBTITLES)
    return draw(path, "-i", path.parent / "s.srt", *BOTH, "-map", "3", *H264, *AAC, *TAGS, "-c:s", "mov_text")


def sound_first(path: Path) -> Path:
    return draw(path, "-map", "1", "-map", "2", "-map", "0:v", *H264, *AAC, *TAGS)


def with_timecode(path: Path) -> Path:
    return draw(path, *BOTH, *H264, *AAC, *TAGS, "-timecode", "01:00:00:00")


def late_picture(path: Path) -> Path:
    """The picture begins 1.5 s after the sound."""
    tones = (option.replace("d=4.8", "d=6.3") for option in TONES)
    ffmpeg("-itsoffset", "1.5", *PICTURE, *tones, *BOTH, *H264, *AAC, *TAGS, path)
    return path


def open_gop(path: Path) -> Path:
    return h264_ts(path, "-x264-params", "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0")


def from_mid_gop(path: Path) -> Path:
    """A recording that was switched on between key-frames."""
    whole = h264_ts(path.with_name("whole.ts")).read_bytes()
    path.write_bytes(whole[len(whole) // 20 // 188 * 188 :])
    return path


def joined(path: Path) -> Path:
    """Two recordings in one file: the clock starts again."""
    one = h264_ts(path.with_name("one.ts")).read_bytes()
    path.write_bytes(one + one)
    return path


def avi(path: Path) -> Path:
    return draw(path, "-map", "0:v", "-map", "1", "-c:v", "mpeg4", "-bf", "2", "-g", "20", "-q:v", "3", "-c:a", "mp3")


def avi_of_h264(path: Path) -> Path:
    return draw(path, "-map", "0:v", "-map", "1", *H264, "-c:a", "mp3")


def mpeg2(path: Path) -> Path:
    return draw(
        path, "-map", "0:v", "-map", "1", "-c:v", "mpeg2video", "-bf", "2", "-g", "20", "-q:v", "3", "-c:a", "mp2"
    )


def webm(path: Path) -> Path:
    return draw(path, *BOTH, "-c:v", "libvpx-vp9", "-g", "20", "-deadline", "realtime", "-c:a", "libopus", *TAGS)


def varied_rate(path: Path) -> Path:
    """As of a phone: every fifth frame is missing."""
    ffmpeg(
        *(*PICTURE, *TONES, *BOTH, "-vf", "select=mod(n\\,5)", "-fps_mode", "vfr"),
        *(*H264, *AAC, *TAGS, path),
    )
    return path


SOURCES = {
    "everything.mkv": mkv,
    "subtitles.mp4": mp4,
    "plain.ts": h264_ts,
    "sound_first.mkv": sound_first,
    "timecode.mov": with_timecode,
    "late_picture.mkv": late_picture,
    "late_picture.ts": late_picture,
    "open_gop.ts": open_gop,
    "open_gop.mkv": open_gop,
    "mid_gop.ts": from_mid_gop,
    "joined.ts": joined,
    "b_frames.avi": avi,
    "h264.avi": avi_of_h264,
    "program.mpg": mpeg2,
    "vp9.webm": webm,
    "phone.mp4": varied_rate,
}


@pytest.fixture(scope="module", params=SOURCES)
def source(request, tmp_path_factory) -> Path:
    return SOURCES[request.param](tmp_path_factory.mktemp("films") / request.param)


@pytest.fixture(scope="module")
def film(source) -> FilmScenes:
    return scenes_of(source)


@pytest.fixture(scope="module")
def shown(source) -> list[int]:
    return numbers(source)


@pytest.fixture(scope="module")
def starts(source) -> list[float]:
    """Of the frames of the source, in seconds."""
    return [frame.start for frame in decode(source)]


Split = Callable[[str], tuple[list[Path], list[str]]]


@pytest.fixture(scope="module")
def split(film, tmp_path_factory) -> Split:
    """How ("copy" or "exact") -> the clips of the source, and what is said of them; made once."""
    root = tmp_path_factory.mktemp("clips")
    return cache(lambda how: clips_of(film, root / how, how))


def clips_of(film: FilmScenes, folder: Path, how: str) -> tuple[list[Path], list[str]]:
    folder.mkdir()
    said = split_film(film, folder, how)
    return sorted(folder.iterdir()), said


def test_exact_clips_have_the_frames_of_their_scenes(film, shown, starts, split):
    clips, said = split("exact")
    assert len(clips) == len(film.scenes) == 4
    assert not [text for text in said if "begin" in text]
    for clip, scene in zip(clips, film.scenes, strict=True):
        its = slice(scene.shots[0].first, scene.shots[-1].last + 1)
        assert numbers(clip) == shown[its]
        wanted = [start - scene.start for start in starts[its]]
        assert [frame.start for frame in decode(clip)] == pytest.approx(wanted, abs=0.0011)
        with av.open(str(clip)) as container:
            assert container.duration / 1e6 == pytest.approx(scene.end - scene.start, abs=0.06)  # sound is in blocks


def test_copied_clips_hold_their_scenes_and_little_else(source, film, shown, starts, split):
    """From the key-frame before it; after it only frames that others of the scene are made from."""
    clips, said = split("copy")
    with av.open(str(source)) as container:
        frames = container.decode(container.streams.best("video"))
        keys = [i for i, frame in enumerate(frames) if frame.key_frame]
    early, late = 0.0, 0
    for clip, scene in zip(clips, film.scenes, strict=True):
        first, last = scene.shots[0].first, scene.shots[-1].last
        found, key = numbers(clip), max(i for i in keys if i <= first)
        assert found[: last + 1 - key] == shown[key : last + 1]
        early = max(early, scene.start - starts[key])
        late = max(late, len(found) - (last + 1 - key))
    assert late <= (0 if source.suffix == ".webm" else 2)
    ends = f" and end up to {late} frame{'s' * (late > 1)} late (the scene is decoded from them)" if late else ""
    assert said == [f"clips begin up to {early:.1f} s early (at a key-frame){ends}"]


@pytest.mark.parametrize("how", ["copy", "exact"])
def test_all_tracks_and_tags_are_kept(source, film, split, how):
    clips, said = split(how)
    with av.open(str(source)) as container:
        title = container.metadata.get("title")
    wanted = [(kind, language, name) for kind, _, language, name in tracks(source)]
    codecs = [codec for kind, codec, *_ in tracks(source) if kind != "video"]
    for clip, scene in zip(clips, film.scenes, strict=True):
        assert [(kind, language, name) for kind, _, language, name in tracks(clip)] == wanted
        assert [codec for kind, codec, *_ in tracks(clip) if kind != "video"] == codecs
        with av.open(str(clip)) as container:
            assert container.metadata.get("title") == title
            sounds = len(container.streams.audio)
            times = [frame.time for frame in container.decode(container.streams.best("video"))]
        for i in range(sounds if scene.end - scene.start > 1 else 0):
            with av.open(str(clip)) as container:
                track = container.streams.audio[i]
                seconds = sum(frame.samples for frame in container.decode(track)) / track.rate
            assert seconds == pytest.approx(times[-1] - times[0] + 0.04, abs=0.25)
    assert not [text for text in said if "lack" in text]


@pytest.mark.parametrize("name", ["everything.mkv", "subtitles.mp4"])
@pytest.mark.parametrize("how", ["copy", "exact"])
def test_subtitles_are_shown_with_their_scene(tmp_path, name, how):
    film = scenes_of(SOURCES[name](tmp_path / name))
    clips, _ = clips_of(film, tmp_path / "clips", how)
    texts = []
    for clip in clips:
        with av.open(str(clip)) as container:
            packets = [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(subtitles=0) if p.size > 2]
        texts.append([(round(time, 2), text[2 * (name == "subtitles.mp4") :].decode()) for time, text in packets])
    begin = 40 / 25 if how == "copy" else 47 / 25  # of the second clip
    assert texts == [[(0.5, "first")], [(round(2 - begin, 2), "second")], [], []]


@pytest.mark.parametrize("how", ["copy", "exact"])
def test_sound_stays_with_the_picture(tmp_path, how):
    """The level of the sound is the time in the film."""
    source = tmp_path / "film.mkv"
    level = ("-f", "lavfi", "-i", "aevalsrc=t/10:s=16000:d=4.8")
    ffmpeg(*PICTURE, *level, *H264, "-c:a", "pcm_s16le", source)
    clips, _ = clips_of(scenes_of(source), tmp_path / "clips", how)
    for clip in clips:
        first = numbers(clip)[0] / 25
        with av.open(str(clip)) as container:
            for frame in container.decode(audio=0):
                assert frame.to_ndarray()[0, 0] / 32768 * 10 == pytest.approx(first + frame.time, abs=0.003)


@pytest.mark.parametrize("how", ["copy", "exact"])
def test_clips_have_the_time_code_of_their_begin(tmp_path, how):
    film = scenes_of(with_timecode(tmp_path / "film.mov"))
    clips, _ = clips_of(film, tmp_path / "clips", how)
    first = [numbers(clip)[0] for clip in clips]
    assert [read_timing(clip).at(0) for clip in clips] == [film.timing.at(number) for number in first]
    assert film.timing.at(0) == "01:00:00:00"


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_exact_clips_are_as_upright_as_the_film(tmp_path, degrees):
    draw(tmp_path / "flat.mp4", "-map", "0:v", *H264)
    with av.open(str(tmp_path / "flat.mp4")) as flat, av.open(str(tmp_path / "film.mp4"), "w") as turned:
        stream = turned.add_stream_from_template(flat.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in flat.demux(video=0):
            if packet.size:
                packet.stream = stream
                turned.mux(packet)
    film = scenes_of(tmp_path / "film.mp4")
    rotation = next(decode(tmp_path / "film.mp4")).rotation
    assert rotation % 360 == degrees
    for how in ("copy", "exact"):
        clips, _ = clips_of(film, tmp_path / how, how)
        assert [next(decode(clip)).rotation for clip in clips] == [rotation] * 4


def test_exact_clips_have_the_shape_and_colours_of_the_film(tmp_path):
    colours = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
    film = scenes_of(draw(tmp_path / "film.mp4", "-map", "0:v", *H264, *colours, "-vf", "setsar=64/45"))
    clips, _ = clips_of(film, tmp_path / "clips", "exact")
    for path in (tmp_path / "film.mp4", *clips):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert next(decode(path)).pixel_aspect == pytest.approx(64 / 45)


def test_what_a_container_cannot_hold_is_encoded_or_said(tmp_path):
    """Sound that MP4 cannot hold, in Matroska that is named MP4."""
    sound = ("-map", "0:v", "-map", "2", *H264, "-c:a", "adpcm_ms", "-ac", "2")
    ffmpeg(*PICTURE, *TONES, *sound, "-metadata:s:a:0", "language=ger", tmp_path / "film.mkv")
    shutil.move(tmp_path / "film.mkv", tmp_path / "film.mp4")
    film = scenes_of(tmp_path / "film.mp4")
    clips, said = clips_of(film, tmp_path / "copy", "copy")
    assert said[1:] == ["clips lack audio track 1 (adpcm_ms)"]
    assert [len(tracks(clip)) for clip in clips] == [1] * 4
    clips, said = clips_of(film, tmp_path / "exact", "exact")
    assert said == []
    for clip, scene in zip(clips, film.scenes, strict=True):
        assert [track[1:3] for track in tracks(clip)] == [("h264", "und"), ("aac", "ger")]
        with av.open(str(clip)) as container:
            frames = list(container.decode(audio=0))
            assert {(frame.rate, frame.layout.name) for frame in frames} == {(48000, "stereo")}
        if scene.end - scene.start > 1:
            assert sum(frame.samples for frame in frames) / 48000 == pytest.approx(scene.end - scene.start, abs=0.1)
            tone = np.abs(np.fft.rfft(frames[20].to_ndarray()[0] * np.hanning(frames[20].samples)))
            assert tone.argmax() * 48000 / frames[20].samples == pytest.approx(880, abs=50)


@pytest.mark.parametrize(
    ("name", "codecs", "copied", "encoded"),
    [
        ("a.wmv", ("-c:v", "wmv2", "-q:v", "3", "-c:a", "wmav2"), ".wmv", ".wmv"),
        ("a.flv", (*H264, "-c:a", "aac"), ".flv", ".mkv"),
        ("a.3gp", ("-s", "176x144", "-c:v", "h263", "-q:v", "3", "-c:a", "aac"), ".3gp", ".mov"),
        ("a.dv", ("-s", "720x576", "-c:v", "dvvideo", "-c:a", "pcm_s16le", "-ar", "48000", "-ac", "2"), ".mov", ".mov"),
        ("a.mxf", ("-c:v", "mpeg2video", "-q:v", "3", "-c:a", "pcm_s16le", "-ar", "48000"), ".mkv", ".mkv"),
    ],
)
def test_clips_keep_the_container_or_get_one_that_holds_all(tmp_path, name, codecs, copied, encoded):
    source = draw(tmp_path / name, "-map", "0:v", "-map", "1", *codecs)
    film = scenes_of(source)
    for how, suffix in (("copy", copied), ("exact", encoded)):
        clips, said = clips_of(film, tmp_path / how, how)
        assert {clip.suffix for clip in clips} == {suffix}
        assert not any("lack" in text for text in said)
        for clip, scene in zip(clips, film.scenes, strict=True):
            frames = sum(1 for _ in decode(clip)) - (scene.shots[-1].last + 1 - scene.shots[0].first)
            assert frames == 0 if how == "exact" else frames >= 0
            assert [track[0] for track in tracks(clip)] == ["video", "audio"]


def test_streams_that_do_not_fit_the_container(tmp_path):
    film = scenes_of(draw_video(tmp_path / "a.mp4", [30]), [0, 30])
    (tmp_path / "a.mp4").rename(tmp_path / "a.webm")
    object.__setattr__(film, "source", str(tmp_path / "a.webm"))
    with pytest.raises(SourceError, match=r"a\.webm: cannot be split into \.webm files .*; give --split exact"):
        split_film(film, tmp_path, "copy")


# The film with chapters


def test_chapters_replace_those_of_the_film_and_all_else_is_kept(source, film, shown, tmp_path):
    target = tmp_path / "film-chapters.mkv"
    assert write_with_chapters(film, target) == []
    assert numbers(target) == shown
    kinds = [("subrip" if codec == "mov_text" else codec) for _, codec, *_ in tracks(source)]
    kinds = ["srt" if kind == "subrip" else kind for kind in kinds]
    assert [codec for _, codec, *_ in tracks(target)] == kinds
    assert [track[2:] for track in tracks(target)] == [track[2:] for track in tracks(source)]
    with av.open(str(target)) as container:
        chapters = container.chapters()
        times = [frame.time for frame in container.decode(container.streams.best("video"))]
    assert [chapter["metadata"]["title"] for chapter in chapters] == [f"Scene {i}" for i in (1, 2, 3, 4)]
    starts = [float(chapter["start"] * chapter["time_base"]) for chapter in chapters]
    if source.name not in ("joined.ts", "h264.avi"):
        assert starts == pytest.approx([times[scene.shots[0].first] for scene in film.scenes], abs=0.003)


def test_old_chapters_go_and_covers_stay(tmp_path):
    draw(tmp_path / "plain.mp4", *BOTH, *H264, *AAC, *TAGS)
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", 1, tmp_path / "cover.jpg")
    (tmp_path / "old.txt").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=3\ntitle=old\n")
    inputs = ("-i", tmp_path / "plain.mp4", "-i", tmp_path / "cover.jpg", "-i", tmp_path / "old.txt")
    cover = ("-map", "0", "-map", "1", "-map_chapters", "2", "-c", "copy", "-disposition:v:1", "attached_pic")
    ffmpeg(*inputs, *cover, tmp_path / "film.mp4")
    film = scenes_of(tmp_path / "film.mp4")
    assert write_with_chapters(film, tmp_path / "new.mkv") == []
    with av.open(str(tmp_path / "new.mkv")) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == [
            f"Scene {i}" for i in (1, 2, 3, 4)
        ]
        covers = [stream for stream in container.streams.video if stream.disposition & 0x400]
        assert len(covers) == 1
    assert numbers(tmp_path / "new.mkv") == list(range(LENGTH))


# By the command


def run(*argv: object) -> int:
    return cli.main(["scenes", *map(str, argv)])


def test_the_command_says_what_clips_hold(tmp_path, capsys):
    draw_video(tmp_path / "film.mp4", [30, 30, 30], sound=True)
    argv = [tmp_path / "film.mp4", "--baseline", "--scenes", 3, "--out", tmp_path / "out"]
    assert run(*argv, "--split", "copy", "--chapters", "true") == 0
    assert "\n  clips begin up to 0.2 s early (at a key-frame)\n" in capsys.readouterr().out
    folder = tmp_path / "out" / "film"
    assert sorted(path.name for path in (folder / "clips").iterdir()) == [f"scene-00{i}.mp4" for i in (1, 2, 3)]
    with av.open(str(folder / "film-chapters.mkv")) as container:
        assert len(container.chapters()) == 3
    assert run(*argv, "--split", "exact") == 0
    assert (folder / "film-chapters.mkv").exists()  # of the same scenes
    assert [sum(1 for _ in decode(path)) for path in sorted((folder / "clips").iterdir())] == [30, 30, 30]


def test_a_failure_while_splitting_keeps_all_else(tmp_path, capsys):
    draw_video(tmp_path / "a.mp4", [30, 30])
    (tmp_path / "a.mp4").rename(tmp_path / "a.webm")  # which cannot hold MPEG-4
    argv = [tmp_path / "a.webm", "--baseline", "--scenes", 2, "--out", tmp_path / "out"]
    said = refused(capsys, "scenes", *argv, "--split", "copy")
    assert "cannot be split into .webm files" in said
    assert said.endswith(f"give --split exact; all else is in {tmp_path / 'out' / 'a'}")
    folder = tmp_path / "out" / "a"
    assert (folder / "report.html").exists()
    assert json.loads((folder / "scenes.json").read_text())["asked"]["split"] is None
    refused(capsys, "scenes", *argv, "--split", "copy")  # tried again, not taken for done
    assert run(*argv, "--split", "exact") == 0
    assert len(list((folder / "clips").iterdir())) == 2
