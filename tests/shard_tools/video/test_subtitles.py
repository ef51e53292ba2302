"""Times and words of subtitles, from files as they are found and from streams of films."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shard_tools.errors import SourceError
from shard_tools.video.subtitles import LONGEST, film_subtitles, read_subtitles

SRT = """1
00:00:01,000 --> 00:00:02,500
Où est-il ?

2
00:00:04,000 --> 00:00:05,000
Là.

3
00:00:02,250 --> 00:00:03,000
<i>Earlier,</i>
and at the same time

"""
TIMES = [[1, 2.5], [2.25, 3], [4, 5]]
VTT = "WEBVTT\n\n" + SRT.replace(",", ".")
ASS = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name
Style: D
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:01.00,0:00:02.50,D,,0,0,0,,Où est-il ?
Dialogue: 0,0:00:04.00,0:00:05.00,D,,0,0,0,,Là.
Dialogue: 0,0:00:02.25,0:00:03.00,D,,0,0,0,,Earlier
"""
FILES = {
    "utf-8": ("a.srt", SRT.encode()),
    "mark": ("a.srt", SRT.encode("utf-8-sig")),
    "utf-16": ("a.srt", SRT.encode("utf-16")),
    "utf-16, no mark": ("a.SRT", SRT.encode("utf-16-be")),
    "latin-1": ("a.en.srt", SRT.encode("latin-1")),
    "windows": ("a.srt", SRT.replace("\n", "\r\n").encode("cp1252")),
    "old mac": ("a.srt", SRT.replace("\n", "\r").encode()),
    "no blank lines": ("a.srt", SRT.replace("\n\n", "\n").encode()),
    "points": ("a.srt", SRT.replace(",0", ".0").encode()),
    "cut": ("a.srt", SRT.encode()[:-12]),
    "vtt": ("a.vtt", VTT.encode()),
    "vtt in utf-16": ("a.vtt", VTT.encode("utf-16")),
    "ass": ("a.ass", ASS.encode()),
    "ssa in latin-1": ("a.ssa", ASS.encode("latin-1")),
}


def written(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


@pytest.mark.parametrize("kind", FILES)
def test_times_in_order_whatever_the_encoding_and_format(tmp_path: Path, kind: str):
    found = read_subtitles(written(tmp_path, *FILES[kind]))
    assert found.times.tolist() == TIMES
    assert found.words[0] == "Où est-il ?"
    assert found.words[1].startswith("Earlier")


WORDS = {
    "{\\an8}<i>I</i>talics &amp; <font color='red'>colours</font>": "Italics & colours",
    "I <3 you\n- So {laughs} do I": "I <3 you - So do I",
    "“Curly” – œuvre, 5 €": "“Curly” – œuvre, 5 €",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_words_have_no_tags_whatever_the_encoding(tmp_path: Path, encoding: str):
    text = "\n".join(f"{i}\n00:00:0{i},000 --> 00:00:0{i},500\n{words}\n" for i, words in enumerate(WORDS, 1))
    assert read_subtitles(written(tmp_path, "a.srt", text.encode(encoding))).words == tuple(WORDS.values())
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Bob>Hi <c.loud>there</c> &lt;3\n"
    assert read_subtitles(written(tmp_path, "a.vtt", vtt.encode())).words == ("Hi there <3",)
    ass = ASS.replace("Earlier", "{\\pos(1,2)\\fs20}One,\\Ntwo{\\p1}m 0 0 l 9 9{\\p0}\\h{\\r}three")
    assert read_subtitles(written(tmp_path, "a.ass", ass.encode())).words[1] == "One, two three"


def test_lines_without_a_usable_end_last_until_the_next(tmp_path: Path):
    spans = ("01,000 --> 00:00:00,500", "02,000 --> 00:00:59,000", "40,000 --> 00:00:40,000")
    text = "\n".join(f"{number}\n00:00:{span}\na line\n" for number, span in enumerate(spans))
    assert read_subtitles(written(tmp_path, "a.srt", text.encode())).times.tolist() == [
        [1, 2],
        [2, 2 + LONGEST],
        [40, 50],
    ]


BAD = {
    "empty": ("a.srt", b"", "no line"),
    "a page": ("a.srt", b"<html><body>404</body></html>", "no line"),
    "binary": ("a.srt", bytes(range(256)) * 9, "no line"),
    "images": ("a.sup", b"", "no line"),
    "another format": ("a.txt", SRT.encode(), "not a file of subtitles"),
    "a playlist": ("a.m3u8", b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1/a.ts\n", "not a file of subtitles"),
}


@pytest.mark.parametrize("kind", BAD)
def test_other_files_are_refused_in_one_line(tmp_path: Path, kind: str):
    name, data, why = BAD[kind]
    with pytest.raises(SourceError, match=why) as refused:
        read_subtitles(written(tmp_path, name, data))
    assert str(tmp_path / name) in str(refused.value)


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "b.srt").mkdir()
    for name, why in (("a.srt", "No such file"), ("b.srt", "Is a directory")):
        with pytest.raises(SourceError, match=why):
            read_subtitles(tmp_path / name)


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from(["1", "\n", "00:00:01,000", " --> ", "99:99:99,999", "\0", "WEBVTT", "é", "-"])).map(
        lambda parts: "".join(parts).encode()
    )
)
def test_any_bytes_are_lines_in_order_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    folder = tmp_path_factory.getbasetemp()
    for name in ("x.srt", "x.vtt", "x.ass", "x.sup"):
        try:
            lines = read_subtitles(written(folder, name, data)).times
        except SourceError:
            continue
        assert (np.diff(lines[:, 0]) >= 0).all()
        assert (lines[:, 1] > lines[:, 0]).all()
        assert (lines[:, 1] <= lines[:, 0] + LONGEST).all()


