"""Frame rates, time codes, and the begin of a file, as ffmpeg writes them."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest

from shard_tools.errors import ConfigError
from shard_tools.video.timing import RATES, Timing, nominal_rate, read_timing

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_a_standard_rate_stays_and_so_it_does_rounded(rate):
    assert nominal_rate(rate) == nominal_rate(Fraction(f"{float(rate):.3f}")) == rate


@pytest.mark.parametrize(
    ("average", "base", "nominal"),
    [
        ("12.5", None, "25"),
        ("15", None, "30"),
        ("1/5", "1/5", "24"),
        ("1", None, "24"),
        ("100", None, "50"),
        ("120", None, "60"),
        ("120000/1001", None, "60000/1001"),
        ("240", None, "60"),
        ("60000", "60000", "60"),
        ("29.3", "30", "30"),  # a phone that leaves out frames
        ("16.05", "1000", "24"),
        ("28.9", "90000", "30"),
    ],
)
def test_any_other_rate_becomes_a_standard_one(average, base, nominal):
    assert nominal_rate(Fraction(average), base and Fraction(base)) == Fraction(nominal)


def seconds_of_a_day(base: int, drop: bool):
    """By SMPTE ST 12-1's rule: the time code up to the frame, and the numbers of the frames."""
    for second in range(24 * 3600):
        hours, minutes, seconds = second // 3600, second // 60 % 60, second % 60
        clock = f"{hours:02d}:{minutes:02d}:{seconds:02d}{';' if drop else ':'}"
        yield clock, range(base // 15 if drop and seconds == 0 and minutes % 10 else 0, base)


@pytest.mark.parametrize(
    ("rate", "drop"), [(NTSC, True), (NTSC, False), (Fraction(60000, 1001), True), (Fraction(25), False)], ids=str
)
def test_every_time_code_of_a_day_and_back(rate, drop):
    timing = Timing(rate, drop=drop)
    day = 0
    for clock, frames in seconds_of_a_day(timing.base, drop):
        after = day + len(frames)
        some = range(day + -day % 1009, after, 1009)
        for i in chain(some, *(range(day + (first - day) % 1800, after, 1800) for first in range(3))):
            timecode = f"{clock}{frames[i - day]:02d}"
            assert timing.at(i) == timecode
            assert timing.starting_at(timecode) == Timing(rate, i, drop)
        day = after
    assert timing.at(day) == timing.at(0)  # the day after
    if drop:
        assert day / rate == pytest.approx(24 * 3600, abs=0.1)  # the clock's day


def test_time_codes_count_from_the_first():
    film = Timing(Fraction(25)).starting_at("10:00:00:24")
    assert [film.timecode(seconds) for seconds in (0, 0.04, 0.999, 14 * 3600)] == [
        *("10:00:00:24", "10:00:01:00", "10:00:01:24", "00:00:00:24")
    ]
    assert Timing(NTSC).timecode(3600) == "00:59:56:12"
    assert Timing(NTSC).starting_at("00:59:59;29").at(1) == "01:00:00;00"


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (25, "01:00:00"),
        (25, "01:00:00:25"),
        (25, "01:00:00;00"),
        (30, "01:00:00;00"),
        (25, "24:00:00:00"),
        (25, "00:60:00:00"),
        (NTSC, "00:01:00;00"),
        (NTSC, "00:01:00;01"),
        (25, "begin"),
    ],
)
def test_what_is_no_time_code_is_refused(rate, text):
    with pytest.raises(ConfigError, match="time code"):
        Timing(Fraction(rate)).starting_at(text)


def ffmpeg(path: Path, *options: object, rate: str = "25", sound: bool = False) -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc=s=64x48:r={rate}:d=1"]
    if sound:
        source += ["-f", "lavfi", "-i", "sine=d=3"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *map(str, options), str(path)], check=True)
    return path


@pytest.mark.parametrize(
    ("name", "rate", "options", "start"),
    [
        ("a.mov", "25", ("-timecode", "10:00:00:05"), "10:00:00:05"),
        ("a.mov", "30000/1001", ("-timecode", "00:59:50;02"), "00:59:50;02"),
        ("a.mov", "60000/1001", ("-timecode", "00:59:50;58"), "00:59:50;58"),
        ("a.mov", "120", ("-timecode", "00:00:10:90"), "00:00:10:45"),
        ("a.mxf", "25", ("-c:v", "mpeg2video", "-timecode", "01:00:00:00"), "01:00:00:00"),
        ("a.mpg", "25", ("-timecode", "09:58:00:00"), "09:58:00:00"),
        ("a.mpg", "30000/1001", ("-timecode", "00:59:50;02"), "00:59:50;02"),
        ("a.mp4", "25", (), "00:00:00:00"),
        ("a.mkv", "25", ("-metadata", "timecode=nonsense"), "00:00:00:00"),
    ],
)
def test_time_code_is_that_of_the_file(tmp_path, name, rate, options, start):
    path = ffmpeg(tmp_path / name, *options, rate=rate)
    assert read_timing(path).timecode(0) == start


def test_time_code_in_the_pictures_of_a_camera(monkeypatch, tmp_path):
    """SMPTE ST 12-1 as H.264 and HEVC carry it; no encoder at hand writes it, so the bits are those of the standard."""

    class Data:
        type = av.sidedata.sidedata.Type.S12M_TIMECODE

        def __bytes__(self) -> bytes:
            packed = 0x10 | 0x59 << 8 | 0x58 << 16 | (0x29 | 0x40) << 24  # 10:59:58;29
            return np.array([1, packed, 0, 0], "<u4").tobytes()

    frame = type("Frame", (), {"side_data": [Data()], "pts": 0, "time_base": Fraction(1, 30)})()
    path = ffmpeg(tmp_path / "a.mp4", rate="30000/1001")
    monkeypatch.setattr("shard_tools.video.timing.first_frame", lambda *_: frame)
    assert read_timing(path).timecode(0) == "10:59:58;29"


def test_video_may_begin_after_the_file(tmp_path):
    late = ffmpeg(tmp_path / "a.mkv", "-filter:v", "setpts=PTS+2/TB", sound=True)
    assert read_timing(late).begin == pytest.approx(2, abs=0.05)
    assert read_timing(late).timecode(0) == "00:00:02:00"  # the file begins at 0
    delayed = ffmpeg(tmp_path / "b.mkv", "-filter:v", "setpts=PTS+0.1/TB", sound=True)
    assert (read_timing(delayed).begin > 0.05, read_timing(delayed).timecode(0)) == (True, "00:00:00:00")
    tagged = ffmpeg(tmp_path / "a.mov", "-filter:v", "setpts=PTS+2/TB", "-timecode", "10:00:00:00", sound=True)
    assert read_timing(tagged).timecode(0) == "10:00:02:00"
    assert read_timing(ffmpeg(tmp_path / "b.ts")).begin == 0  # whose clock begins at 1.4 s