def film_with(path: Path, *streams: tuple[str, str, str], seconds: int = 6, begin: float = 0.0) -> Path:
    """A grey film with streams of subtitles: text, its format, codec of the stream.

    Args:
        begin: time of the first image.
    """
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        texts = [av.open(io.BytesIO(text.encode()), format=form) for text, form, _ in streams]
        tracks = [out.add_stream_from_template(text.streams.subtitles[0]) for text in texts]
        for track, (_, _, disposition) in zip(tracks, streams, strict=True):
            track.disposition = getattr(av.stream.Disposition, disposition)
        out.start_encoding()
        packets = []
        for number in range(10 * seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 250, np.uint8))
            frame.pts = number + round(10 * begin)
            packets += video.encode(frame)
        packets += video.encode()
        for text, track in zip(texts, tracks, strict=True):
            for packet in text.demux():
                if packet.size:
                    packet.stream = track
                    packets.append(packet)
        for packet in sorted(packets, key=lambda packet: packet.pts * packet.time_base):
            out.mux(packet)
    return path


def test_the_stream_of_a_film(tmp_path: Path):
    found = film_subtitles(film_with(tmp_path / "a.mkv", (SRT, "srt", "default")))
    assert found.times.tolist() == TIMES
    assert found.words == ("Où est-il ?", "Earlier, and at the same time", "Là.")


def test_the_pauses_of_a_stream_are_not_lines(tmp_path: Path):
    """MP4 has an empty subtitle in each pause."""
    film = film_with(tmp_path / "a.mkv", (SRT.replace("2,250", "2,500"), "srt", "default"))
    mp4 = tmp_path / "a.mp4"
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", film, "-c:v", "copy", "-c:s", "mov_text", mp4], check=True)
    assert film_subtitles(mp4).times == pytest.approx(np.array([[1, 2.5], [2.5, 3], [4, 5]]), abs=0.01)


def test_the_times_of_a_stream_count_from_the_first_image(tmp_path: Path):
    found = film_subtitles(film_with(tmp_path / "a.mkv", (SRT, "srt", "default"), begin=0.5))
    assert found.times.tolist() == [[start - 0.5, end - 0.5] for start, end in TIMES]


def test_the_default_stream_is_taken_but_none_of_foreign_parts_alone(tmp_path: Path):
    foreign = SRT.replace("00:00:0", "00:00:2")
    found = film_subtitles(film_with(tmp_path / "a.mkv", (foreign, "srt", "forced"), (SRT, "srt", "default")))
    assert found.times.tolist() == TIMES


def test_a_film_without_subtitles_has_none(tmp_path: Path):
    assert film_subtitles(film_with(tmp_path / "a.mkv")) is None


def pgs(*shown: tuple[float, bool]) -> bytes:
    """A file of Blu-ray subtitles: from each time on one white pixel is shown, or nothing."""
    data = b""
    for time, visible in shown:
        objects = struct.pack(">HBBHH", 0, 0, 0, 0, 0) if visible else b""
        segments = [
            (0x16, struct.pack(">HHBHBBBB", 64, 64, 0x10, 0, 0x80, 0, 0, visible) + objects),
            (0x17, struct.pack(">BBHHHH", 1, 0, 0, 0, 8, 8)),
        ]
        if visible:
            segments += [
                (0x14, bytes([0, 0, 1, 235, 128, 128, 255])),
                (0x15, struct.pack(">HBBBHHH", 0, 0, 0xC0, 0, 7, 1, 1) + b"\1\0\0"),
            ]
        for kind, content in [*segments, (0x80, b"")]:
            data += b"PG" + struct.pack(">IIBH", round(90000 * time), 0, kind, len(content)) + content
    return data


def test_subtitles_that_are_images_have_times_too(tmp_path: Path):
    data = pgs((1, True), (2.5, False), (4, True), (5, True), (7, False))
    found = read_subtitles(written(tmp_path, "a.sup", data))
    assert found.times.tolist() == [[1, 2.5], [4, 5], [5, 7]]
    assert found.words == ("", "", "")
